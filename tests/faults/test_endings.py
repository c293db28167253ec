"""Nothing is left: every way of a worker to be busy, on every transport, for every end of the coordinator.

For each ending a table: processes left behind, and milliseconds until the last one was gone. `make test` prints them;
nothing here depends on how fast this machine is today.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import execnet
import interpreters
from belongings import descendants_of, ends_gone, parent_of
from endings import COLUMNS, DAEMON, ROWS, tell
from sshd import PrivateSshd

pytestmark = pytest.mark.timeout(600)

PATIENCE = 10.0  # seconds; what is still there then is left behind


@dataclass
class Coordinator:
    """A program with a gateway to a busy worker."""

    process: subprocess.Popen[str]
    pids: list[int]  # what the worker has started, the worker itself, the last one

    @property
    def worker(self) -> int:
        return self.pids[-1]

    @property
    def guards(self) -> tuple[int, int]:
        """The outer and the inner guard of the worker."""
        inner = parent_of(self.worker)
        return parent_of(inner), inner

    def family(self) -> set[int]:
        """The coordinator and everything it has started, here and where the worker is."""
        return {self.process.pid, *descendants_of(self.process.pid), *self.pids, *self.guards}


@contextlib.contextmanager
def coordinators(column: str, ending: str) -> Iterator[dict[str, Coordinator]]:
    """A coordinator for each row, all ready."""
    program = [sys.executable, str(Path(__file__).parent / "endings.py"), column]
    with contextlib.ExitStack() as stack:
        started = {}
        for row in ROWS:
            process = subprocess.Popen(
                [*program, row, ending],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.callback(process.communicate)
            started[row] = process
        ready = {}
        for row, process in started.items():
            assert process.stdout is not None
            ready[row] = Coordinator(process, json.loads(process.stdout.readline()))
        yield ready


def left_after(act: Callable[[], None], family: set[int], end_of: int | None) -> tuple[int, float, float]:
    """Acts and waits. Returns how many of the family are left, and the milliseconds until the last one was gone.

    These count from the end of the process `end_of`, if there is one, else from the deed; third, milliseconds between.
    """
    with contextlib.ExitStack() as stack:
        running = {}
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                running[os.pidfd_open(pid)] = pid
        for fd in running:
            stack.callback(os.close, fd)
        begin = last = ended_at = time.monotonic()
        act()
        while running and (left := begin + PATIENCE - time.monotonic()) > 0:
            ended, _, _ = select.select(running, [], [], left)
            last = time.monotonic() if ended else last
            if end_of in [running.pop(fd) for fd in ended]:
                ended_at = last
        for fd in running:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        return len(running), (last - ended_at) * 1000, (ended_at - begin) * 1000


def kill(number: int) -> Callable[[Coordinator], None]:
    return lambda coordinator: os.kill(coordinator.process.pid, number)


def say(coordinator: Coordinator) -> None:
    assert coordinator.process.stdin is not None
    coordinator.process.stdin.write("\n")
    coordinator.process.stdin.flush()


ENDINGS: dict[str, Callable[[Coordinator], None]] = {
    "SIGKILL": kill(signal.SIGKILL),
    "SIGTERM": kill(signal.SIGTERM),
    "os._exit": say,
    "unhandled exception": say,
    "sys.exit with threads alive": say,
    "outer guard killed": lambda coordinator: os.kill(coordinator.guards[0], signal.SIGKILL),
    "inner guard killed": lambda coordinator: os.kill(coordinator.guards[1], signal.SIGKILL),
}


# Here Python waits for its threads, and our `atexit` handler gives busy workers a second.
ORDERLY = ("unhandled exception", "sys.exit with threads alive")


def table(ending: str, cells: dict[tuple[str, str], tuple[int, float, float]]) -> str:
    since = "" if "guard" in ending else " after the coordinator"
    lines = [f"{ending}: processes left, milliseconds until the last one was gone{since}"]
    lines.append(f"{'':24}" + "".join(f"{column:>16}" for column in COLUMNS))
    for row in ROWS:
        texts = [f"{left} {ms:6.0f} ms" for left, ms, _ in (cells[row, column] for column in COLUMNS)]
        lines.append(f"{row:24}" + "".join(f"{text:>16}" for text in texts))
    if ending in ORDERLY:
        own = [max(cells[row, column][2] for row in ROWS) for column in COLUMNS]
        lines.append(f"{'its own end took up to':24}" + "".join(f"{f'{ms:6.0f} ms':>16}" for ms in own))
    return "\n".join(lines) + "\n\n"


@pytest.mark.parametrize(
    "ending", [pytest.param(ending, marks=[pytest.mark.alone] if ending == "SIGKILL" else []) for ending in ENDINGS]
)
def test_nothing_is_left(ending: str, sshd: PrivateSshd) -> None:
    del sshd
    cells = {}
    for column in COLUMNS:
        with coordinators(column, ending) as ready:
            for row, coordinator in ready.items():
                if "guard" in ending:
                    family = {*coordinator.pids[: -len(COLUMNS[column])], coordinator.worker, *coordinator.guards}
                    end_of = None
                else:
                    family, end_of = coordinator.family(), coordinator.process.pid
                cells[row, column] = left_after(lambda c=coordinator: ENDINGS[ending](c), family, end_of)
    tell(table(ending, cells))
    assert [(cell, left) for cell, (left, _, _) in cells.items() if left] == []


def test_the_readme_says_how_many_combinations_are_tried() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    assert f" in {len(ROWS) * len(COLUMNS) * len(ENDINGS)} combinations " in readme


@pytest.mark.parametrize("name", interpreters.NAMES)
@pytest.mark.parametrize("how", ["worker ends", "outer guard killed", "inner guard killed", "stream ends"])
def test_the_guard_in_python_is_one_with_every_interpreter(group: execnet.Group, name: str, how: str) -> None:
    interpreter = interpreters.find(name)
    if interpreter is None:
        pytest.skip(f"no {name} on this machine")
    # A pure proxy gives its workers their stream on stdin and stdout, as sshd does.
    group.makegateway(f"popen//id=proxy//python={sys.executable}")
    gateway = group.makegateway(f"popen//via=proxy//python={interpreter}")
    family = [gateway._rinfo().pid, *gateway.remote_exec(DAEMON).receive(timeout=30)]
    family += [parent_of(family[0]), parent_of(parent_of(family[0]))]
    if how == "worker ends":
        with pytest.raises(EOFError, match="exit status 7"):
            gateway.remote_exec("import os; os._exit(7)").receive(timeout=30)
    elif how == "stream ends":
        group["proxy"].remote_exec("import os; os._exit(0)")
    else:
        os.kill(family[3 if how == "outer guard killed" else 2], signal.SIGKILL)
    assert ends_gone(family, patience=PATIENCE)
