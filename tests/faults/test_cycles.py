"""Starting and terminating again and again leaks nothing. A few times here, 10,000 in `make soak`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import execnet
from belongings import Belongings, eventually
from endings import tell

CYCLES = int(os.environ.get("EXECNET_SOAK_CYCLES", "30"))
WARM_UP = max(10, CYCLES // 10)  # cycles until memory has settled


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(300 + CYCLES)
def test_starting_and_terminating_takes_nothing_for_good() -> None:
    def cycle() -> None:
        with execnet.Group(["popen"]) as group:
            assert group[0].remote_exec("channel.send(42)").receive(timeout=30) == 42
            group.terminate(timeout=30)

    for _ in range(WARM_UP):
        cycle()
    before, memory = Belongings.now(), resident_bytes()
    begin = time.monotonic()
    for _ in range(CYCLES):
        cycle()
    seconds = time.monotonic() - begin
    after, growth = Belongings.now(), resident_bytes() - memory
    assert after.processes == before.processes  # zombies would be among them
    assert len(after.descriptors) == len(before.descriptors)
    assert eventually(lambda: Belongings.now().threads <= before.threads)  # one that was joined may still be ending
    tell(
        f"soak: {CYCLES} times started and terminated: {seconds:.0f} s, {seconds / CYCLES * 1000:.0f} ms each; "
        f"memory grew by {growth / 1024:.0f} KB, {len(after.descriptors)} descriptors, {len(after.threads)} threads "
        f"and {len(after.processes)} other processes, as before\n"
    )
    # If each cycle left an object of a few hundred bytes, it would be megabytes in the long form.
    assert growth < 2 << 20
