"""Idle gateways cost nothing: no thread of either side is woken."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

import execnet
from belongings import eventually
from mutations import soak_gateways

GATEWAYS = soak_gateways(50)
QUIET = 1.0  # seconds; that nothing happens can only be seen by waiting


def switches(pids: list[int]) -> dict[tuple[int, int], int]:
    """How often each thread of these processes has gone to sleep, which is once for each time it was woken."""
    found = {}
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                for line in (task / "status").read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        found[pid, int(task.name)] = int(line.split()[1])
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("worked", [False, True], ids=["new", "after work"])
def test_idle_gateways_wake_nobody(many_descriptors: None, worked: bool) -> None:
    del many_descriptors
    with execnet.Group([f"popen{'' if number % 50 == 0 else '//preload'}" for number in range(GATEWAYS)]) as group:
        if worked:
            group.remote_exec("channel.send(1)").receive_each()
        me = os.getpid()
        pids = [me, *(gateway._rinfo().pid for gateway in group)]

        def woken() -> dict[tuple[int, int], int]:
            before = switches(pids)
            time.sleep(QUIET)
            after = switches(pids)
            return {
                thread: after[thread] - count
                for thread, count in before.items()
                if after.get(thread, count) != count and thread != (me, me)  # which sleeps here
            }

        # Activity from the start ends after some time. From then on there is none.
        assert eventually(lambda: not woken(), patience=20), f"woken in {QUIET:.0f} s, by process and thread: {woken()}"
        print(f"soak: {GATEWAYS} idle gateways, {'after work' if worked else 'new'}: no thread woken in {QUIET:.0f} s")
