"""Any number is a time-out, of every call that takes one, on both sides: huge ones and infinity mean for ever, negative
ones now, and only nan is refused."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction

import pytest

import execnet
from execnet.gateway_base import WorkerPool, get_execmodel


class Number:
    """As NumPy's are."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"Number({self.value})"


FOR_EVER = [1e9, 1e300, math.inf, 10**400, Fraction(10**400, 3), Decimal("Infinity"), Number(math.inf)]
NOW = [0, False, 0.0, -1, -1.5, -1e300, -math.inf, -(10**400), Fraction(-1, 3), Decimal(-5), Number(-2.0)]
SOON = [True, 0.001, 1, Fraction(1, 1000), Decimal("0.001"), Number(0.001)]


class Calls:
    """Every call that takes a time-out, once as one that has something to wait for, once as one that has nothing."""

    def __init__(self, group: execnet.Group) -> None:
        self.group = group
        self.gateway = group.makegateway("popen")
        self.pool = WorkerPool(get_execmodel("thread"))

    def receive(self, ready: bool) -> Callable[..., object]:
        return self.gateway.remote_exec("channel.send(1)" if ready else "channel.receive()").receive

    def waitclose(self, ready: bool) -> Callable[..., object]:
        return self.gateway.remote_exec("pass" if ready else "channel.receive()").waitclose

    def send(self, ready: bool) -> Callable[..., object]:
        channel = self.gateway.remote_exec("channel.receive()\nchannel.gateway.newchannel().receive()")
        channel.set_window(10)
        if not ready:
            channel.send(b"more than the window")
            channel.send(b"more than the window")
        return lambda timeout: channel.send(b"more than the window", timeout=timeout)

    def remote_status(self, ready: bool) -> Callable[..., object]:
        return self.gateway.remote_status

    def join(self, ready: bool) -> Callable[..., object]:
        if not ready:
            return lambda timeout: self.gateway.join(timeout) or self._raise_if(self.gateway.hasreceiver())
        gateway = self.group.makegateway("popen")
        gateway.exit()
        return gateway.join

    @staticmethod
    def _raise_if(late: bool) -> None:
        if late:
            raise TimeoutError

    def terminate(self, ready: bool) -> Callable[..., object]:
        group = execnet.Group(["popen"])
        return lambda timeout: (group.terminate(timeout), self._raise_if(len(group) > 0))

    def cleanup_atexit(self, ready: bool) -> Callable[..., object]:
        group = execnet.Group(["popen"])
        return lambda timeout: (group._cleanup_atexit(timeout), self._raise_if(len(group) > 0))

    def receive_queue(self, ready: bool) -> Callable[..., object]:
        source = "channel.send(1)" if ready else "channel.receive()"
        received = execnet.MultiChannel([self.gateway.remote_exec(source)]).make_receive_queue()

        def get(timeout: float) -> object:
            try:
                return received.get(timeout=timeout)
            except queue.Empty:
                raise TimeoutError from None

        return get

    def reply(self, ready: bool) -> Callable[..., object]:
        channel = self.gateway.remote_exec("channel.send(1)" if ready else "channel.receive()")
        reply = self.pool.spawn(channel.receive)

        def get(timeout: float) -> object:
            try:
                return reply.get(timeout)
            except OSError as error:
                raise TimeoutError from error

        return get

    def waitall(self, ready: bool) -> Callable[..., object]:
        pool = WorkerPool(get_execmodel("thread"))
        pool.spawn(self.gateway.remote_exec("channel.send(1)" if ready else "channel.receive()").receive)
        return lambda timeout: self._raise_if(not pool.waitall(timeout))


ALL = [name for name in vars(Calls) if not name.startswith("_")]
HAVE_SOMETHING_TO_WAIT_FOR = [name for name in ALL if name not in ("remote_status", "terminate", "cleanup_atexit")]


@pytest.fixture
def calls(group: execnet.Group) -> Iterator[Calls]:
    calls = Calls(group)
    yield calls
    group.terminate(timeout=5)  # what the pool waits for
    assert calls.pool.waitall(timeout=30)


@pytest.mark.parametrize("name", ALL)
def test_huge_and_infinite_timeouts_mean_for_ever(calls: Calls, name: str) -> None:
    for timeout in FOR_EVER:
        getattr(calls, name)(ready=True)(timeout=timeout)


@pytest.mark.parametrize("name", HAVE_SOMETHING_TO_WAIT_FOR)
def test_negative_timeouts_mean_now_and_any_other_number_is_one(calls: Calls, name: str) -> None:
    call = getattr(calls, name)(ready=False)
    for timeout in [*NOW, *SOON]:
        with pytest.raises(TimeoutError):
            call(timeout=timeout)


@pytest.mark.parametrize("name", ["terminate", "cleanup_atexit"])
def test_with_a_negative_timeout_members_are_killed_at_once(calls: Calls, name: str) -> None:
    for timeout in NOW:
        getattr(calls, name)(ready=True)(timeout=timeout)


@pytest.mark.parametrize("name", ALL)
def test_nan_is_refused_with_a_sentence_and_nothing_is_done(calls: Calls, name: str) -> None:
    call = getattr(calls, name)(ready=True)
    for nan in (math.nan, Decimal("nan"), Number(math.nan)):
        with pytest.raises(ValueError, match="a timeout is a number of seconds, not nan"):
            call(timeout=nan)
    call(timeout=30)


@pytest.mark.parametrize("name", ALL)
def test_what_is_no_number_is_a_typeerror(calls: Calls, name: str) -> None:
    call = getattr(calls, name)(ready=True)
    with pytest.raises(TypeError, match="a timeout is a number of seconds, or None, not str"):
        call(timeout="soon")
    call(timeout=30)
