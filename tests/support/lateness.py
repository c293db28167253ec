"""How long a call takes, less the time that the machine was late meanwhile.

A bound of some 0.2 s cannot be told on a machine whose CPUs are taken. There all that sleeps wakes up late, and all
that computes takes longer. So beside the call a thread on each CPU does nothing but sleep for ten milliseconds at a
time. What they wake up too late, by more than a millisecond, is one part of the allowance. The other is what this
process computes meanwhile: it takes as many times as long as there are runnable threads for each CPU, which are counted
after each nap. On an idle machine both are next to nothing.

    with Stopwatch() as watch:
        group.terminate(timeout=1.0)
    assert watch.seconds < 1.2 + watch.late
"""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType

_NAP = 0.01
_NORMAL = 0.001


class Stopwatch:
    """Measures the code between ``__enter__`` and ``__exit__``.

    With ``children``, what is computed is also that of the children whose end the code waits for.
    """

    seconds: float
    """How long it has taken."""
    late: float
    """How late the machine was meanwhile, in seconds."""

    def __init__(self, children: bool = False) -> None:
        self._parts = 4 if children else 2  # of os.times()

    def __enter__(self) -> Stopwatch:
        self.late = 0.0
        self._over = False
        self._lateness = dict.fromkeys(os.sched_getaffinity(0), 0.0)
        self._runnable: list[int] = []
        self._computed = sum(os.times()[: self._parts])
        self._sleepers = [threading.Thread(target=self._sleep, args=(cpu,)) for cpu in self._lateness]
        for sleeper in self._sleepers:
            sleeper.start()
        self._begin = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self._begin
        self._over = True
        for sleeper in self._sleepers:
            sleeper.join()
        cpus = len(self._lateness)
        stretch = max(0.0, sum(self._runnable) / max(1, len(self._runnable)) / cpus - 1)
        self.late = sum(self._lateness.values()) + (sum(os.times()[: self._parts]) - self._computed) * stretch

    def _sleep(self, cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread
        while not self._over:
            before = time.monotonic()
            time.sleep(_NAP)
            self._lateness[cpu] += max(0.0, time.monotonic() - before - _NAP - _NORMAL)
            self._runnable.append(_runnable())


def _runnable() -> int:
    """How many threads of the machine run or could run."""
    with open("/proc/loadavg") as file:
        return int(file.read().split()[3].partition("/")[0])
