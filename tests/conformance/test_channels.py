"""Channels: order, independence, ends and time-outs on both sides."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import execnet

# --- Order and independence ---


def test_items_arrive_in_order(echo: execnet.Channel) -> None:
    for number in range(2000):
        echo.send(number)
    assert [echo.receive() for _ in range(2000)] == list(range(2000))


def test_many_channels_are_open_at_the_same_time(gw: execnet.Gateway) -> None:
    channels = [gw.remote_exec("channel.send(channel.receive() * 2)") for _ in range(50)]
    for number, channel in reversed(list(enumerate(channels))):
        channel.send(number)
    assert [channel.receive() for channel in channels] == [2 * number for number in range(50)]
    for channel in channels:
        channel.waitclose(60)


def test_a_big_item_on_one_channel_does_not_hold_up_another(gw: execnet.Gateway) -> None:
    big = gw.remote_exec("channel.receive(); [channel.send(b'x' * 20000000) for _ in range(2)]")
    small = gw.remote_exec("for item in channel: channel.send(item)")
    big.send(None)
    small.send(1)
    assert small.receive(timeout=60) == 1
    assert len(big.receive()) == 20_000_000
    small.send(2)
    assert small.receive(timeout=60) == 2
    assert len(big.receive()) == 20_000_000
    small.close()


def test_both_sides_send_big_items_at_the_same_time(gw: execnet.Gateway) -> None:
    # If both ends only wrote and neither read, they would wait for each other for ever.
    channel = gw.remote_exec("channel.send(b'y' * 3000000); channel.send(len(channel.receive()))")
    channel.send(b"x" * 3_000_000)
    assert len(channel.receive()) == 3_000_000
    assert channel.receive() == 3_000_000


# --- The end of a channel ---


def test_the_end_of_the_code_is_the_end_of_the_channel(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.send(1)")
    assert channel.receive() == 1
    with pytest.raises(EOFError):
        channel.receive()
    with pytest.raises(EOFError):
        channel.receive(timeout=0)
    channel.waitclose(60)
    assert channel.isclosed()


def test_iteration_ends_with_the_channel(gw: execnet.Gateway) -> None:
    assert list(gw.remote_exec("for number in range(5): channel.send(number)")) == [0, 1, 2, 3, 4]


def test_what_was_sent_before_the_end_is_still_received(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.send(1); channel.send(2)")
    channel.waitclose(60)
    assert (channel.receive(), channel.receive()) == (1, 2)
    with pytest.raises(EOFError):
        channel.receive()


def test_a_close_here_is_the_end_of_iteration_there(gw: execnet.Gateway) -> None:
    answers = gw.newchannel()
    channel = gw.remote_exec("answers = channel.receive(); answers.send(list(channel))")
    channel.send(answers)
    channel.send(1)
    channel.send(2)
    channel.close()
    assert answers.receive(timeout=60) == [1, 2]


def test_a_close_here_wakes_a_receive_there_with_eoferror(gw: execnet.Gateway) -> None:
    answers = gw.newchannel()
    channel = gw.remote_exec(
        """
        answers = channel.receive()
        answers.send("waits")
        try:
            channel.receive()
        except EOFError:
            answers.send("EOFError")
        """
    )
    channel.send(answers)
    assert answers.receive(timeout=60) == "waits"
    channel.close()
    assert answers.receive(timeout=60) == "EOFError"


def test_a_close_with_an_error_raises_it_there(gw: execnet.Gateway) -> None:
    answers = gw.newchannel()
    channel = gw.remote_exec(
        """
        answers = channel.receive()
        try:
            channel.receive()
        except channel.RemoteError as error:
            answers.send(str(error))
        """
    )
    channel.send(answers)
    channel.close("no more of this")
    assert "no more of this" in answers.receive(timeout=60)


def test_a_channel_closed_there_with_an_error_raises_it_here(gw: execnet.Gateway) -> None:
    channel = gw.newchannel()
    gw.remote_exec("channel.receive().close('it is over')").send(channel)
    with pytest.raises(execnet.RemoteError, match="it is over"):
        channel.receive(timeout=60)
    with pytest.raises(EOFError):
        channel.receive(timeout=60)


def test_a_channel_is_closed_with_any_text(worker: Any, gw: execnet.Gateway) -> None:
    if worker.is_python2:
        pytest.skip("python2.7 has bytes for such text")
    channel = gw.newchannel()
    gw.remote_exec("channel.receive().close('over \\udcff')").send(channel)
    with pytest.raises(execnet.RemoteError, match=r"over \\udcff"):
        channel.receive(timeout=60)
    channel = gw.remote_exec("channel.send(1)\nchannel.receive()")
    channel.receive(timeout=60)
    channel.close("over \udcff")
    assert channel.isclosed()


def test_closing_twice_is_closing_once(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.receive()")
    channel.close()
    channel.close()
    assert channel.isclosed()


def test_code_cannot_close_the_channel_it_runs_with(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        try:
            channel.close()
        except (OSError, IOError) as error:
            channel.send(str(error))
        """
    )
    assert "close" in channel.receive(timeout=60)


