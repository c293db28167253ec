"""How long a call takes, less what the machine was late in the same moment.

A bound of some 0.2 s cannot be told on a machine whose CPUs are taken: there all that sleeps wakes up late. So
beside the call a thread of its own does nothing but sleep for ten milliseconds at a time, and what it wakes up too
late, by more than a millisecond, is the allowance. On an idle machine that is next to nothing.

    with Stopwatch() as watch:
        group.terminate(timeout=1.0)
    assert watch.seconds < 1.2 + watch.late
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

_NAP = 0.01
_NORMAL = 0.001


class Stopwatch:
    """Measures what runs between ``__enter__`` and ``__exit__``."""

    seconds: float
    """How long it has taken."""
    late: float
    """How late, in sum, a plain sleeping thread was meanwhile, in seconds."""

    def __enter__(self) -> Stopwatch:
        self.late = 0.0
        self._over = False
        self._sleeper = threading.Thread(target=self._sleep)
        self._sleeper.start()
        self._begin = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self._begin
        self._over = True
        self._sleeper.join()

    def _sleep(self) -> None:
        while not self._over:
            before = time.monotonic()
            time.sleep(_NAP)
            self.late += max(0.0, time.monotonic() - before - _NAP - _NORMAL)
