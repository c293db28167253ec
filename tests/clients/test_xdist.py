"""The same test run, with pytest-xdist on this execnet and on the released one: the same results."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from environments import run

PROJECT = {
    "conftest.py": """
        import os
        import pytest

        @pytest.fixture(scope="session")
        def worker():
            return os.environ["PYTEST_XDIST_WORKER"]
        """,
    "test_outcomes.py": """
        import sys
        import warnings
        import pytest

        def test_passes(): pass
        def test_fails(): assert [1, 2, {"a": "\\xe9"}] == [1, 2, {"a": "b"}]
        def test_skips(): pytest.skip("not today")
        @pytest.mark.xfail
        def test_is_expected_to_fail(): assert False
        @pytest.mark.parametrize("number", range(40))
        def test_many(number, worker): print(number, worker)
        def test_warns(): warnings.warn("beware")
        def test_breaks_down(worker, nonsense): pass
        def test_writes(): sys.stderr.write("to stderr"); print("to stdout"); assert False
        """,
    "test_scope.py": """
        import pytest
        class TestOne:
            seen = set()
            @pytest.mark.parametrize("number", range(5))
            def test_stays_together(self, number, worker):
                self.seen.add(worker)
                assert len(self.seen) == 1
        """,
    "test_crash.py": """
        import os
        def test_before(): pass
        def test_crashes(): os._exit(3)
        def test_after(): pass
        """,
}

RUNS = {
    "two workers": ["-n2"],
    # Without the crash: loadscope and each of xdist 3.8.0 end with a KeyError when one of two workers that are
    # being replaced is ready before the other, on both. With tests that take half a second to import, always.
    "by scope": ["-n2", "--dist=loadscope", "--deselect=test_crash.py::test_crashes"],
    "each": ["--dist=each", "--tx", "2*popen", "--deselect=test_crash.py::test_crashes"],
    "an interpreter by name": ["-d", "--tx", "popen//python={python}"],
    "two interpreters by name": ["-d", "--tx", "2*popen//python={python}"],
    "through a proxy": ["-d", "--px", "id=proxy//popen", "--tx", "popen//via=proxy"],
    "in a directory": ["-d", "--tx", "popen//chdir={directory}/there", "--rsyncdir={directory}/project"],
}


def results(python: str, arguments: list[str], directory: Path) -> tuple[dict[str, list[str]], int]:
    """Test -> its outcomes, one for each run; and the exit status."""
    project = directory / "project"
    project.mkdir(parents=True)
    for name, text in PROJECT.items():
        lines = text.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        (project / name).write_text("".join(line[indent:] + "\n" for line in lines))
    report = directory / "report.xml"
    filled = [argument.format(python=python, directory=directory) for argument in arguments]
    done = run(python, ["-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *filled], project, 120)
    if not report.exists():
        pytest.fail(done.stdout)
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = sorted({child.tag for child in case} & {"failure", "error", "skipped"})
        found.setdefault(f"{case.get('classname')}::{case.get('name')}", []).append(",".join(kinds) or "passed")
    return {test: sorted(outcomes) for test, outcomes in found.items()}, done.returncode


@pytest.mark.parametrize("name", RUNS)
def test_a_run_has_the_same_results(environments: dict[str, str], name: str, tmp_path: Path) -> None:
    here = results(environments["here"], RUNS[name], tmp_path / "here")
    released = results(environments["released"], RUNS[name], tmp_path / "released")
    assert here == released
    assert len(here[0]) >= 50


PLUGIN = ["-p", "pytest_execnet"]
PRELOADED = {
    "two workers": ["-n2"],
    "each": ["--dist=each", "--tx", "2*popen", "--deselect=test_crash.py::test_crashes"],
    "an interpreter by name": ["-d", "--tx", "2*popen//python={python}"],
    "in a directory": ["-d", "--tx", "popen//chdir={directory}/there", "--rsyncdir={directory}/project"],
}


@pytest.mark.parametrize("name", PRELOADED)
def test_a_run_with_preload_has_the_same_results(here: str, name: str, tmp_path: Path) -> None:
    preloaded = results(here, [*PRELOADED[name], *PLUGIN, "-o", "execnet_preload=pytest, json"], tmp_path / "preloaded")
    assert preloaded == results(here, PRELOADED[name], tmp_path / "fresh")
    assert len(preloaded[0]) >= 50


TELLING = """
import os, sys
def test_tells(pytestconfig):
    with open("/proc/%d/cmdline" % os.getppid(), "rb") as line:
        print("forked" if b"fork_workers" in line.read() else "fresh")
    assert False
