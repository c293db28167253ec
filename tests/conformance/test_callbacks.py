"""Callbacks: on the coordinator's side with every kind of worker, and on the worker's side."""

from __future__ import annotations

import gc
import queue
import threading
from typing import Any

import pytest

import execnet

END = object()


def collect(channel: execnet.Channel, endmarker: object = END) -> queue.Queue[Any]:
    items: queue.Queue[Any] = queue.Queue()
    channel.setcallback(items.put, endmarker=endmarker)
    return items


def until_end(items: queue.Queue[Any]) -> list[Any]:
    return list(iter(lambda: items.get(timeout=20), END))


def test_items_come_in_order_and_the_same_endmarker_once_and_last(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("for i in range(100): channel.send(i)")
    items = collect(channel)
    channel.waitclose(timeout=20)
    assert until_end(items) == list(range(100))
    assert items.empty()


def test_waitclose_returns_after_the_callback_has_had_everything(gw: execnet.Gateway) -> None:
    for _ in range(20):
        channel = gw.remote_exec("for i in range(10): channel.send(i)")
        items: list[int] = []
        channel.setcallback(items.append)
        channel.waitclose(timeout=20)
        assert items == list(range(10))


def test_items_that_have_arrived_before_come_first(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("for i in range(5): channel.send(i)")
    channel.waitclose(timeout=20)
    items = collect(channel)
    assert until_end(items) == [0, 1, 2, 3, 4]


def test_without_an_endmarker_there_is_none(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.send(1)")
    items: list[object] = []
    channel.setcallback(items.append)
    channel.waitclose(timeout=20)
    assert items == [1]


def test_none_can_be_the_endmarker(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("pass")
    items = collect(channel, endmarker=None)
    assert items.get(timeout=20) is None


def test_there_is_one_callback_and_no_receive_beside_it(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.receive()")
    collect(channel)
    with pytest.raises(OSError, match="callback"):
        channel.setcallback(print)
    with pytest.raises(OSError, match="callback"):
        channel.receive()
    channel.send(1)
    channel.waitclose(timeout=20)


def test_what_is_not_callable_is_refused(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.send(1)")
    with pytest.raises(TypeError):
        channel.setcallback(3)  # type: ignore[arg-type]
    assert channel.receive(timeout=20) == 1


def test_at_the_endmarker_the_error_can_be_asked_for(gw: execnet.Gateway) -> None:
    errors: queue.Queue[object] = queue.Queue()
    for source in ("raise ValueError(17)", "pass"):
        channel = gw.remote_exec(source)
        channel.setcallback(lambda _, channel=channel: errors.put(channel._getremoteerror()), endmarker=END)
        error = errors.get(timeout=20)
        if source == "pass":
            assert error is None
        else:
            assert isinstance(error, execnet.RemoteError)
            assert "ValueError: 17" in error.formatted


def test_a_killed_worker_is_told_to_callbacks(fresh: Any) -> None:
    gateway = fresh()
    channel = gateway.remote_exec("import os; channel.send(os.getpid()); channel.receive()")
    errors: queue.Queue[object] = queue.Queue()
    items: queue.Queue[object] = queue.Queue()

    def callback(item: object) -> None:
        items.put(item)
        if item is END:
            errors.put(channel._getremoteerror())

    channel.setcallback(callback, endmarker=END)
    pid = items.get(timeout=20)
    gateway.remote_exec("import os; os.kill(os.getpid(), 9)")
    assert items.get(timeout=20) is END
    assert "is gone: " in str(errors.get(timeout=20))
    assert pid == gateway._rinfo().pid


def test_a_callback_that_raises_closes_the_channel_with_its_error(gw: execnet.Gateway) -> None:
    reports = gw.newchannel()
    channel = gw.remote_exec(
        """
        reports = channel.receive()
        channel.send(1)
        try:
            channel.waitclose()
        except channel.RemoteError as error:
            reports.send(error.formatted)
        """
    )
    channel.send(reports)

    def callback(item: object) -> None:
        raise LookupError("not here")

    channel.setcallback(callback)
    with pytest.raises(execnet.RemoteError, match="LookupError: not here"):
        channel.waitclose(timeout=20)
    assert channel.isclosed()
    assert "LookupError: not here" in reports.receive(timeout=20)


def test_a_callback_may_raise_any_text(worker: Any, gw: execnet.Gateway) -> None:
    def callback(item: object) -> None:
        raise ValueError("a path \udcff")

    channel = gw.remote_exec("channel.send(1)")
    channel.setcallback(callback)
    with pytest.raises(execnet.RemoteError, match=r"ValueError: a path \\udcff") as caught:
        channel.waitclose(timeout=20)
    assert 'raise ValueError("a path' in caught.value.formatted
    if worker.is_python2:
        return  # which has bytes for such text
    channel = gw.remote_exec(
        """
        def callback(item):
            raise ValueError("a path \\udcff")
        other = channel.gateway.newchannel()
        other.setcallback(callback)
        channel.send(other)
        channel.receive()
        """
    )
    other = channel.receive(timeout=20)
    other.send(1)
    with pytest.raises(execnet.RemoteError, match=r"ValueError: a path \\udcff"):
        other.waitclose(timeout=20)
    channel.close()


def test_a_callback_outlives_the_last_reference_to_its_channel(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("go = channel.receive()\nfor i in range(3): channel.send(i)")
    items = collect(channel)
    channel.send("go")
    del channel
    gc.collect()
    assert until_end(items) == [0, 1, 2]


def test_callbacks_may_use_the_gateway_they_are_called_for(gw: execnet.Gateway) -> None:
    answers: queue.Queue[object] = queue.Queue()
    channel = gw.remote_exec("channel.send(41)")
    channel.setcallback(lambda item: answers.put(gw.remote_exec(f"channel.send({item} + 1)").receive(timeout=20)))
    assert answers.get(timeout=20) == 42


def test_callbacks_of_a_gateway_run_on_one_thread_that_is_not_the_callers(gw: execnet.Gateway) -> None:
    threads: queue.Queue[int] = queue.Queue()
    for _ in range(2):
        gw.remote_exec("channel.send(1)").setcallback(lambda _: threads.put(threading.get_ident()))
    first, second = threads.get(timeout=20), threads.get(timeout=20)
    assert first == second != threading.get_ident()


def test_a_callback_finds_what_the_last_one_left_in_its_thread(gw: execnet.Gateway) -> None:
    left = threading.local()
    found: queue.Queue[Any] = queue.Queue()

    def callback(item: object) -> None:
        found.put(getattr(left, "item", None))
        left.item = item

    channel = gw.remote_exec("for i in range(3): channel.send(i)")
    channel.setcallback(callback)
    assert [found.get(timeout=20) for _ in range(3)] == [None, 0, 1]


@pytest.mark.needs_threads
def test_a_callback_there_finds_what_the_last_one_left_in_its_thread(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        import threading
        left = threading.local()
        def callback(item):
            channel.send(getattr(left, "item", None))
            left.item = item
        other = channel.gateway.newchannel()
        channel.send(other)
        other.setcallback(callback)
        channel.receive()
        """
    )
    other = channel.receive(timeout=20)
    for item, found in ((1, None), (2, 1), (3, 2)):
        other.send(item)
        assert channel.receive(timeout=20) == found
    channel.send("over")


def test_channels_come_to_callbacks_as_channels(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("other = channel.gateway.newchannel(); channel.send([other]); other.send(5)")
    items: queue.Queue[Any] = queue.Queue()
    channel.setcallback(items.put)
    [other] = items.get(timeout=20)
    assert other.gateway is gw
    assert other.receive(timeout=20) == 5


def test_a_local_close_is_an_end_too(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.receive()")
    items = collect(channel)
    channel.close()
    assert until_end(items) == []


def test_the_end_of_the_gateway_is_an_end_too(fresh: Any) -> None:
    gateway = fresh()
    items = collect(gateway.remote_exec("channel.receive()"))
    gateway._group.terminate(timeout=5)
    assert until_end(items) == []


@pytest.mark.needs_threads
def test_the_code_can_have_callbacks(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        import threading
        done = threading.Event()
        items = []
        def callback(item):
            if item is None:
                done.set()
            else:
                items.append(item)
                channel.send(sum(items))
        other = channel.gateway.newchannel()
        channel.send(other)
        other.setcallback(callback, endmarker=None)
        done.wait(20)
        channel.send(items)
        """
    )
    other = channel.receive(timeout=20)
    for item, total in ((1, 1), (2, 3), (3, 6)):
        other.send(item)
        assert channel.receive(timeout=20) == total
    other.close()
    assert channel.receive(timeout=20) == [1, 2, 3]


def test_a_queue_gets_the_items_of_many_channels(gw: execnet.Gateway) -> None:
    channels = execnet.MultiChannel([gw.remote_exec(f"channel.send({i})") for i in range(3)])
    received = channels.make_receive_queue(endmarker=END)
    items = [received.get(timeout=20) for _ in range(6)]
    for i, channel in enumerate(channels):
        assert [item for source, item in items if source is channel] == [i, END]
