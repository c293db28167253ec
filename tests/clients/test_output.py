"""What tests print under pytest-xdist, with the conftest.py of docs/output.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from environments import ROOT, run

# As the page has it.
CONFTEST = next(
    block
    for block in re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "output.md").read_text(), re.M | re.S)
    if "pytest_xdist_setupnodes" in block
)
TESTS = """
import logging, os, subprocess, sys

def test_prints():
    print("from", "print")
    os.write(1, b"from C\\n")
    subprocess.check_call(["echo", "from a child"])

def test_logs():
    logging.getLogger("of.the.test").warning("from the log")

def test_crashes():
    print("the last words")
    os._exit(3)

def test_after():
    print("from the next worker")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "test_prints.py").write_text(TESTS)
    return tmp_path


def outcome(here: str, project: Path, *arguments: str) -> str:
    done = run(here, ["-m", "pytest", "-p", "no:cacheprovider", *arguments], project, 120)
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    "tx", ["-n1", "--tx=popen//python={python}", "--tx=popen//preload=pytest"], ids=["-n", "--tx", "preload"]
)
def test_all_that_tests_print_is_shown(here: str, project: Path, tx: str) -> None:
    (project / "conftest.py").write_text(CONFTEST)
    shown = outcome(here, project, "-s", "-d", tx.format(python=here))
    for line in ("from print", "from C", "from a child", "the last words", "from the next worker"):
        assert shown.count(line + "\n") == 1, shown
    assert shown.index("from print") < shown.index("from C") < shown.index("from a child")
    assert shown.count("test session starts") == 1


def test_without_it_nothing_is_shown(here: str, project: Path) -> None:
    assert "from print" not in outcome(here, project, "-s", "-n1")


def test_with_capture_only_what_failing_tests_have_printed_is_shown(here: str, project: Path) -> None:
    (project / "conftest.py").write_text(CONFTEST)
    assert "from print" not in outcome(here, project, "-n1")


@pytest.mark.parametrize("capture", ["-s", "--capture=fd"])
def test_the_log_is_shown_live(here: str, project: Path, capture: str) -> None:
    (project / "conftest.py").write_text(CONFTEST)
    shown = outcome(here, project, "-n1", capture, "-o", "log_cli=true")
    assert shown.count("from the log\n") == 1, shown
    assert "live log call" in shown


def test_lines_of_several_workers_are_not_torn_apart(here: str, project: Path) -> None:
    (project / "conftest.py").write_text(CONFTEST)
    (project / "test_prints.py").write_text(
        "import pytest, sys\n@pytest.mark.parametrize('n', range(20))\n"
        "def test_prints(n):\n    for i in range(100): print('line', n, i, 'end')\n"
    )
    done = run(here, ["-m", "pytest", "-p", "no:cacheprovider", "-n2", "-s"], project, 120)
    assert "20 passed" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "line" in line and "end" in line]
    assert sorted(line[line.index("line") :] for line in lines) == sorted(
        f"line {n} {i} end" for n in range(20) for i in range(100)
    )