def test_send_after_close_is_an_oserror_here(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.receive()")
    channel.close()
    with pytest.raises(OSError, match="clos"):
        channel.send(1)


def test_send_after_the_end_of_the_code_is_an_oserror(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("pass")
    channel.waitclose(60)
    with pytest.raises(OSError, match="clos"):
        channel.send(1)


def test_send_after_close_is_an_oserror_there(gw: execnet.Gateway) -> None:
    other = gw.newchannel()
    channel = gw.remote_exec(
        """
        other = channel.receive()
        try:
            other.receive()
        except EOFError:
            pass
        try:
            other.send(1)
        except (OSError, IOError) as error:
            channel.send([other.isclosed(), str(error)])
        """
    )
    channel.send(other)
    other.close()
    closed, text = channel.receive(timeout=60)
    assert closed
    assert "clos" in text


# --- Waiting ---


def test_receive_times_out_here(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.send(channel.receive())")
    with pytest.raises(execnet.TimeoutError):
        channel.receive(timeout=0.01)
    with pytest.raises(channel.TimeoutError):
        channel.receive(timeout=0)
    with pytest.raises(channel.TimeoutError):
        channel.waitclose(timeout=0.01)
    channel.send("still usable")
    assert channel.receive(timeout=60) == "still usable"


def test_receive_times_out_there(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        try:
            channel.receive(timeout=0.01)
        except channel.TimeoutError:
            channel.send("timed out")
        channel.send(channel.receive(timeout=30))
        """
    )
    assert channel.receive(timeout=60) == "timed out"
    channel.send("still usable")
    assert channel.receive(timeout=60) == "still usable"


def test_a_channel_is_waited_for_there(gw: execnet.Gateway) -> None:
    other = gw.newchannel()
    channel = gw.remote_exec("other = channel.receive(); other.waitclose(30); channel.send(other.isclosed())")
    channel.send(other)
    other.close()
    assert channel.receive(timeout=60) is True


def test_one_item_goes_to_one_of_the_threads_that_wait(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.receive(); [channel.send(number) for number in range(300)]")
    received: list[list[int]] = [[] for _ in range(3)]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(channel)) for mine in received]
    for thread in threads:
        thread.start()
    channel.send(None)
    for thread in threads:
        thread.join()
    assert sorted(number for mine in received for number in mine) == list(range(300))
    assert all(mine == sorted(mine) for mine in received)


# --- References to channels ---


def test_a_dropped_channel_tells_the_other_side(gw: execnet.Gateway) -> None:
    answers = gw.newchannel()
    channel = gw.remote_exec("answers = channel.receive(); channel.waitclose(30); answers.send('told')")
    channel.send(answers)
    del channel
    assert answers.receive(timeout=60) == "told"


def test_a_channel_dropped_there_tells_this_side(gw: execnet.Gateway) -> None:
    channel = gw.newchannel()
    gw.remote_exec("import gc; other = channel.receive(); del other; gc.collect(); channel.receive()").send(channel)
    channel.waitclose(60)


def test_channels_travel_inside_of_containers_in_both_directions(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        mine = channel.gateway.newchannel()
        yours = channel.receive()["nested"][1][0]
        channel.send((1, [{"mine": mine}]))
        yours.send(mine.receive())
        """
    )
    yours = gw.newchannel()
    channel.send({"nested": [None, (yours,)]})
    mine = channel.receive()[1][0]["mine"]
    assert isinstance(mine, execnet.Channel)
    mine.send("round trip")
    assert yours.receive(timeout=60) == "round trip"


def test_a_channel_that_comes_back_is_the_same_channel(echo: execnet.Channel) -> None:
    other = echo.gateway.newchannel()
    echo.send([other])
    assert echo.receive() == [other]


def test_items_for_a_channel_may_come_before_the_channel_is_received(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        other = channel.gateway.newchannel()
        channel.send(other)
        other.send("early")
        channel.send("sent")
        channel.receive()
        """
    )
    first = channel.receive
    other, sent = first(), first()
    assert (sent, other.receive(timeout=60)) == ("sent", "early")
    channel.send(None)


def test_a_closed_channel_is_no_longer_counted(fresh: Callable[[], execnet.Gateway]) -> None:
    gateway = fresh()
    assert "0 active channels" in repr(gateway)
    channel = gateway.remote_exec("channel.receive()")
    assert "1 active channels" in repr(gateway)
    channel.close()
    channel.waitclose(60)
    assert "0 active channels" in repr(gateway)


ANY_NUMBER = """
from fractions import Fraction
blocked = channel.gateway.newchannel()
blocked.set_window(10)
channel.send(blocked)
blocked.send(b"more than the window")
calls = [channel.receive, channel.waitclose, lambda timeout: blocked.send(b"more than the window", timeout=timeout)]
for timeout in [0, False, -1, -1e300, -(10**400), float("-inf"), Fraction(-1, 3), Fraction(1, 1000)]:
    for call in calls:
        try:
            call(timeout=timeout)
        except channel.TimeoutError:
            pass
        else:
            raise AssertionError("%r was no time-out of %r" % (timeout, call))
for call in calls:
    try:
        call(timeout=float("nan"))
    except ValueError as error:
        assert "a timeout is a number of seconds, not nan" in str(error), error
    else:
        raise AssertionError("nan was a time-out of %r" % call)
channel.send("asks")
for timeout in [1e9, 1e300, float("inf"), 10**400, Fraction(10**400, 3)]:
    blocked.set_window(1000)
    channel.send(channel.receive(timeout=timeout))
    blocked.send(b"less than the window", timeout=timeout)
"""


def test_any_number_is_a_timeout_of_code_in_a_worker(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(ANY_NUMBER)
    blocked = channel.receive(timeout=60)
    assert channel.receive(timeout=60) == "asks"
    for item in range(5):
        channel.send(item)
        assert channel.receive(timeout=60) == item
    channel.waitclose(timeout=60)
    blocked.close()
