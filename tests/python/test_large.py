"""Large bytes and strings: written from where they are, and let go of as soon as they are written."""

from __future__ import annotations

import os
import shlex
import signal
import sys

import pytest

import execnet
from belongings import eventually, stop

LENT = 64 * 1024  # bytes from which on nothing is copied
CHUNK = 256 * 1024  # what a frame carries at most
SIZES = [LENT - 1, LENT, LENT + 1, CHUNK - 7, CHUNK - 6, CHUNK, CHUNK + 1, 3 * CHUNK + 12345]
WORKERS = ["popen", f"popen//python={shlex.quote(sys.executable)}"]
ECHO = "for item in channel: channel.send(item)"


def values(size: int) -> list[object]:
    """As they are alone, and among others."""
    data = os.urandom(size)
    text = data.hex()[:size]
    umlauts = "\u00e4" * size
    return [
        data,
        text,
        umlauts,
        [1, data, "x", text, None],
        {"a": (data, data), b"b": [umlauts, data], "c": {"d": text}},
        [data[: size // 2], data, 3],
    ]


@pytest.mark.parametrize("size", SIZES)
def test_they_are_dumped_wherever_they_stand(size: int) -> None:
    for value in values(size):
        assert execnet.loads(execnet.dumps(value)) == value


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_they_are_sent_wherever_they_stand(worker: str, group: execnet.Group) -> None:
    channel = group.makegateway(worker).remote_exec(ECHO)
    for size in SIZES:
        for value in values(size):
            channel.send(value)
            assert channel.receive(timeout=60) == value


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_they_are_arguments_of_what_is_executed(worker: str, group: execnet.Group) -> None:
    channel = group.makegateway(worker).remote_exec(_length, data=b"x" * 3_000_000)
    assert channel.receive(timeout=60) == 3_000_000


def _length(channel, data):  # type: ignore[no-untyped-def]
    channel.send(len(data))


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_nobody_holds_them_afterwards(worker: str, group: execnet.Group) -> None:
    channel = group.makegateway(worker).remote_exec(ECHO)
    data, text = os.urandom(1_000_000), "x" * 1_000_000
    before = sys.getrefcount(data), sys.getrefcount(text)
    for _ in range(3):
        channel.send([data, text, data])
        channel.receive(timeout=60)
        execnet.dumps([data, text])
    assert (sys.getrefcount(data), sys.getrefcount(text)) == before
    with pytest.raises(execnet.DumpError):
        channel.send([data, object()])
    assert sys.getrefcount(data) == before[0]
    channel.close()
    with pytest.raises(OSError, match="closed"):
        channel.send(data)
    assert sys.getrefcount(data) == before[0]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_a_send_that_is_interrupted_keeps_what_it_has_begun_to_write(worker: str, group: execnet.Group) -> None:
    """Of the item either all arrives or nothing, though its sender has dropped it meanwhile."""
    gateway = group.makegateway(worker)
    channel = gateway.remote_exec(ECHO)
    channel.send(0)
    assert channel.receive(timeout=20) == 0
    pid = gateway._rinfo().pid
    stop(pid)

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for byte in b"abc":
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted):
                channel.send([bytes([byte]) * 20_000_000])
    finally:
        signal.signal(signal.SIGALRM, before)
    os.kill(pid, signal.SIGCONT)
    channel.send("after")
    items = []
    while not items or items[-1] != "after":
        items.append(channel.receive(timeout=60))
    for item in items[:-1]:
        assert len(item[0]) == 20_000_000
        assert len(set(item[0])) == 1


def test_what_waits_in_a_dead_gateway_is_let_go_of(group: execnet.Group) -> None:
    gateway = group.makegateway()
    channel = gateway.remote_exec(ECHO)
    channel.send(0)
    channel.receive(timeout=20)
    pid = gateway._rinfo().pid
    stop(pid)
    data = os.urandom(20_000_000)
    before = sys.getrefcount(data)
    held = signal.signal(signal.SIGALRM, lambda number, frame: os.kill(pid, signal.SIGKILL))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(OSError, match="SIGKILL"):
            channel.send(data)
    finally:
        signal.signal(signal.SIGALRM, held)

    def is_let_go_of() -> bool:
        execnet.dumps(0)  # drops what has come back
        return sys.getrefcount(data) == before

    assert eventually(is_let_go_of)
