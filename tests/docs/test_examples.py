"""Runs the examples as a reader would."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

import execnet
from sshd import PrivateSshd

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "python"))
from sessions import Session, SessionError, read_sessions, run_session

ROOT = Path(__file__).resolve().parents[2]
PYTHON_EXAMPLES = ROOT / "examples" / "python"
# The build that this package belongs to. The package consists of links; its unresolved path is in the build.
CPP_EXAMPLES = Path(execnet.__file__).parents[2] / "examples" / "cpp"

pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


def python(example: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, PYTHON_EXAMPLES / example, *arguments, **environment)


@pytest.fixture
def some_files(tmp_path: Path) -> Path:
    """A directory with 100 files of 2 words each, and some files that must not be counted."""
    for number in range(100):
        directory = tmp_path / f"part{number % 7}"
        directory.mkdir(exist_ok=True)
        (directory / f"file{number}.py").write_text("two words\n")
    (tmp_path / "part1" / "text.txt").write_text("no Python\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "installed.py").write_text("not counted\n")
    return tmp_path


# --- the demo ---------------------------------------------------------------------------------------


def test_the_demo_shows_every_session() -> None:
    done = python("demo.py", "sessions")
    assert done.returncode == 0, done.stderr
    for session in read_sessions(PYTHON_EXAMPLES / "reference_page.txt"):
        shown = done.stdout.partition(f"== {session.title}\n\n")[2].partition("\n\n==")[0]
        assert shown.strip() == session.text.strip()


def test_a_wrong_answer_stops_a_session(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SessionError, match="should be:\n3"):
        run_session(Session("sums", ">>> 1 + 1\n3\n>>> print('never')\nnever\n"))
    assert capsys.readouterr().out == ">>> 1 + 1\n2\n"


def test_an_exception_stops_a_session(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SessionError, match="should not raise"):
        run_session(Session("sums", ">>> 1 / 0\n>>> print('never')\nnever\n"))
    assert capsys.readouterr().out == ">>> 1 / 0\nZeroDivisionError: division by zero\n"


def test_a_session_leaves_no_gateway_behind(capsys: pytest.CaptureFixture[str]) -> None:
    run_session(Session("left", ">>> import execnet\n>>> group = execnet.Group(['popen'])\n"))
    assert ">>> group" in capsys.readouterr().out  # and the fixture of all tests looks for processes


def test_the_demo_says_how_it_is_called() -> None:
    done = python("demo.py", "nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: demo.py" in done.stderr


# --- word_count -------------------------------------------------------------------------------------


def test_words_are_counted(some_files: Path) -> None:
    done = python("word_count.py", some_files)
    assert done.returncode == 0, done.stderr
    *rows, total, verdict = done.stdout.splitlines()[2:]
    assert total.split()[:4] == ["total", "100", "1000", "200"]
    assert sum(int(row.split()[2]) for row in rows) == 100
    assert [row.split()[0] for row in rows] == [f"gw{number}" for number in range(len(os.sched_getaffinity(0)))]
    assert "same total" in verdict
    assert done.stderr == "", "a bar where there is no terminal"


def test_words_are_counted_over_ssh_too(some_files: Path, sshd: PrivateSshd) -> None:
    done = python("word_count.py", some_files, EXECNET_DEMO_SSH="localhost")
    assert done.returncode == 0, done.stderr
    *rows, total, _ = done.stdout.splitlines()[2:]
    assert len(rows) == len(os.sched_getaffinity(0)) + 1
    assert total.split()[1] == "100"


def test_a_terminal_sees_a_bar(some_files: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, PYTHON_EXAMPLES / "word_count.py", some_files],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            said += os.read(ours, 4096)
        except OSError:  # so a terminal says that nobody has it open any more
            break
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert b"[" + b"#" * 40 + b"] 100/100 files\r\x1b[K" in said


def test_without_files_it_says_so(tmp_path: Path) -> None:
    done = python("word_count.py", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"word_count.py: there is no .py file in {tmp_path}\n"


def test_a_host_that_is_not_there_is_named(some_files: Path) -> None:
    done = python("word_count.py", some_files, EXECNET_DEMO_SSH="unknown.invalid")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unknown.invalid" in done.stderr
    assert "Traceback" not in done.stderr


# --- fleet ------------------------------------------------------------------------------------------


def test_fleet_collects_answers(sshd: PrivateSshd) -> None:
    done = python("fleet.py", "popen", "ssh=localhost", "--", "echo", "hi there")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "popen: exit status 0\n  hi there\nssh=localhost: exit status 0\n  hi there\n"


def test_fleet_fails_when_a_command_fails() -> None:
    done = python("fleet.py", "popen", "--", "sh", "-c", "exit 3")
    assert (done.returncode, done.stdout) == (1, "popen: exit status 3\n")


@pytest.mark.parametrize("arguments", [[], ["popen"], ["--", "true"], ["popen", "--"]])
def test_fleet_says_how_it_is_called(arguments: list[str]) -> None:
    done = python("fleet.py", *arguments)
    assert (done.returncode, done.stderr) == (2, "usage: fleet.py SPEC... -- COMMAND...\n")


# --- C++ --------------------------------------------------------------------------------------------


def test_group_tour(sshd: PrivateSshd) -> None:
    done = run(CPP_EXAMPLES / "group_tour", EXECNET_TOUR_SSH="localhost")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("mytmp\n\nAll as it should be.\n")


def test_group_tour_fails_when_a_step_does(sshd: PrivateSshd) -> None:
    done = run(CPP_EXAMPLES / "group_tour", EXECNET_TOUR_SSH="refused")
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


def test_word_count(some_files: Path) -> None:
    done = run(CPP_EXAMPLES / "word_count", some_files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2].split()[:4] == ["total", "100", "1000", "200"]
