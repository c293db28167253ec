"""What this process has running and open, as /proc shows it, and what it has left behind.

Processes are found in two ways: down the tree of parents, zombies included, and by a mark in the
environment, which also finds orphans that have another parent by now.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MARK = "EXECNET_TEST_SESSION"


def mark_children() -> None:
    """Marks the processes that are started from now on, so that we find them wherever they end up."""
    os.environ[MARK] = f"{os.getpid()}-{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Belongings:
    """One moment: pid -> command line, (number, target) of descriptors, thread ids.

    A quick look sees of the processes the children only.
    """

    processes: dict[int, str]
    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[int]
    quick: bool

    @classmethod
    def now(cls, quick: bool = False) -> Belongings:
        return cls(
            {pid: command_line(pid) for pid in (children() if quick else our_processes())},
            frozenset(open_descriptors()),
            frozenset(int(name) for name in os.listdir("/proc/self/task")),
            quick,
        )


def left_behind(before: Belongings, patience: float = 20.0) -> list[str]:
    """A line for each thing that is there now and was not there before; empty when all is gone.

    What is on its way out (a process that was killed, a thread that was joined) has `patience`
    seconds to be gone; what only a reference cycle keeps alive is collected.
    """

    def extra() -> list[str]:
        now = Belongings.now(before.quick)
        return [
            *(f"process {pid}: {command}" for pid, command in now.processes.items() if pid not in before.processes),
            *(f"descriptor {fd}: {target}" for fd, target in sorted(now.descriptors - before.descriptors)),
            *(f"thread {tid}: {thread_name(tid)}" for tid in sorted(now.threads - before.threads)),
        ]

    if not extra():
        return []
    gc.collect()
    eventually(lambda: not extra(), patience)
    return extra()


def eventually(condition: Callable[[], bool], patience: float = 60.0) -> bool:
    """Polls whether the condition becomes true in time. Only for what /proc shows, which has no events."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def ends_gone(pids: Iterable[int], patience: float = 60.0) -> bool:
    """Waits for the ends of the processes; False if one still runs after `patience` seconds."""
    deadline = time.monotonic() + patience
    gone = True
    for pid in pids:
        with contextlib.suppress(ProcessLookupError), pidfd(pid) as fd:
            ended = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]
            gone = gone and bool(ended)
    return gone


@contextlib.contextmanager
def pidfd(pid: int):
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def has_ended(fd: int) -> bool:
    """Whether the process behind a pidfd has ended."""
    return bool(select.select([fd], [], [], 0)[0])


def children() -> list[int]:
    """Children of this process, zombies included. It costs next to nothing, unlike looking at all processes."""
    pids = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            pids += [int(pid) for pid in (task / "children").read_text().split()]
    return pids


def all_parents() -> dict[int, int]:
    """The process table: pid -> parent."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(name)] = parent_of(int(name))
    return parents


def descendants_of(root: int, parents: dict[int, int] | None = None) -> set[int]:
    parents = all_parents() if parents is None else parents
    found = {root}
    # Most children have a higher pid than their parent. Where pids have wrapped around, look again.
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return found - {root}


def our_processes() -> list[int]:
    """Descendants of this process, and orphans that carry our mark."""
    mark = f"{MARK}={os.environ.get(MARK)}".encode()
    parents = all_parents()
    ours = descendants_of(os.getpid(), parents)
    for pid in parents.keys() - ours - {os.getpid()}:
        if is_marked(pid, mark):
            ours.add(pid)
    return sorted(ours)


def parent_of(pid: int) -> int:
    # After the name of the command, which may contain anything: state, parent, ...
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def starter_of(worker: int) -> int:
    """The process that has started a worker, above its two guards."""
    return parent_of(parent_of(parent_of(worker)))


def is_marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def open_descriptors() -> Iterable[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of this listing itself
            yield int(name), os.readlink(f"/proc/self/fd/{name}")


def command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone"
    return " ".join(words)[:200] or "zombie"


def thread_name(tid: int) -> str:
    try:
        return Path(f"/proc/self/task/{tid}/comm").read_text().strip()
    except OSError:
        return "gone"


def stop(pid: int) -> None:
    """Stops a process and waits until none of its threads runs any more. The signal alone does not ensure that."""
    os.kill(pid, signal.SIGSTOP)

    def stopped() -> bool:
        states = set()
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                states.add(stat.read_text().rpartition(")")[2].split()[0])
        return states == {"T"}

    assert eventually(stopped, 20)


def sleeps(pid: int) -> bool:
    """Whether the main thread sleeps in the kernel and has not run between two looks."""
    return doings(pid)[0] == "S" and doings(pid) == doings(pid)


def doings(pid: int, thread: int | None = None) -> tuple[str, ...]:
    """State, user and system time, and context switches of a thread; by default the main thread."""
    task = Path(f"/proc/{pid}/task/{thread or pid}")
    stat = (task / "stat").read_text().rpartition(")")[2].split()
    switches = [line for line in (task / "status").read_text().splitlines() if "ctxt" in line]
    return stat[0], stat[11], stat[12], *switches
