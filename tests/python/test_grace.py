"""`grace=`: the time that running code has when the program that has started it is killed. Nothing outlives it."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import execnet
from kinds import KINDS, OVER_SSH, with_key
from sshd import PrivateSshd

pytestmark = pytest.mark.timeout(300)

PATIENCE = 60.0
# Kept open by what the worker runs, and by nobody else: its end is the end of all that holds it.
OPEN = "import os, time\nout = os.open(channel.receive(), os.O_WRONLY)\n"
REACTS = (
    OPEN
    + """
try:
    os.write(out, b"ready ")
    while True:
        time.sleep(0.01)
finally:
    time.sleep(1.5)  # longer than a worker has without `grace`
    os.write(out, b"clean")
"""
)
DEAF = (
    OPEN
    + """
import signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.write(out, b"ready ")
while True:
    time.sleep(1000)
"""
)
# It runs nothing any more, and has left a process and a thread behind.
IDLE = (
    OPEN
    + """
import subprocess, sys, threading
sys.kept = out
subprocess.Popen(["sleep", "1000"], stdout=out, close_fds=True)
thread = threading.Thread(target=time.sleep, args=(1000,))
thread.daemon = True
thread.start()
os.write(out, b"ready ")
"""
)

PROGRAM = """
import sys, execnet
group = execnet.Group(sys.argv[4:], grace=float(sys.argv[3]))
group[-1].remote_exec(sys.argv[1]).send(sys.argv[2])
sys.stdin.read()
"""


@contextlib.contextmanager
def program(tmp_path: Path, code: str, specs: list[str], grace: float) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A program whose last gateway runs the code, and what that writes."""
    path = tmp_path / "out"
    os.mkfifo(path)
    out = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    argv = [sys.executable, "-c", PROGRAM, code, str(path), str(grace), *specs]
    try:
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                yield process, out
            finally:
                process.kill()
    finally:
        os.close(out)


def read(out: int) -> bytes:
    assert select.select([out], [], [], PATIENCE)[0] == [out], "nothing came"
    return os.read(out, 100)


def said_after_the_kill(tmp_path: Path, code: str, specs: list[str], grace: float = 1.0) -> tuple[bytes, float]:
    """What the code says when its program is killed, and the seconds until all of it is gone."""
    with program(tmp_path, code, specs, grace) as (process, out):
        assert read(out) == b"ready "
        process.kill()
        process.wait()
        killed_at = time.monotonic()
        said = b"".join(iter(lambda: read(out), b""))
        return said, time.monotonic() - killed_at


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "socket"])
def test_code_that_reacts_can_clean_up(kind: str, tmp_path: Path) -> None:
    assert said_after_the_kill(tmp_path, REACTS, with_key(KINDS[kind], "grace=60"))[0] == b"clean"


@pytest.mark.parametrize("kind", OVER_SSH)
def test_code_that_reacts_can_clean_up_over_ssh(sshd: PrivateSshd, kind: str, tmp_path: Path) -> None:
    del sshd
    assert said_after_the_kill(tmp_path, REACTS, with_key(OVER_SSH[kind], "grace=60"))[0] == b"clean"


def test_the_grace_of_a_group_is_that_of_its_members(tmp_path: Path) -> None:
    assert said_after_the_kill(tmp_path, REACTS, KINDS["via-native"], grace=60)[0] == b"clean"


def test_without_the_key_it_is_a_second(tmp_path: Path) -> None:
    reacts = REACTS.replace("sleep(1.5)", "sleep(0.3)")
    assert said_after_the_kill(tmp_path, reacts, ["popen"])[0] == b"clean"
    assert execnet.Group().grace == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_code_that_does_not_react_is_killed_when_it_is_over(kind: str, tmp_path: Path) -> None:
    said, seconds = said_after_the_kill(tmp_path, DEAF, with_key(KINDS[kind], "grace=0.5"))
    assert said == b""
    assert kind == "socket" or seconds >= 0.5


@pytest.mark.parametrize("kind", OVER_SSH)
def test_code_that_does_not_react_is_killed_over_ssh(sshd: PrivateSshd, kind: str, tmp_path: Path) -> None:
    del sshd
    said, seconds = said_after_the_kill(tmp_path, DEAF, with_key(OVER_SSH[kind], "grace=0.5"))
    assert said == b""
    assert seconds >= 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_runs_nothing_ends_at_once_with_what_it_has_started(kind: str, tmp_path: Path) -> None:
    # Else this would take longer than anybody waits.
    assert said_after_the_kill(tmp_path, IDLE, with_key(KINDS[kind], "grace=1000"))[0] == b""


@pytest.mark.parametrize("kind", OVER_SSH)
def test_a_worker_that_runs_nothing_ends_at_once_over_ssh(sshd: PrivateSshd, kind: str, tmp_path: Path) -> None:
    del sshd
    assert said_after_the_kill(tmp_path, IDLE, with_key(OVER_SSH[kind], "grace=1000"))[0] == b""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "via" in kind])
def test_behind_a_proxy_there_is_at_most_the_grace_of_the_proxy(kind: str, tmp_path: Path) -> None:
    proxy, worker = KINDS[kind]
    said, seconds = said_after_the_kill(tmp_path, DEAF, [f"{proxy}//grace=0.2", f"{worker}//grace=1000"])
    assert said == b""
    assert seconds < PATIENCE


@pytest.mark.parametrize("kind", [*KINDS, *OVER_SSH])
def test_terminate_does_not_wait_for_it(sshd: PrivateSshd, group: execnet.Group, kind: str, tmp_path: Path) -> None:
    del sshd
    os.mkfifo(tmp_path / "out")
    out = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    try:
        for spec in with_key({**KINDS, **OVER_SSH}[kind], "grace=1000"):
            group.makegateway(spec)
        group[-1].remote_exec(DEAF).send(str(tmp_path / "out"))
        assert read(out) == b"ready "
        group.terminate(timeout=1.0)
        assert read(out) == b""
    finally:
        os.close(out)


@pytest.mark.parametrize("value", ["-1", "inf", "nan", "1000001", "5s", "1e999", ""])
def test_what_is_no_number_of_seconds_is_refused_before_anything_is_started(group: execnet.Group, value: str) -> None:
    with pytest.raises(ValueError, match=r"number of seconds from 0 to 1000000|no value for grace"):
        group.makegateway(f"popen//grace={value}")
    assert len(group) == 0


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), 1e7])
def test_a_group_refuses_it_as_well(value: float) -> None:
    with pytest.raises(ValueError, match="the grace of a group is a number of seconds from 0 to 1000000, not "):
        execnet.Group(["popen"], grace=value)
    group = execnet.Group(grace=2)
    with pytest.raises(ValueError, match="the grace of a group"):
        group.grace = value
    assert group.grace == 2.0


def test_it_may_be_set_as_a_number(group: execnet.Group) -> None:
    spec = execnet.XSpec("popen")
    for value in (-0.5, float("inf")):
        spec.grace = value
        with pytest.raises(ValueError, match=f"grace={value} is not a number of seconds"):
            group.makegateway(spec)
    spec.grace = 0.5
    assert group.makegateway(spec).spec.grace == 0.5


def test_a_forked_copy_of_the_program_keeps_the_grace_of_its_groups() -> None:
    code = """
import os, execnet
group = execnet.Group(grace=3)
pid = os.fork()
if pid == 0:
    os._exit(int(group.grace))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60).stdout == b"3\n"
