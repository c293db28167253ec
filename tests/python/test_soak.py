"""Races between native ends, run again and again: channels over channels, callbacks against close, terminate
against send. Few runs here; 1,000 under ThreadSanitizer, which then sees both ends, in `make soak`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import execnet
from mutations import soak_runs

PATIENCE = 60
AGAIN = 100  # runs after which a fresh gateway takes over

soaks = pytest.mark.timeout(7000 if "EXECNET_SOAK_RUNS" in os.environ else 300)


def repeat(what: str, short_form: int) -> Iterator[int]:
    """The numbers of the runs. After the last it prints a line with figures that `make soak` collects."""
    runs, begin = soak_runs(short_form), time.monotonic()
    yield from range(runs)
    print(f"soak: {what}: {runs} runs; {time.monotonic() - begin:.1f} s")


def at_once(*functions: Callable[[], object]) -> None:
    """Runs all functions at the same time, each in a thread. Raises what one of them raised."""
    start = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            start.wait(PATIENCE)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "hangs"
    if errors:
        raise errors[0]


@pytest.fixture
def gateways(group: execnet.Group) -> Iterator[Callable[[int], execnet.Gateway]]:
    """The gateway for a run; now and then a fresh one."""

    def gateway(number: int) -> execnet.Gateway:
        if number % AGAIN == 0:
            group.terminate(timeout=PATIENCE)
            group.makegateway("popen")
        return group[0]

    return gateway


@soaks
def test_channels_travel_over_channels(gateways: Callable[[int], execnet.Gateway]) -> None:
    source = """
    for item in channel:
        back = channel.gateway.newchannel()
        item["over"].send({"number": item["number"], "back over": back})
        item["over"].send(back.receive())
        back.close()
    """

    for number in repeat("channel over channel, Python", 10):
        gateway = gateways(number)

        def talk(gateway: execnet.Gateway = gateway) -> None:
            outer = gateway.remote_exec(source)
            for i in range(3):
                inner = gateway.newchannel()
                outer.send({"number": i, "over": inner})
                answer = inner.receive(PATIENCE)
                assert answer["number"] == i
                answer["back over"].send("round")
                assert inner.receive(PATIENCE) == "round"
                answer["back over"].waitclose(PATIENCE)
            outer.close()

        at_once(talk, talk, talk)


@soaks
def test_a_callback_is_told_the_end_once_whenever_the_channel_is_closed(
    gateways: Callable[[int], execnet.Gateway],
) -> None:
    source = """
    import itertools
    for number in itertools.count():
        if channel.isclosed():
            break
        try:
            channel.send(number)
        except OSError:
            break
    """
    end = object()
    for number in repeat("callback against close, Python", 10):
        channel = gateways(number).remote_exec(source)
        items: list[object] = []
        first, ended = threading.Event(), threading.Event()

        def callback(
            item: object, items: list[object] = items, first: threading.Event = first, ended: threading.Event = ended
        ) -> None:
            items.append(item)
            first.set()
            if item is end:
                ended.set()

        def close(channel: execnet.Channel = channel, number: int = number, first: threading.Event = first) -> None:
            if number % 2 == 0:
                assert first.wait(PATIENCE)
            channel.close()

        at_once(lambda channel=channel, callback=callback: channel.setcallback(callback, endmarker=end), close)
        assert ended.wait(PATIENCE)
        assert items.pop() is end
        assert items == list(range(len(items)))


@soaks
def test_windows_change_while_both_sides_send(gateways: Callable[[int], execnet.Gateway]) -> None:
    source = """
    import threading

    def send():
        for number in range(200):
            channel.send(number)

    def change():
        for window in (100, 10, 1000, None, 1, 50):
            channel.set_window(window)

    threads = [threading.Thread(target=function) for function in (send, change)]
    for thread in threads:
        thread.start()
    got = [channel.receive() for _ in range(200)]
    for thread in threads:
        thread.join()
    channel.send(got)
    channel.receive()
    """
    numbers = list(range(200))
    for number in repeat("windows that change, Python", 10):
        channel = gateways(number).remote_exec(source)

        def send(channel: execnet.Channel = channel) -> None:
            for item in numbers:
                channel.send(item)

        def change(channel: execnet.Channel = channel) -> None:
            for window in (30, 3000, None, 7, 200):
                channel.set_window(window)

        def receive(channel: execnet.Channel = channel) -> None:
            assert [channel.receive(PATIENCE) for _ in numbers] == numbers

        at_once(send, change, receive)
        assert channel.receive(PATIENCE) == numbers
        channel.send(None)
        channel.waitclose(PATIENCE)


@soaks
def test_terminate_ends_threads_that_send_and_receive(group: execnet.Group) -> None:
    for number in repeat("terminate against send, Python", 3):
        gateway = group.makegateway("popen")
        sink = gateway.remote_exec("for item in channel: pass")
        flood = gateway.remote_exec("while True: channel.send(1)")
        item = b"x" * (400_000 if number % 3 == 0 else 100)

        def send(sink: execnet.Channel = sink, item: bytes = item) -> None:
            with contextlib.suppress(OSError):
                for _ in itertools.count():
                    sink.send(item)

        def receive(flood: execnet.Channel = flood) -> None:
            with contextlib.suppress(EOFError):
                for _ in itertools.count():
                    flood.receive(PATIENCE)

        at_once(send, send, receive, lambda number=number: group.terminate(timeout=0.02 * (number % 2)))
        assert len(group) == 0


def end_by_several_threads(source: str, seconds: float) -> None:
    group = execnet.Group(["popen"])
    gateway = group[0]
    ended = threading.Event()
    channel = gateway.remote_exec(source)
    channel.setcallback(lambda item: ended.set() if item is None else None, endmarker=None)
    at_once(
        lambda: group.terminate(timeout=seconds),
        lambda: group.terminate(timeout=PATIENCE),
        group._cleanup_atexit,
        gateway.exit,
        lambda: gateway.join(timeout=PATIENCE),
    )
    assert ended.wait(PATIENCE)
    assert len(group) == 0


@soaks
def test_several_threads_end_one_group() -> None:
    for number in repeat("several threads end one group, Python", 10):
        source = "channel.receive()" if number % 2 else "while True: channel.send(1)"
        end_by_several_threads(source, PATIENCE if number % 3 else 0.1)
