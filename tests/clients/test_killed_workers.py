"""A day of pytest-xdist in a minute: short sessions whose workers are killed at random. 500 in `make soak`."""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from belongings import command_line, descendants_of, eventually, our_processes
from environments import clean_environ, run

SESSIONS = int(os.environ.get("EXECNET_SOAK_SESSIONS", "12"))
TESTS = 40
TEST_FILE = f"""
import time, pytest

@pytest.mark.parametrize("number", range({TESTS}))
def test_short(number):
    time.sleep(0.01)
"""


# Kills a worker while xdist handles an outcome from it and has its next message queued, upon which xdist sends
# the worker more tests. The interpreter's lock is held meanwhile, so no thread can tell xdist of the end.
KILLED_BETWEEN = {
    "test_short.py": """
import os, pathlib, time, pytest
third = pathlib.Path("third")
worker = os.environ["PYTEST_XDIST_WORKER"]
seen = []

@pytest.mark.parametrize("number", range(32))  # each worker is given four, and more when it is through with two
def test_short(number):
    seen.append(number)
    if worker == "gw0" and len(seen) == 3:
        third.with_suffix(".new").write_text(str(os.getpid()))
        third.with_suffix(".new").rename(third)
        time.sleep(1000)
    while worker == "gw1" and not third.exists():
        time.sleep(0.01)
""",
    "conftest.py": """
import ctypes, os, pathlib, select, signal, sys, time
third = pathlib.Path("third")
done = []

def pytest_runtest_logreport(report):
    if (getattr(report, "node", None) and report.node.gateway.id, report.when) != ("gw0", "teardown"):
        return
    done.append(report)
    if len(done) == 2:
        while not third.exists():
            time.sleep(0.01)
        pid = int(third.read_text())
        sys.setswitchinterval(1000)
        keeping_the_lock = ctypes.PyDLL(None)
        keeping_the_lock.kill(pid, signal.SIGKILL)
        keeping_the_lock.usleep(300_000)

def pytest_runtest_logstart():
    if len(done) == 2:
        sys.setswitchinterval(0.005)
""",
}


def test_a_worker_is_killed_right_before_it_is_sent_something(here: str, tmp_path: Path) -> None:
    # On the released execnet xdist ends with an internal error: it does not expect `send` to raise there.
    for name, text in KILLED_BETWEEN.items():
        (tmp_path / name).write_text(text)
    done = run(here, ["-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"], tmp_path, 60)
    assert "INTERNALERROR" not in done.stdout, done.stdout
    assert re.search(r"worker 'gw0' crashed while running 'test_short.py::test_short\[[26]\]'", done.stdout), (
        done.stdout
    )
    assert outcome_counts(done.stdout) == {"failed": 1, "passed": 31}
    assert done.returncode == 1


def workers_of(session: int, what: str = "") -> list[int]:
    """The workers of a session, once xdist runs in them and has set their title: `running` a test, or `idle`."""
    return [pid for pid in descendants_of(session) if command_line(pid).startswith(f"[pytest-xdist {what}")]


def outcome_counts(text: str) -> dict[str, int]:
    """The counts in the last line: passed -> 38, failed -> 2."""
    summary = [line for line in text.splitlines() if re.search(r" in [0-9.]+s", line)]
    assert summary, text
    return {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|error|errors)", summary[-1])}


@pytest.mark.timeout(60 + 10 * SESSIONS)
def test_sessions_whose_workers_are_killed_report_it_and_leave_nothing(here: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("EXECNET_SOAK_SEED", "1"))
    chance = random.Random(seed)
    (tmp_path / "test_short.py").write_text(TEST_FILE)
    before = set(our_processes())
    crashes = killed_in_all = passed_before = 0
    begin = time.monotonic()
    for number in range(SESSIONS):
        process = subprocess.Popen(
            [here, "-m", "pytest", "-q", "-n", "4", "-p", "no:cacheprovider", "test_short.py"],
            cwd=tmp_path,
            env=clean_environ(PYTHONDONTWRITEBYTECODE="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        killed = 0
        end = os.pidfd_open(process.pid)
        try:
            for _ in range(chance.randint(0, 3)):
                while not workers_of(process.pid) and not select.select([end], [], [], 0.01)[0]:
                    pass
                select.select([end], [], [], chance.uniform(0, 0.4))
                if workers := workers_of(process.pid, chance.choice(["running", "idle", ""])):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(workers), signal.SIGKILL)
                        killed += 1
            text, _ = process.communicate(timeout=60)
        finally:
            os.close(end)
        where = f"session {number} of seed {seed}, {killed} killed:\n{text}"
        counts = outcome_counts(text)
        failed = counts.get("failed", 0)
        assert "INTERNALERROR" not in text, where
        # Each test has an outcome. Tests that a dead worker was running have failed. xdist reports both outcomes of a
        # test that had passed, if the worker was killed before it said that it was done with it.
        both = counts.get("passed", 0) + failed - TESTS
        assert 0 <= both <= failed, where
        assert failed <= killed, where
        assert text.count("crashed while running") >= failed, where
        assert process.returncode == (1 if failed else 0), where
        assert eventually(lambda: set(our_processes()) <= before), where
        crashes += failed
        passed_before += both
        killed_in_all += killed
    seconds = time.monotonic() - begin
    print(f"soak: {SESSIONS} sessions of pytest -n 4, {killed_in_all} workers killed, {crashes} of them while they ran")
    print(f"soak: a test, {passed_before} of these after its outcome had come")
    print(f"soak: {seconds:.0f} s; exit codes and reports are right, nothing is left")
