"""Many threads at once: on one channel, on one gateway, on one group."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import execnet


def at_once(functions: Iterable[Callable[[], object]]) -> None:
    """Runs all functions at the same time, each in a thread. Raises what the first of them raised."""
    functions = list(functions)
    start = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            start.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_each_have_a_channel_of_one_gateway(gateway: execnet.Gateway) -> None:
    def converse(number: int) -> None:
        channel = gateway.remote_exec("for item in channel: channel.send(item)")
        for item in range(100):
            channel.send((number, item))
            assert channel.receive(timeout=30) == (number, item)
        channel.close()

    at_once(lambda number=number: converse(number) for number in range(12))
    gateway.remote_exec("pass").waitclose(60)


def test_threads_send_on_one_channel_without_mixing_items_up(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("[channel.send(len(set(channel.receive()))) for _ in range(8 * 10)]")
    # Long enough for several frames.
    at_once(lambda number=number: [channel.send(bytes([number]) * 600_000) for _ in range(10)] for number in range(8))
    assert [channel.receive(timeout=30) for _ in range(80)] == [1] * 80


def test_threads_receive_from_one_channel_each_item_once(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("channel.receive(); [channel.send(number) for number in range(2000)]")
    received: list[int] = []
    consumers = [lambda: received.extend(channel) for _ in range(6)]
    at_once([*consumers, lambda: channel.send(None)])
    assert sorted(received) == list(range(2000))


def test_one_thread_sends_while_another_receives(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("for item in channel: channel.send(item)")
    received: list[int] = []
    at_once(
        [
            lambda: [channel.send(number) for number in range(3000)],
            lambda: received.extend(channel.receive(timeout=30) for _ in range(3000)),
        ]
    )
    assert received == list(range(3000))
    channel.close()


def test_threads_make_gateways_in_one_group(group: execnet.Group) -> None:
    at_once([lambda: group.makegateway("popen")] * 8)
    assert sorted(gateway.id for gateway in group) == [f"gw{number}" for number in range(8)]
    assert group.remote_exec("channel.send(1)").receive_each() == [1] * 8


def test_of_threads_that_want_one_id_one_gets_it(group: execnet.Group) -> None:
    refused = []

    def make() -> None:
        try:
            group.makegateway("popen//id=only")
        except ValueError:
            refused.append(1)

    at_once([make] * 5)
    assert len(group) == 1
    assert len(refused) == 4


def test_threads_terminate_one_group(group: execnet.Group) -> None:
    for _ in range(4):
        group.makegateway("popen")
    at_once([lambda: group.terminate(timeout=5.0)] * 4)
    assert len(group) == 0


def test_threads_terminate_one_group_with_callbacks(group: execnet.Group) -> None:
    # Each waits for the end of the thread that runs the callbacks, which can be joined only once.
    ended = threading.Semaphore(0)
    for _ in range(3):
        channel = group.makegateway("popen").remote_exec("channel.send(1); channel.receive()")
        channel.setcallback(lambda item: ended.release() if item is None else None, endmarker=None)
    gateways = list(group)
    at_once([*[lambda: group.terminate(timeout=30.0)] * 4, *(gateway.exit for gateway in gateways)])
    assert len(group) == 0
    for _ in gateways:
        assert ended.acquire(timeout=0)


def test_one_group_is_ended_by_threads_and_as_at_the_end_of_the_program(group: execnet.Group) -> None:
    channel = group.makegateway("popen").remote_exec("channel.receive()")
    channel.setcallback(lambda item: None, endmarker=None)
    at_once([group._cleanup_atexit, group._cleanup_atexit, lambda: group.terminate(timeout=30.0)])
    assert len(group) == 0


def test_a_callback_is_run_that_is_given_after_the_end(gateway: execnet.Gateway, group: execnet.Group) -> None:
    first, second = (gateway.remote_exec("channel.send(1); channel.receive()") for _ in range(2))
    items: list[object] = []
    first.setcallback(items.append, endmarker="end")
    at_once([lambda: group.terminate(timeout=30.0)] * 2)
    ended = threading.Event()
    second.setcallback(lambda item: ended.set() if item == "end" else None, endmarker="end")
    assert ended.wait(30)
    assert items[-1] == "end"


def test_a_callback_terminates_its_own_group(group: execnet.Group) -> None:
    channel = group.makegateway("popen").remote_exec("channel.send(1); channel.receive()")
    over = threading.Event()

    def terminate(item: int) -> None:
        group.terminate(timeout=30.0)
        over.set()

    channel.setcallback(terminate)
    assert over.wait(30)
    assert len(group) == 0


def test_an_endmarker_terminates_its_own_group(group: execnet.Group) -> None:
    over = threading.Event()
    channel = group.makegateway("popen").remote_exec("pass")
    channel.setcallback(lambda item: (group.terminate(timeout=30.0), over.set()), endmarker=None)
    assert over.wait(30)
    assert len(group) == 0


def test_a_callback_terminates_its_group_while_other_threads_do(group: execnet.Group) -> None:
    channel = group.makegateway("popen").remote_exec("channel.send(1); channel.receive()")
    called, over = threading.Event(), threading.Event()

    def terminate(item: int) -> None:
        called.set()
        group.terminate(timeout=30.0)
        over.set()

    channel.setcallback(terminate)
    assert called.wait(30)
    at_once([lambda: group.terminate(timeout=30.0)] * 2)
    assert over.is_set()
    assert len(group) == 0


def test_callbacks_terminate_the_groups_of_each_other() -> None:
    groups = [execnet.Group(["popen"]), execnet.Group(["popen"])]
    both = threading.Barrier(2)
    over = threading.Semaphore(0)

    def terminate(item: int, own: execnet.Group, other: execnet.Group) -> None:
        both.wait(30)
        other.terminate(timeout=1e9)  # not for the end of the callback there, which waits for the end of this one
        own.terminate(timeout=1e9)
        over.release()

    for own, other in (groups, groups[::-1]):
        channel = own[0].remote_exec("channel.send(1); channel.receive()")
        channel.setcallback(functools.partial(terminate, own=own, other=other))
    for _ in groups:
        assert over.acquire(timeout=60)


def test_a_finishedcallback_of_rsync_terminates_the_group(group: execnet.Group, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("text")
    sync = execnet.RSync(tmp_path / "source", verbose=False)
    gateway = group.makegateway("popen")
    sync.add_target(gateway, tmp_path / "target", finishedcallback=lambda: group.terminate(timeout=30.0))
    sync.send()
    assert len(group) == 0
    assert (tmp_path / "target" / "file").read_text() == "text"


def test_terminate_wakes_the_threads_that_wait(group: execnet.Group) -> None:
    channels = [group.makegateway("popen").remote_exec("channel.send(1); channel.receive()") for _ in range(3)]
    for channel in channels:
        channel.receive()

    def wait(channel: execnet.Channel) -> None:
        with pytest.raises(EOFError):
            channel.receive()

    at_once([*(lambda channel=channel: wait(channel) for channel in channels), lambda: group.terminate(timeout=5.0)])


def test_a_close_wakes_the_thread_that_waits(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("channel.receive()")

    def wait() -> None:
        with pytest.raises((EOFError, OSError)):
            channel.receive(timeout=30)

    at_once([wait, channel.close])


def test_channels_are_dropped_by_many_threads(gateway: execnet.Gateway) -> None:
    at_once([lambda: [gateway.newchannel() for _ in range(200)]] * 6)
    assert "0 active channels" in repr(gateway)
    assert gateway.remote_exec("channel.send(1)").receive(timeout=60) == 1
