"""Windows bound what is on its way on a channel. A blocked sender can be seen and interrupted, and blocks
nothing else."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Callable

import pytest

import execnet
from belongings import eventually

WINDOW = 100_000
ITEM = b"x" * 10_000
SIZE = len(ITEM) + 6  # on the wire

FLOOD = """
def flood(channel, count, size):
    for number in range(count):
        channel.send((number, b"x" * size))
"""
READER = """
sum = 0
for item in channel:  # None asks for the sum
    if item is None:
        channel.send(sum)
    else:
        sum += len(item)
"""
# Receives one item for each item on the other channel.
STEPS = "steps = channel.receive()\nfor step in steps: channel.receive(); steps.send(step)"


@pytest.fixture
def windowed(fresh: Callable[[str], execnet.Gateway]) -> execnet.Gateway:
    """A gateway for this test, with a window on all channels."""
    return fresh(f"window={WINDOW}")


def fill(channel: execnet.Channel) -> int:
    """Sends until the window is full. Returns the number of items that it took."""
    for sent in range(1000):
        try:
            channel.send(ITEM, timeout=0)
        except execnet.TimeoutError:
            return sent
    raise AssertionError("the window never was full")


def flood(gateway: execnet.Gateway, count: int, size: int) -> execnet.Channel:
    """A channel on which the other side sends that many tuples (number, bytes of that size)."""
    source = FLOOD + f"\nflood(channel, {count}, {size})"
    return gateway.remote_exec(source)


def blocked(gateway: execnet.Gateway) -> bool:
    return gateway.remote_status().numblocked == 1


# --- From here ---


@pytest.mark.parametrize("how", ["specification", "channel", "other end"])
def test_what_is_sent_and_not_received_is_bounded(fresh: Callable[[str], execnet.Gateway], how: str) -> None:
    gateway = fresh(f"window={WINDOW}" if how == "specification" else "")
    setting = f"channel.set_window({WINDOW})\n" if how == "other end" else ""
    channel = gateway.remote_exec(setting + "channel.send(1)\n" + STEPS)
    steps = gateway.newchannel()
    if how == "channel":
        channel.set_window(WINDOW)
    assert channel.receive(timeout=20) == 1
    assert channel.window == WINDOW
    channel.send(steps)
    assert fill(channel) == 9
    assert WINDOW - SIZE < channel.outstanding <= WINDOW
    steps.send(1)  # two are more than an eighth
    steps.send(2)
    channel.send(ITEM, timeout=20)
    assert channel.outstanding <= WINDOW
    steps.close()


def test_without_a_window_nothing_is_counted_and_nothing_waits(gw: execnet.Gateway) -> None:
    door = gw.newchannel()
    channel = gw.remote_exec("channel.send((channel.window, channel.outstanding)); channel.receive().receive()")
    assert channel.receive(timeout=20) == (None, None)
    channel.send(door)
    for _ in range(200):
        channel.send(ITEM)
    assert (channel.window, channel.outstanding) == (None, None)
    door.send(None)
    channel.waitclose(20)


def test_everything_arrives_in_order_and_once(windowed: execnet.Gateway) -> None:
    channel = windowed.remote_exec("for item in channel: channel.send(len(item))")
    sizes = [size * 977 % 30_000 for size in range(100)]

    def send() -> None:
        for size in sizes:
            channel.send(b"x" * size)

    sender = threading.Thread(target=send)
    sender.start()
    assert [channel.receive(timeout=20) for _ in sizes] == sizes
    sender.join(20)
    channel.close()


def test_an_item_larger_than_the_window_passes_when_next_to_nothing_is_on_its_way(windowed: execnet.Gateway) -> None:
    channel = windowed.remote_exec(READER)
    for _ in range(3):
        channel.send(b"x" * 10 * WINDOW, timeout=20)
    channel.send(None)
    assert channel.receive(timeout=20) == 30 * WINDOW
    channel.close()


def test_a_send_that_is_late_was_not_sent(windowed: execnet.Gateway) -> None:
    steps = windowed.newchannel()
    channel = windowed.remote_exec(STEPS + "\nfor item in channel: channel.send(item == b'last')")
    channel.send(steps)
    count = fill(channel)
    before = channel.outstanding
    with pytest.raises(execnet.TimeoutError, match=r"cannot send to <Channel id=\d+ open> in time: of its window of"):
        channel.send(ITEM, timeout=0.01)
    assert channel.outstanding == before
    for step in range(count):
        steps.send(step)
        assert steps.receive(timeout=20) == step
    steps.close()
    channel.send(b"last", timeout=20)
    assert channel.receive(timeout=20) is True
    channel.close()


def test_a_small_item_does_not_overtake_a_large_one_that_waits(windowed: execnet.Gateway) -> None:
    steps = windowed.newchannel()
    channel = windowed.remote_exec(STEPS)
    channel.send(steps)
    fill(channel)
    large = threading.Thread(target=lambda: channel.send(b"y" * (WINDOW - 2000)))
    large.start()
    assert eventually(lambda: is_late(channel, b"z"), 20)  # there is room for it
    steps.send(1)
    steps.send(2)
    assert [steps.receive(timeout=20), steps.receive(timeout=20)] == [1, 2]
    assert is_late(channel, b"z")
    for step in range(100):
        steps.send(step)
    large.join(20)
    assert not large.is_alive()


def is_late(channel: execnet.Channel, item: bytes) -> bool:
    """Sends an item if that does not have to wait."""
    try:
        channel.send(item, timeout=0)
    except execnet.TimeoutError:
        return True
    return False


# --- From there ---


def test_a_sender_there_waits_and_is_seen(windowed: execnet.Gateway) -> None:
    channel = flood(windowed, 50, 10_000)
    assert eventually(lambda: blocked(windowed), 20)
    status = windowed.remote_status()
    assert status.numblocked == 1
    assert WINDOW - 2 * SIZE < status.outstanding <= WINDOW
    assert [channel.receive(timeout=20)[0] for _ in range(50)] == list(range(50))
    channel.waitclose(20)
    assert windowed.remote_status().numblocked == 0
    assert windowed.remote_status().outstanding == 0


def test_a_window_set_when_much_is_on_its_way_counts_it(gw: execnet.Gateway) -> None:
    source = """
