"""What a worker that means no good can use up here is bounded, and the gateway's end says so (`limits=`)."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import shlex
import sys
from pathlib import Path

import pytest

import execnet
from flood import ATTACKS
from lateness import Stopwatch
from mutations import peak_megabytes

FLOOD = Path(__file__).parents[1] / "support" / "flood.py"
MEGABYTES = 32
LIMITS = f"limits=bytes={MEGABYTES}M,channels=10000,messages=1000"
# docs/security.md: the bytes, and up to half a kilobyte for each channel, message and answer; the rest is the reading
# buffer, and what the allocator keeps.
MOST_MEGABYTES = 2 * MEGABYTES + 16

pytestmark = pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="a sanitizer's memory says nothing")


def flooding(attack: str, *keys: str) -> str:
    return "//".join(["popen", f"python={shlex.quote(sys.executable)} {FLOOD} {shlex.quote(attack)}", *keys])


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_worker_that_floods_ends_its_gateway_within_the_memory_it_may_use(group: execnet.Group, attack: str) -> None:
    gateway = group.makegateway(flooding(attack, LIMITS))
    channel = gateway.newchannel()
    gc.collect()
    before = peak_megabytes()
    with contextlib.suppress(OSError):
        channel.send(b"begin")
    gateway.join(timeout=50)
    assert not gateway.hasreceiver()
    assert peak_megabytes() - before < MOST_MEGABYTES
    with pytest.raises(OSError, match="limits="):
        gateway.remote_exec("pass")


@pytest.mark.parametrize("attack", ATTACKS)
def test_terminate_keeps_its_time_while_a_worker_floods(group: execnet.Group, attack: str) -> None:
    gateway = group.makegateway(flooding(attack, "limits=bytes=2G"))
    channel = gateway.newchannel()
    with contextlib.suppress(OSError):
        channel.send(b"begin")
    with Stopwatch() as watch:
        group.terminate(timeout=1.0)
    assert watch.seconds < 1.2 + watch.late
    assert len(group) == 0


def test_without_limits_in_the_specification_honest_programs_meet_none(group: execnet.Group) -> None:
    gateway = group.makegateway("popen")
    channel = gateway.remote_exec(
        """
        channels = []
        for number in range(20_000):
            new = channel.gateway.newchannel()
            new.send(number)
            channels.append(new)
        channel.send(channels)
        channel.receive()
        """
    )
    channels = channel.receive(timeout=50)
    assert [one.receive(timeout=50) for one in channels] == list(range(20_000))
    channel.send(None)
    channel.waitclose(timeout=50)


@pytest.mark.parametrize(
    "limits", ["", "1G", "bytes", "bytes=", "bytes=0", "bytes=-1", "bytes=1T", "items=5", "bytes=1,bytes=2", "bytes=1;"]
)
def test_limits_that_are_none_are_refused_before_anything_is_started(group: execnet.Group, limits: str) -> None:
    with pytest.raises(ValueError, match="limits"):
        group.makegateway(f"popen//limits={limits}")
    assert len(group) == 0


@pytest.mark.parametrize("side", ["here", "there"])
@pytest.mark.parametrize("python", ["", f"//python={shlex.quote(sys.executable)}"], ids=["native", "pure"])
def test_channels_that_are_made_and_closed_leave_nothing(group: execnet.Group, python: str, side: str) -> None:
    """A look at all that waits for each of them takes minutes, and what is kept for each, hundreds of megabytes."""
    gateway = group.makegateway("popen" + python)
    count = 100_000
    make = f"for _ in range({count}): gateway.newchannel().close()"
    probe = gateway.remote_exec(
        """
        import resource
        gateway = channel.gateway
        for code in channel:
            exec(code)
            channel.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        """
    )

    def peak_there(code: str = "") -> int:
        probe.send(code)
        peak: int = probe.receive(timeout=200)
        return peak

    peaks = []
    for _ in range(4):
        if side == "there":
            peak_there(make)
        else:
            exec(make)
        peaks.append((peak_megabytes(), peak_there()))
        assert gateway.remote_status(timeout=50).numchannels == 1
    # What waits to be told to the other side takes room, more or less, by chance. What is kept takes more each time.
    for side_peaks in zip(*peaks, strict=True):
        assert min(after - before for before, after in itertools.pairwise(side_peaks)) < 48
