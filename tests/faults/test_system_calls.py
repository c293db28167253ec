"""Killed at each system call: the worker, or the coordinator, anywhere in a gateway's life. Nothing is left, nothing
hangs, and who is left is told why.

strace(1) does it, by its injection. `make test` takes some of the system calls, `make soak` all of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

import execnet
from belongings import Belongings, eventually, left_behind, our_processes
from life import live

LONG_FORM = "EXECNET_SOAK_RUNS" in os.environ
SOME = 25  # in the short form
STRACE = shutil.which("strace")
LIFE = Path(__file__).parent / "life.py"
pytestmark = [
    pytest.mark.timeout(7200 if LONG_FORM else 1800),
    pytest.mark.skipif(STRACE is None, reason="no strace(1) on this machine"),
]


@dataclass
class Strike:
    """A system call of a program's main thread, from a recorded life."""

    name: str
    which: int  # of that name, from 1
    line: str

    def command(self) -> list[str]:
        """The prefix of a command that has it killed at this call."""
        assert STRACE is not None
        return [STRACE, "-qq", "-o", "/dev/null", "-e", f"inject={self.name}:signal=KILL:when={self.which}"]


def strikes(record: Path, begin: str) -> list[Strike]:
    """The calls from the first that contains `begin` on. Before it there is only an interpreter."""
    seen: Counter[str] = Counter()
    found: list[Strike] = []
    for line in record.read_text(errors="replace").splitlines():
        if name := re.match(r"(\w+)\(", line):
            seen[name[1]] += 1
            if found or begin in line:
                found.append(Strike(name[1], seen[name[1]], line[:80]))
    return found if LONG_FORM else found[:: max(1, len(found) // SOME)]


@pytest.mark.parametrize("kind", ["native", "pure"])
def test_the_coordinator_is_killed_at_a_system_call(kind: str, tmp_path: Path) -> None:
    spec = "popen" if kind == "native" else f"popen//python={sys.executable}"
    command = [sys.executable, str(LIFE), spec]
    assert STRACE is not None
    done = subprocess.run([STRACE, "-qq", "-o", tmp_path / "calls", *command], capture_output=True, text=True)
    assert done.stdout == "lived\n", done.stderr
    before = set(our_processes())
    wanted = strikes(tmp_path / "calls", "execnet-guard")
    struck = 0
    for strike in wanted:
        done = subprocess.run([*strike.command(), *command], capture_output=True, text=True, timeout=60)
        struck += done.stdout == ""
        assert eventually(lambda: set(our_processes()) <= before, 10), f"{strike}: {set(our_processes()) - before}"
    print(f"soak: coordinator killed at {struck} of {len(wanted)} system calls, {kind} worker")
    assert struck > len(wanted) / 2


@pytest.mark.parametrize("kind", ["native", "pure"])
def test_the_worker_is_killed_at_a_system_call(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    spec = "popen" if kind == "native" else f"popen//python={python}"

    def worker_behind(command: list[str]) -> None:
        python.write_text(f'#!/bin/sh\nexec {" ".join(command)} {sys.executable} "$@"\n')
        python.chmod(0o755)

    def live_once() -> None:
        with monkeypatch.context() as patch:
            if kind == "native":
                patch.setattr(sys, "executable", str(python))
            group = execnet.Group()
        try:
            live(group, spec)
        finally:
            group.terminate(timeout=5)

    assert STRACE is not None
    worker_behind([STRACE, "-qq", "-o", str(tmp_path / "calls")])
    live_once()
    wanted = strikes(tmp_path / "calls", "_core" if kind == "native" else "(0, F_DUPFD")
    struck = 0
    for strike in wanted:
        before = Belongings.now(quick=True)
        worker_behind(strike.command())
        told = None
        try:
            live_once()
        except (execnet.GatewayGone, execnet.HostNotFound, OSError) as error:
            told = f"{type(error).__name__}: {error}"
        assert not left_behind(before), strike
        if told is not None:
            struck += 1
            assert "SIGKILL" in told, f"{strike}: {told}"
    print(f"soak: worker killed at {struck} of {len(wanted)} system calls, {kind}")
    assert struck > len(wanted) / 2
