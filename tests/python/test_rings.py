"""Rings between native ends on one host: who has them, and that they keep the promises of a socket."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from pathlib import Path

import pytest

import execnet
from belongings import sleeps, stop

ARE_ON = os.environ.get("EXECNET_RINGS") != "0"
PURE = f"popen//python={shlex.quote(sys.executable)}"
MUCH = b"x" * 5_000_000  # several rings full


def rings_of(pid: int | str) -> int:
    """How many pairs of rings a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text().count("/memfd:execnet")


@pytest.mark.parametrize(("spec", "count"), [("popen", int(ARE_ON)), (PURE, 0), ("popen//via=proxy", 0)])
def test_native_workers_on_this_host_have_them(spec: str, count: int, group: execnet.Group) -> None:
    if "via" in spec:
        group.makegateway("popen//id=proxy")
    before = rings_of("self")
    channel = group.makegateway(spec).remote_exec("channel.send(open('/proc/self/maps').read())")
    assert channel.receive(timeout=20).count("/memfd:execnet") == count
    assert rings_of("self") - before == count
    assert not [fd for fd in os.listdir("/proc/self/fd") if "memfd" in linked(fd)]


def linked(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""  # it was for the listing itself


def test_they_are_off_when_the_environment_says_so(group: execnet.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECNET_RINGS", "0")
    channel = group.makegateway().remote_exec("channel.send(open('/proc/self/maps').read())")
    assert "/memfd:execnet" not in channel.receive(timeout=20)


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_what_was_sent_arrives_if_the_sender_dies_right_after(size: int, group: execnet.Group) -> None:
    count = 500_000 // size if size > 1 else 1000  # less than a ring
    channel = group.makegateway().remote_exec(
        "import os, signal\n"
        "size, count = channel.receive()\n"
        "for i in range(count): channel.send((i, b'x' * size))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    channel.send((size, count))
    for i in range(count):
        assert channel.receive(timeout=20) == (i, b"x" * size)
    with pytest.raises(EOFError, match="SIGKILL"):
        channel.receive(timeout=20)


def test_a_sender_that_waits_for_room_learns_of_the_end(group: execnet.Group) -> None:
    gateway = group.makegateway()
    channel = gateway.remote_exec("channel.send(None)\nchannel.receive()\nimport time; time.sleep(1000)")
    channel.receive(timeout=20)
    worker = gateway._rinfo().pid
    stop(worker)
    ends: list[BaseException] = []

    def send() -> None:
        try:
            channel.send(MUCH)
        except OSError as error:
            ends.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    while not thread.native_id or not sleeps(thread.native_id):
        pass
    os.kill(worker, signal.SIGKILL)
    thread.join(20)
    assert not thread.is_alive()
    assert "SIGKILL" in str(ends[0])


def test_a_reader_that_stands_still_delays_and_loses_nothing(group: execnet.Group) -> None:
    """Both rings are full meanwhile, and others use the same gateway afterwards."""
    gateway = group.makegateway()
    channels = [gateway.remote_exec("for item in channel: channel.send(item)") for _ in range(4)]
    for channel in channels:
        channel.send(0)
        assert channel.receive(timeout=20) == 0
    worker = gateway._rinfo().pid
    stop(worker)

    def send(channel: execnet.Channel) -> None:
        for _ in range(3):
            channel.send(MUCH)
        channel.send(None)

    threads = [threading.Thread(target=send, args=[channel]) for channel in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        while not thread.native_id or not sleeps(thread.native_id):
            pass
    os.kill(worker, signal.SIGCONT)
    for channel in channels:
        assert [channel.receive(timeout=60) for _ in range(4)] == [MUCH, MUCH, MUCH, None]
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_many_threads_send_and_receive_at_once(group: execnet.Group) -> None:
    gateway = group.makegateway()
    count = 300
    wrong: list[object] = []

    def talk(number: int) -> None:
        channel = gateway.remote_exec("for item in channel: channel.send(item)")
        for i in range(count):
            item = (number, i, b"y" * (i * 97 % 40_000))
            channel.send(item)
            if channel.receive(timeout=60) != item:
                wrong.append(item)

    threads = [threading.Thread(target=talk, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []


def test_each_gateway_has_its_own_and_none_is_left(group: execnet.Group) -> None:
    before = rings_of("self")
    gateways = [group.makegateway("popen//preload") for _ in range(20)]
    channels = [gateway.remote_exec("channel.send(channel.receive() + 1)") for gateway in gateways]
    for i, channel in enumerate(channels):
        channel.send(i)
    assert [channel.receive(timeout=20) for channel in channels] == list(range(1, 21))
    group.terminate(timeout=10)
    del gateways, channels, channel
    assert rings_of("self") == before