"""


@pytest.mark.parametrize("tx", ["-n1", "--tx=popen//chdir=.", "--tx=popen//python={python}"])
def test_preload_is_off_until_the_configuration_asks_for_it(here: str, tx: str, tmp_path: Path) -> None:
    (tmp_path / "test_tells.py").write_text(TELLING)
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", "-d", tx.format(python=here)]
    assert "fresh\n" in run(here, arguments, tmp_path, 60).stdout
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p pytest_execnet\nexecnet_preload = pytest, json\n")
    assert "forked\n" in run(here, arguments, tmp_path, 60).stdout


def test_without_xdist_the_setting_is_known_and_does_nothing(here: str, tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nexecnet_preload = json\naddopts = --strict-config -p pytest_execnet\n"
    )
    done = run(here, ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"], tmp_path, 60)
    assert "1 passed" in done.stdout
    alone = run(here, ["-c", "import pytest_execnet, sys; print('execnet' in sys.modules)"], tmp_path, 60)
    assert alone.stdout == "False\n"


def test_a_module_that_cannot_be_imported_is_named(here: str, tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    done = run(
        here, ["-m", "pytest", "-p", "no:cacheprovider", "-n1", *PLUGIN, "-o", "execnet_preload=nonsense"], tmp_path, 60
    )
    assert done.returncode != 0
    assert "cannot import nonsense, which preload= names" in done.stdout


def test_a_proxy_serves_several_workers(here: str, tmp_path: Path) -> None:
    # On the released execnet this fails: each gateway takes the proxy's only thread for running code.
    found, status = results(here, ["-d", "--px", "id=proxy//popen", "--tx", "3*popen//via=proxy"], tmp_path)
    assert status == 1
    assert len(found) >= 50


@pytest.mark.parametrize("arguments", [["--maxfail=1"], ["-x", "--dist=loadfile"]], ids=["maxfail", "x"])
def test_a_run_ends_at_the_first_failure(here: str, arguments: list[str], tmp_path: Path) -> None:
    found, status = results(here, ["-n2", *arguments, "--deselect=test_crash.py"], tmp_path)
    assert status == 2
    assert any("failure" in outcomes for outcomes in found.values())
    assert len(found) < 54


def test_a_crashed_worker_is_replaced_and_named(here: str, tmp_path: Path) -> None:
    (tmp_path / "test_crash.py").write_text("import os\ndef test_one(): os._exit(3)\ndef test_two(): pass\n")
    done = run(here, ["-m", "pytest", "-p", "no:cacheprovider", "-n1", "test_crash.py"], tmp_path, 60)
    assert done.returncode == 1
    assert "crashed while running 'test_crash.py::test_one'" in done.stdout
    assert "[gw0] node down: gateway gw0 " in done.stdout
    assert "is gone: exit status 3" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


def test_workers_print_nothing_into_the_report(here: str, tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    done = run(here, ["-m", "pytest", "-p", "no:cacheprovider", "-n2", "test_one.py"], tmp_path, 60)
    assert done.stdout.count("test session starts") == 1
    assert done.stdout.count("1 passed") == 1


def test_coverage_is_the_same(environments: dict[str, str], tmp_path: Path) -> None:
    figures = {}
    for name, python in environments.items():
        directory = tmp_path / name
        directory.mkdir()
        (directory / "counted.py").write_text(
            "def grade(n):\n    if n > 5:\n        return 'high'\n    elif n < 0:\n        return 'none'\n"
            "    return 'low'\n\n\ndef never():\n    return 1\n"
        )
        (directory / "test_counted.py").write_text(
            "import pytest, subprocess, sys\nfrom counted import grade\n\n"
            "@pytest.mark.parametrize('n', range(20))\ndef test_grade(n):\n    assert grade(n) in ('high', 'low')\n\n"
            "def test_in_a_child():\n"
            "    subprocess.check_call([sys.executable, '-c', 'import counted; counted.grade(-1)'])\n"
        )
        options = ["-n3", "--cov=counted", "--cov-branch", "--cov-report=json:cover.json", "--cov-report=term-missing"]
        done = run(python, ["-m", "pytest", "-p", "no:cacheprovider", *options], directory, 120)
        assert done.returncode == 0, done.stdout
        figures[name] = json.loads((directory / "cover.json").read_text())["files"]
    assert figures["here"] == figures["released"]
    assert figures["here"]["counted.py"]["summary"]["covered_lines"] >= 6
