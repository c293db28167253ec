"""A fault at each frame of a gateway's life: whatever happens, nothing hangs, nothing is left, and the error says why.

relay.py stands between coordinator and worker, counts the frames of one undisturbed life, and then strikes at each of
them. `make test` has one kind of fault for each frame, the next kind at the next; `make soak` has all kinds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import execnet
from belongings import Belongings, eventually, left_behind
from lateness import Stopwatch
from life import WrongItem, live

LONG_FORM = "EXECNET_SOAK_RUNS" in os.environ
pytestmark = [
    pytest.mark.timeout(3600 if LONG_FORM else 1800),
    pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="the relay stands in for the interpreter"),
]

KINDS = ["kill", "stop", "cut", "truncate", "delay", "corrupt"]
AT_ONCE = 2.0  # seconds within which a death is known; far more than it takes, on a machine that others use too


@dataclass
class Line:
    """Starts workers with relay.py in front, and reads its reports."""

    worker: str
    relay: Path
    pipe: Path
    reports: int = field(default=-1)

    def told(self) -> str:
        """The reports since the last call."""
        said = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self.reports, 4096):
                said += more
        return said.decode()

    @contextlib.contextmanager
    def group(self, fault: str, patch: pytest.MonkeyPatch) -> Iterator[execnet.Group]:
        """A group whose plain gateways have this fault."""
        patch.setenv("EXECNET_FAULT", fault)
        if self.worker == "native":
            patch.setattr(sys, "executable", str(self.relay))
        group = execnet.Group()
        patch.undo()
        patch.setenv("EXECNET_FAULT_REPORT", str(self.pipe))
        patch.setenv("EXECNET_FAULT_PYTHON", sys.executable)
        patch.setenv("EXECNET_FAULT", fault)
        try:
            yield group
        finally:
            group.terminate(timeout=0.5)
            patch.undo()

    @property
    def spec(self) -> str:
        return "popen" if self.worker == "native" else f"popen//python={shlex.quote(str(self.relay))}"


@pytest.fixture(params=["native", "pure"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line]:
    relay = tmp_path / "python"
    relay.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {Path(__file__).parent / "relay.py"} "$@"\n')
    relay.chmod(0o755)
    pipe = tmp_path / "reports"
    os.mkfifo(pipe)
    reports = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # a writer, too: there is never an end
    yield Line(request.param, relay, pipe, reports)
    os.close(reports)


@dataclass
class Outcome:
    error: Exception | None = None
    by_itself: bool = True  # not only because the group was terminated


def outcome_of(line: Line, fault: str, patch: pytest.MonkeyPatch) -> Outcome:
    """Lives a life with that fault in a thread. Returns what becomes of it, in bounded time."""
    outcome = Outcome()
    with line.group(fault, patch) as group:

        def run() -> None:
            try:
                live(group, line.spec)
            except Exception as error:
                outcome.error = error.with_traceback(None)  # which would keep what is to be gone

        thread = threading.Thread(target=run)
        thread.start()
        hangs = fault.startswith(("stop", "corrupt"))  # nobody can know: it may but be slow
        if hangs:
            eventually(lambda: "struck" in line.told() or not thread.is_alive(), 30)
            thread.join(0.3)
        else:
            thread.join(30)
        outcome.by_itself = not thread.is_alive()
        with Stopwatch() as watch:
            group.terminate(timeout=0.5)
        assert watch.seconds < 0.7 + watch.late, f"{fault}: terminate took {watch.seconds:.2f} s"
        thread.join(AT_ONCE)
        assert not thread.is_alive(), f"{fault}: who waited has not been told"
    return outcome


def what_is_wrong(line: Line, fault: str, patch: pytest.MonkeyPatch) -> str | None:
    kind = fault.split()[0]
    before = Belongings.now(quick=True)
    try:
        outcome = outcome_of(line, fault, patch)
    except AssertionError as error:
        return str(error)
    if lines := left_behind(before):
        return f"{fault}: has left behind: {'; '.join(lines)}"
    error = outcome.error
    text = f"{fault}: {type(error).__name__}: {error}"
    told = isinstance(error, (execnet.RemoteError, OSError, EOFError, execnet.DataFormatError)) and str(error)
    if kind == "delay":
        return None if error is None else text
    if kind in ("kill", "cut", "truncate") and not outcome.by_itself:
        return f"{text}: hung until it was terminated"
    if error is None:  # nothing has gone wrong, up to the end, for which nobody raises an error
        return None
    if kind == "kill" and isinstance(error, (execnet.GatewayGone, execnet.HostNotFound)) and "SIGKILL" not in text:
        return f"{text}: does not name the cause"
    return None if told or (kind == "corrupt" and isinstance(error, WrongItem)) else text


def frames_of_a_life(line: Line, patch: pytest.MonkeyPatch) -> dict[str, int]:
    assert outcome_of(line, "none up -1 0", patch).error is None
    words: list[str] = []

    def counted() -> bool:
        words.extend(line.told().split())
        return "frames" in words and len(words) > words.index("frames") + 2

    assert eventually(counted)
    at = words.index("frames")
    return {"up": int(words[at + 1]), "down": int(words[at + 2])}


def faults(frames: dict[str, int]) -> Iterator[str]:
    """Each frame, with one kind of fault or with all. Corrupted bytes are in the header, and behind it."""
    kinds = itertools.cycle(KINDS)
    positions = itertools.cycle([0, 1, 2, 4, 8, 12, 16, 20])
    for direction, count in frames.items():
        for index in range(count):
            for kind in KINDS if LONG_FORM else [next(kinds)]:
                for _ in range(8 if LONG_FORM and kind == "corrupt" else 1):
                    yield f"{kind} {direction} {index} {next(positions)}"


def test_a_fault_at_each_frame(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_of_a_life(line, monkeypatch)
    assert frames["up"] >= 8
    assert frames["down"] >= 8
    wanted = list(faults(frames))
    wrong = [text for text in (what_is_wrong(line, fault, monkeypatch) for fault in wanted) if text]
    print(f"soak: faults, {line.worker} worker: {len(wanted)} at {frames['up']} and {frames['down']} frames")
    assert not wrong, "\n".join(wrong)