answers = channel.receive()
for number in range(30):
    channel.send(b"x" * 10000)
answers.send("sent")
channel.receive()
try:
    channel.send(b"late", timeout=0)
except channel.TimeoutError:
    answers.send((channel.window, channel.outstanding))
channel.send(b"end")
"""
    channel, answers = gw.remote_exec(source), gw.newchannel()
    channel.send(answers)
    assert answers.receive(timeout=20) == "sent"
    channel.set_window(WINDOW)
    channel.send(None)
    assert answers.receive(timeout=20) == (WINDOW, 30 * SIZE)
    assert [len(channel.receive(timeout=20)) for _ in range(31)] == [10_000] * 30 + [3]
    channel.waitclose(20)


def test_a_time_out_there(windowed: execnet.Gateway) -> None:
    source = f"""
try:
    while True:
        channel.send(b"x" * 10000, timeout=0.01)
except channel.TimeoutError:
    error = "late"
assert 0 < channel.outstanding <= channel.window == {WINDOW}
other = channel.receive()
other.send(error)
"""
    channel = windowed.remote_exec(source)
    answer = windowed.newchannel()
    channel.send(answer)
    assert answer.receive(timeout=20) == "late"
    assert sum(1 for _ in channel) == WINDOW // SIZE


def test_a_callback_takes_items(windowed: execnet.Gateway) -> None:
    channel = flood(windowed, 200, 5000)
    assert eventually(lambda: blocked(windowed), 20)
    got, over = [], threading.Event()

    def callback(item: object) -> None:
        got.append(item if item is None else item[0])  # type: ignore[index]
        if item is None:
            over.set()

    channel.setcallback(callback, endmarker=None)
    assert over.wait(20)
    assert got == [*range(200), None]


def test_a_callback_there_takes_items(windowed: execnet.Gateway) -> None:
    source = """
