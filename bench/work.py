"""What is measured, whoever does it: values, sizes and the clock. Imports nothing that is measured."""

from __future__ import annotations

import time
from collections.abc import Callable

GATEWAYS = 100
MANY = 1000
PURE = 20
SSH = 20  # gateways over ssh
MESSAGES = 20_000
MIB = 2**20
BIG = 64 * MIB


def report(count: int) -> list[dict[str, object]]:
    return [
        {"id": i, "when": "call", "sections": [("out", "x" * 20)], "ok": True, "seconds": i / 7} for i in range(count)
    ]


VALUES: dict[str, object] = {
    "100 k ints": list(range(100_000)),
    "a nested report": report(5000),
    "10 MB bytes": b"x" * 10_000_000,
}


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def best(work: Callable[[], object], times: int) -> float:
    """The best of so many tries, of at least 0.1 s in all, so that what else the machine does hardly counts."""
    taken = [timed(work) for _ in range(times)]
    while sum(taken) < 0.1:
        taken.append(timed(work))
    return min(taken)
