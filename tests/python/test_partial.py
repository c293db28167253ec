"""A call for several members that fails at one of them: what it had got until then is not lost."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import execnet

ECHO = "for item in channel: channel.send(item)"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def members() -> Iterator[execnet.Group]:
    with execnet.Group(["popen"] * 3) as group:
        yield group


def kill(gateway: execnet.Gateway) -> None:
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.join(timeout=60)


def partial_of(error: BaseException) -> execnet.Partial:
    partial: Any = error.partial  # type: ignore[attr-defined]
    assert isinstance(partial, execnet.Partial)
    return partial


def test_remote_exec_with_a_dead_member_gives_the_channels_that_it_has_made(members: execnet.Group) -> None:
    kill(members[1])
    with pytest.raises(execnet.GatewayGone, match=r"gw1.*SIGKILL") as caught:
        members.remote_exec("channel.send(channel.receive() + 1)")
    partial = partial_of(caught.value)
    assert [channel.gateway for channel in partial.channels] == [members[0]]
    rest = [gateway.remote_exec("channel.send(channel.receive() + 1)") for gateway in list(members)[2:]]
    channels = execnet.MultiChannel(partial.channels + rest)
    channels.send_each(41)
    assert channels.receive_each() == [42, 42]


@pytest.mark.parametrize("withchannel", [True, False])
def test_what_the_others_have_sent_before_a_member_dies_is_not_lost(members: execnet.Group, withchannel: bool) -> None:
    channels = members.remote_exec(ECHO)
    channels.send_each("first")
    assert channels.receive_each() == ["first"] * 3
    for channel in channels:
        channel.send("second")
    assert channels[1].receive(timeout=60) == "second"
    kill(members[1])
    with pytest.raises(execnet.GatewayGone, match=r"gw1.*SIGKILL") as caught:
        channels.receive_each(withchannel=withchannel)
    partial = partial_of(caught.value)
    assert partial.received == [(channels[0], "second")]
    assert partial.channels == [channels[0]]
    assert channels[2].receive(timeout=60) == "second"


def test_what_was_received_is_in_any_error(members: execnet.Group) -> None:
    """Raised on the other side, closed there, and Ctrl-C here."""

    class Interrupted:
        def receive(self) -> object:
            raise KeyboardInterrupt

    for other, error in (
        (members[1].remote_exec("1 / 0"), execnet.RemoteError),
        (members[1].remote_exec("pass"), EOFError),
        (Interrupted(), KeyboardInterrupt),
    ):
        first, last = members[0].remote_exec("channel.send(0)"), members[2].newchannel()
        channels = execnet.MultiChannel([first, other, last])  # type: ignore[list-item]
        with pytest.raises(error) as caught:
            channels.receive_each()
        assert partial_of(caught.value).received == [(first, 0)]


def test_the_error_can_still_be_pickled(members: execnet.Group) -> None:
    """As process pools do with errors. The channels are of this process."""
    channels = [members[0].remote_exec("channel.send(0)"), members[1].remote_exec("1 / 0")]
    with pytest.raises(execnet.RemoteError) as caught:
        execnet.MultiChannel(channels).receive_each()
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (execnet.RemoteError, str(caught.value))
    assert partial_of(again).channels == []


def test_it_is_known_whom_an_item_was_sent_to(members: execnet.Group) -> None:
    channels = members.remote_exec(ECHO)
    kill(members[2])
    with pytest.raises(execnet.GatewayGone) as caught:
        channels.send_each("x")
    assert partial_of(caught.value).channels == [channels[0], channels[1]]
    with pytest.raises(execnet.DumpError) as refused:
        channels.send_each(object())
    assert partial_of(refused.value).channels == []


def test_it_is_known_who_has_closed_well(members: execnet.Group) -> None:
    channels = members.remote_exec("channel.receive()")
    kill(members[0])
    for channel in list(channels)[1:]:
        channel.send("end")
    with pytest.raises(execnet.GatewayGone) as caught:
        channels.waitclose()
    assert partial_of(caught.value).channels == [channels[1], channels[2]]


def test_a_queue_that_is_made_in_part_is_not_lost(members: execnet.Group) -> None:
    channels = members.remote_exec("channel.send(channel.gateway.id); channel.receive()")
    channels[1].setcallback(lambda item: None)
    with pytest.raises(execnet.ExecnetStateError, match="has a callback already") as caught:
        channels.make_receive_queue()
    partial = partial_of(caught.value)
    assert partial.channels == [channels[0]]
    assert partial.queue is not None
    assert partial.queue.get(timeout=60) == (channels[0], "gw0-worker")


def test_a_queue_goes_on_when_a_member_dies(members: execnet.Group) -> None:
    channels = members.remote_exec("channel.send(1); channel.receive(); channel.send(2)")
    received = channels.make_receive_queue(endmarker=None)
    assert sorted(received.get(timeout=60)[1] for _ in channels) == [1, 1, 1]
    kill(members[1])
    assert received.get(timeout=60) == (channels[1], None)
    for channel in (channels[0], channels[2]):
        channel.send("go on")
    assert [received.get(timeout=60)[1] for _ in range(4)].count(2) == 2
