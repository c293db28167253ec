"""Programs of gevent and eventlet: a wait blocks a greenlet and not its thread. See greenlets.py."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import execnet
import greenlets
from belongings import ends_gone

pytestmark = pytest.mark.skipif(
    "EXECNET_TEST_SANITIZER" in os.environ, reason="sanitizers do not know of greenlets' stacks"
)

needed = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("gevent", "eventlet")
}
each_package = pytest.mark.parametrize("package", [pytest.param(name, marks=mark) for name, mark in needed.items()])
each_worker = pytest.mark.parametrize("worker", ["native", "pure"])


def run(*arguments: str) -> str:
    """The output of a program, which must succeed."""
    done = subprocess.run(
        [sys.executable, greenlets.__file__, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needed["gevent"]
@pytest.mark.parametrize("program", [program.__name__ for program in greenlets.HERE])
def test_a_call_that_waits_lets_other_greenlets_run(program: str) -> None:
    assert run(program, "gevent", "chosen", "native") == "passed\n"


@needed["eventlet"]
@pytest.mark.parametrize("program", [program.__name__ for program in greenlets.BY_HUB])
def test_a_call_that_waits_lets_greenlets_of_eventlet_run(program: str) -> None:
    assert run(program, "eventlet", "chosen", "native") == "passed\n"


@each_package
@pytest.mark.parametrize("program", [program.__name__ for program in greenlets.MONKEY_PATCHED])
def test_in_a_monkey_patched_process_every_model_lets_them(program: str, package: str) -> None:
    assert run(program, package, "patched", "native") == "passed\n"


@each_package
@pytest.mark.parametrize("program", ["receive", "callbacks"])
def test_monkey_patching_after_the_import_is_as_good(program: str, package: str) -> None:
    assert run(program, package, "patched-late", "native") == "passed\n"


@each_package
@each_worker
@pytest.mark.parametrize("program", [program.__name__ for program in greenlets.THERE])
def test_code_on_a_worker_runs_in_greenlets(program: str, worker: str, package: str) -> None:
    assert run(program, package, "chosen", worker) == "passed\n"


@each_package
@pytest.mark.parametrize("how", ["chosen", "patched"])
def test_the_interpreter_ends_while_greenlets_wait(how: str, package: str) -> None:
    pid, told = run("left_waiting", package, how, "native").splitlines()
    assert told == "told the end"
    assert ends_gone([int(pid)])


@each_package
@each_worker
def test_a_worker_whose_coordinator_is_gone_ends_whatever_its_greenlets_do(worker: str, package: str) -> None:
    assert ends_gone([int(run("lost_coordinator", package, "chosen", worker))])


@pytest.mark.parametrize("package", ["gevent", "eventlet"])
@each_worker
def test_a_missing_package_is_named_with_what_to_do(
    worker: str, package: str, group: execnet.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ImportError(\"No module named '{package}'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    spec = "popen" if worker == "native" else f"popen//python={sys.executable}"
    with pytest.raises(execnet.HostNotFound, match=f"No module named '{package}': install {package} for .*python"):
        group.makegateway(f"{spec}//execmodel={package}")


@each_worker
def test_an_unknown_model_is_refused(worker: str, group: execnet.Group) -> None:
    spec = "popen" if worker == "native" else f"popen//python={sys.executable}"
    with pytest.raises(execnet.HostNotFound, match=r"execmodel=fibers: .*there are thread, main_thread_only, gevent"):
        group.makegateway(f"{spec}//execmodel=fibers")


@each_package
def test_a_group_can_have_the_model_on_both_sides(package: str) -> None:
    program: Callable[..., str] = """
import execnet
with execnet.Group(["popen"], execmodel={package!r}) as group:
    assert group.execmodel.backend == group.remote_execmodel.backend == {package!r}
    assert group[0].remote_status().execmodel == {package!r}
""".format
    done = subprocess.run([sys.executable, "-c", program(package=package)], timeout=120, check=False)
    assert done.returncode == 0
