"""How long a call takes, less the time that the machine was late meanwhile.

A bound of some 0.2 s cannot be told on a machine whose CPUs are taken: there all that sleeps wakes up late. So
beside the call a thread on each CPU does nothing but sleep for ten milliseconds at a time, and what they wake up too
late, by more than a millisecond, is the allowance. On an idle machine that is next to nothing.

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
    """Measures the code between ``__enter__`` and ``__exit__``."""

    seconds: float
    """How long it has taken."""
    late: float
    """How late, in sum, plain sleeping threads were meanwhile, in seconds."""

    def __enter__(self) -> Stopwatch:
        self.late = 0.0
        self._over = False
        self._lateness = dict.fromkeys(os.sched_getaffinity(0), 0.0)
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
        self.late = sum(self._lateness.values())

    def _sleep(self, cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread
        while not self._over:
            before = time.monotonic()
            time.sleep(_NAP)
            self._lateness[cpu] += max(0.0, time.monotonic() - before - _NAP - _NORMAL)