total = []
over = channel.gateway.newchannel()
channel.send(over)
channel.setcallback(lambda item: total.append(len(item)) if item != b"" else over.send(sum(total)))
channel.waitclose()
"""
    channel = windowed.remote_exec(source)
    over = channel.receive(timeout=20)
    for _ in range(100):
        channel.send(ITEM, timeout=20)
    channel.send(b"", timeout=20)
    assert over.receive(timeout=20) == 100 * len(ITEM)
    channel.close()


@pytest.mark.needs_threads
def test_items_of_several_threads_are_sent_in_the_order_in_which_they_found_room(
    fresh: Callable[[str], execnet.Gateway],
) -> None:
    """A large item may follow a small one, but not the other way round."""
    source = """
import sys, threading, time
def line_by_line(*_):
    time.sleep(0.001)
    return line_by_line
def send_small():
    sys.settrace(line_by_line)
    channel.send(b"x" * 10)
sent = channel.receive()
channel.send(b"x" * 790)
small = threading.Thread(target=send_small)
large = threading.Thread(target=channel.send, args=(b"x" * 790,))
small.start()
channel.receive()
large.start()
small.join()
large.join()
sent.send(None)
"""
    gateway = fresh("window=800")
    channel, sent = gateway.remote_exec(source), gateway.newchannel()
    channel.send(sent)
    assert eventually(lambda: gateway.remote_status().numblocked == 1, 20)
    channel.send("the large one")
    assert eventually(lambda: gateway.remote_status().numblocked == 2, 20)
    assert len(channel.receive(timeout=20)) == 790
    assert sent.receive(timeout=20) is None
    assert [len(channel.receive(timeout=20)) for _ in range(2)] == [10, 790]


# --- Others do not wait ---


def test_a_stalled_channel_stalls_no_other(windowed: execnet.Gateway) -> None:
    full = windowed.remote_exec("channel.receive(); channel.gateway.newchannel().receive()")
    fill(full)
    errors: list[BaseException] = []

    def send() -> None:
        try:
            full.send(ITEM)
        except OSError as error:
            errors.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    stuck = flood(windowed, 50, 10_000)
    assert eventually(lambda: blocked(windowed), 20)
    echo = windowed.remote_exec("for item in channel: channel.send(item)")
    for number in range(100):
        echo.send(number)
        assert echo.receive(timeout=20) == number
    for _ in range(20):
        echo.send(ITEM, timeout=20)
        assert len(echo.receive(timeout=20)) == len(ITEM)
    assert windowed.remote_status().numexecuting == 3
    echo.close()
    stuck.close()
    full.close()
    sender.join(20)
    assert [type(error) for error in errors] == [execnet.ChannelClosed]


def test_channels_over_channels_have_windows_of_their_own(windowed: execnet.Gateway) -> None:
    source = """
inner = channel.receive()
for number in range(50):
    inner.send(b"x" * 10000)
mine = channel.gateway.newchannel()
channel.send(mine)
inner.close()
channel.receive()
"""
    outer = windowed.remote_exec(source)
    inner = windowed.newchannel()
    outer.send(inner)
    assert eventually(lambda: blocked(windowed), 20)
    assert sum(len(item) for item in inner) == 50 * 10_000
    theirs = outer.receive(timeout=20)
    assert theirs.window == WINDOW
    assert fill(theirs) == 9
    outer.close()


# --- The end ---


def test_a_sender_is_told_at_once_that_the_channel_was_closed_there(windowed: execnet.Gateway) -> None:
    door = windowed.newchannel()
    channel = windowed.remote_exec("channel.receive().receive()")
    channel.send(door)
    fill(channel)
    threading.Timer(0.05, lambda: door.send(None)).start()
    with pytest.raises(OSError, match=r"cannot send to <Channel id=\d+ closed>"):
        channel.send(ITEM)


def test_a_sender_is_told_at_once_that_the_channel_was_closed_here(windowed: execnet.Gateway) -> None:
    channel = windowed.remote_exec("channel.receive(); channel.gateway.newchannel().receive()")
    fill(channel)
    threading.Timer(0.05, channel.close).start()
    with pytest.raises(OSError, match=r"cannot send to <Channel id=\d+ closed>"):
        channel.send(ITEM)


def test_a_sender_there_is_told_that_the_channel_was_closed(windowed: execnet.Gateway) -> None:
    door = windowed.newchannel()
    source = """
