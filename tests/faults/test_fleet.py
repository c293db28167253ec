"""Many gateways, half of them hostile: `terminate` is in time all the same, and nothing is left."""

from __future__ import annotations

import os
import time

import pytest

import execnet
from belongings import ends_gone

MEMBERS = int(os.environ.get("EXECNET_TEST_FLEET", "200"))

WELL_BEHAVED = "channel.send([])"
IGNORES_SIGNALS = """
import signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
channel.send([])
while True: pass
"""
# The interpreter's lock is never let go of.
SPINS_IN_C = "import itertools; channel.send([]); sum(itertools.repeat(1))"
FORKS = """
import subprocess
sleep = ["sh", "-c", "trap '' TERM; (setsid sleep 1000 &); exec sleep 1000"]
channel.send([subprocess.Popen(sleep, start_new_session=bool(i % 2)).pid for i in range(4)])
while True: pass
"""


@pytest.mark.timeout(180)
def test_terminate_is_in_time_whatever_half_of_the_members_do() -> None:
    group = execnet.Group([f"popen//id=m{i}" for i in range(MEMBERS)])
    try:
        channels = []
        # The quiet ones first: the others leave little time to anybody.
        for i, gateway in enumerate(group):
            source = WELL_BEHAVED if i < MEMBERS / 2 else (IGNORES_SIGNALS, SPINS_IN_C, FORKS)[i % 3]
            channels.append(gateway.remote_exec(source))
        started = [pid for channel in channels for pid in channel.receive(timeout=120)]
        workers = [gateway._rinfo().pid for gateway in group]
    finally:
        begin = time.monotonic()
        group.terminate(timeout=2)
        took = time.monotonic() - begin
    print(f"terminate(timeout=2) of {MEMBERS} gateways, half of them hostile: {took:.2f} s")
    assert took < 2.5
    assert ends_gone([*workers, *started], patience=0)
    assert len(group) == 0
