"""The system has no more descriptors, threads, processes or memory: at each call that asks for one, in turn.

Who asked is told, by an error of a documented type that names the cause; or is not hindered. Nothing aborts, hangs or
is left, and when there is enough again the same group works on. `make test` takes some of the calls, `make soak` all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exhausted import SCENARIOS

LONG_FORM = "EXECNET_SOAK_RUNS" in os.environ
STRIDE = 1 if LONG_FORM else 7  # of the calls, from the first to the last
HERE = Path(__file__).parent
SUPPORT = HERE.parent / "support"
PURE = f"popen//python={sys.executable}"
pytestmark = [
    pytest.mark.timeout(3600 if LONG_FORM else 300),
    pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="preloads a library in front of the sanitizer's"),
]


@pytest.fixture(scope="session")
def failing_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, to be preloaded."""
    library = tmp_path_factory.mktemp("failing") / "failing_calls.so"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SUPPORT / "failing_calls.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


def walk(library: Path, log: Path, side: str, scenario: str, spec: str) -> int:
    log.touch()
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "EXECNET_FAIL_LOG": str(log),
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(HERE / "exhausted.py"), side, scenario, spec, str(STRIDE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    walked = re.search(r"^walked (\d+): (.*)$", done.stdout, re.MULTILINE)
    assert walked, done.stdout[-4000:]
    print(f"soak: failing calls of the {side}, {scenario}, {spec.partition('=')[0]}: {walked[1]}: {walked[2]}")
    return int(walked[1])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_who_asked_in_the_coordinator_is_told(failing_calls: Path, tmp_path: Path, scenario: str) -> None:
    assert walk(failing_calls, tmp_path / "log", "coordinator", scenario, "popen") > 0


# Of what a server on a socket has started nobody reads the stderr, so its causes are not known here.
THERE = [scenario for scenario in SCENARIOS if scenario != "installed"]


@pytest.mark.parametrize("scenario", THERE if LONG_FORM else ["life", "second_task", "callbacks", "proxy", "preload"])
@pytest.mark.parametrize("spec", ["popen", PURE], ids=["native", "pure"])
def test_the_coordinator_is_told_what_a_worker_lacks(
    failing_calls: Path, tmp_path: Path, spec: str, scenario: str
) -> None:
    assert walk(failing_calls, tmp_path / "log", "worker", scenario, spec) > 0


# --- The same without a trick: the limit is lowered in the middle of it all ---

HERE_WHATS = ["echo", "setcallback", "make_receive_queue", "makegateway", "rsync", "via"]
THERE_WHATS = ["echo", "second_task", "callback_there", "rsync", "via"]


@pytest.mark.parametrize(
    ("side", "what", "spec"),
    [
        *(pytest.param("coordinator", what, "popen", id=f"here-{what}") for what in HERE_WHATS),
        *(pytest.param("worker", what, "popen", id=f"native-{what}") for what in THERE_WHATS),
        *(pytest.param("worker", what, PURE, id=f"pure-{what}") for what in THERE_WHATS),
    ],
)
@pytest.mark.parametrize("resource", ["descriptors", "threads"])
def test_what_there_is_nothing_for_is_an_error_and_works_afterwards(
    resource: str, side: str, what: str, spec: str
) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(HERE), os.environ.get("PYTHONPATH", "")])
    }
    for _ in range(int(os.environ.get("EXECNET_SOAK_RUNS", "1"))):
        command = [sys.executable, str(HERE / "starved.py"), resource, side, what, spec]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.stdout.endswith("again\n")