door = channel.receive()
try:
    while True:
        channel.send(b"x" * 10000)
except IOError:
    door.send("closed")
"""
    channel = windowed.remote_exec(source)
    channel.send(door)
    assert eventually(lambda: blocked(windowed), 20)
    channel.close()
    assert door.receive(timeout=20) == "closed"


def test_a_sender_is_told_at_once_that_the_gateway_died(windowed: execnet.Gateway) -> None:
    channel = windowed.remote_exec("import os; channel.receive(); channel.gateway.newchannel().receive()")
    die = windowed.remote_exec("import os; channel.receive(); os._exit(7)")
    fill(channel)
    threading.Timer(0.05, lambda: die.send(None)).start()
    with pytest.raises(execnet.GatewayGone):
        channel.send(ITEM)


def test_a_sender_there_does_not_hold_up_the_end(
    group: execnet.Group, windowed: execnet.Gateway, tmp_path: pathlib.Path
) -> None:
    source = """
try:
    while True:
        channel.send(b"x" * 10000)
except IOError as error:
    with open(channel.receive(), "w") as said:
        said.write(str(error))
"""
    said = tmp_path / "said"
    channel = windowed.remote_exec(source)
    channel.reconfigure(py3str_as_py2str=True)
    channel.send(str(said))
    assert eventually(lambda: blocked(windowed), 20)
    group.terminate(timeout=20)
    assert "its window is full, and this worker is told to end" in said.read_text()


def test_what_had_arrived_is_received_though_the_sender_has_closed(windowed: execnet.Gateway) -> None:
    channel = flood(windowed, 9, 10_000)
    channel.waitclose(20)
    assert [item[0] for item in channel] == list(range(9))


def test_a_channel_that_is_dropped_unread_lets_its_sender_go(windowed: execnet.Gateway) -> None:
    channel = flood(windowed, 50, 10_000)
    assert eventually(lambda: blocked(windowed), 20)
    del channel
    assert eventually(lambda: windowed.remote_status().numexecuting == 0, 20)
    assert windowed.remote_status().numblocked == 0


# --- Items that do not count, and invalid windows ---


def test_the_smaller_window_holds_and_none_lifts_it(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(f"channel.set_window({WINDOW}); channel.send(1); channel.receive()")
    channel.receive(timeout=20)
    channel.set_window(2 * WINDOW)
    assert channel.window == WINDOW
    channel.set_window(1000)
    assert channel.window == 1000
    channel.set_window(None)
    assert channel.window == WINDOW
    channel.close()


def test_lifting_a_window_lets_a_sender_go(gw: execnet.Gateway) -> None:
    door = gw.newchannel()
    channel = gw.remote_exec("channel.receive().receive(); " + READER)
    channel.set_window(WINDOW)
    channel.send(door)
    fill(channel)
    sender = threading.Thread(target=channel.send, args=(b"x" * 50_000,))
    sender.start()
    assert eventually(lambda: is_late(channel, b""), 20)
    channel.set_window(None)
    sender.join(20)
    assert not sender.is_alive()
    door.send(None)
    channel.send(None)
    assert channel.receive(timeout=20) == 9 * len(ITEM) + 50_000
    channel.close()


@pytest.mark.parametrize("size", [0, -1])
def test_a_window_that_lets_nothing_pass_is_refused(gw: execnet.Gateway, size: int) -> None:
    channel = gw.remote_exec(f"channel.set_window({size})")
    with pytest.raises(ValueError, match="a window is a number of bytes from 1 on"):
        channel.set_window(size)
    with pytest.raises(execnet.RemoteError, match="a window is a number of bytes from 1 on"):
        channel.waitclose(20)
