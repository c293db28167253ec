"""Greenlets: how a call that waits lets the other greenlets of its thread run.

The extension asks here before it waits if a group's execution model is gevent or eventlet or the
process is monkey-patched, and only then. base::Hub in src/base/wait.hpp says what must not be
done while a greenlet waits.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol


class Hub(Protocol):
    """The hub of a thread that runs greenlets; each such thread has one."""

    def current(self, in_main_thread: bool) -> int:
        """A number for the running greenlet; 0 in a thread without greenlets, which can just block."""

    def wait_readable(self, fd: int, seconds: float | None) -> None:
        """Runs other greenlets until the descriptor is readable or that many seconds have passed."""

    def spawn(self, function: Callable[[], object]) -> object:
        """Runs the function in a new greenlet, later."""

    def interrupt(self, greenlet: Any) -> None:
        """Raises KeyboardInterrupt where the greenlet waits."""


class _TooLate(Exception):
    pass


class _Gevent:
    def __init__(self) -> None:
        gevent = importlib.import_module("gevent")
        self.spawn, self._kill = gevent.spawn, gevent.kill
        self._wait_read = importlib.import_module("gevent.socket").wait_read
        self._get_hub_if_exists = importlib.import_module("gevent._hub_local").get_hub_if_exists
        self._getcurrent = importlib.import_module("greenlet").getcurrent

    def current(self, in_main_thread: bool) -> int:
        # The main thread makes its hub when it first waits.
        return id(self._getcurrent()) if in_main_thread or self._get_hub_if_exists() is not None else 0

    def wait_readable(self, fd: int, seconds: float | None) -> None:
        with contextlib.suppress(_TooLate):
            self._wait_read(fd, seconds, _TooLate())

    def interrupt(self, greenlet: Any) -> None:
        self._kill(greenlet, KeyboardInterrupt)


class _Eventlet:
    def __init__(self) -> None:
        eventlet = importlib.import_module("eventlet")
        self.spawn, self._kill = eventlet.spawn, eventlet.kill
        self._hubs = importlib.import_module("eventlet.hubs")
        importlib.import_module("eventlet.green.threading")  # in a greenlet, on 3.13, it could not be
        self._getcurrent = importlib.import_module("greenlet").getcurrent

    def current(self, in_main_thread: bool) -> int:
        return id(self._getcurrent()) if in_main_thread or hasattr(self._hubs._threadlocal, "hub") else 0

    def wait_readable(self, fd: int, seconds: float | None) -> None:
        with contextlib.suppress(_TooLate):
            self._hubs.trampoline(fd, read=True, timeout=seconds, timeout_exc=_TooLate)

    def interrupt(self, greenlet: Any) -> None:
        self._kill(greenlet, KeyboardInterrupt)


@functools.cache
def hub_of(execmodel: str) -> Hub:
    """Raises ImportError if the package of that name is not installed."""
    return _Gevent() if execmodel == "gevent" else _Eventlet()


def make_hub(execmodel: str) -> None:
    """That of this thread, now: it imports what it needs."""
    importlib.import_module("gevent" if execmodel == "gevent" else "eventlet.hubs").get_hub()


def patched_by() -> str | None:
    """The package that the process was monkey-patched by."""
    monkey: ModuleType | None = sys.modules.get("gevent.monkey")
    if monkey is not None and (monkey.is_module_patched("socket") or monkey.is_module_patched("threading")):
        return "gevent"
    patcher: ModuleType | None = sys.modules.get("eventlet.patcher")
    if patcher is not None and (patcher.is_monkey_patched("socket") or patcher.is_monkey_patched("thread")):
        return "eventlet"
    return None


def run_tasks(hub: Hub, next_task: Callable[[], Callable[[], object] | None]) -> None:
    """On a worker, in its main greenlet: runs each task in a greenlet of its own until there are no more.

    Ctrl-C interrupts running tasks as it interrupts code in the main thread.
    """
    getcurrent: Callable[[], Any] = importlib.import_module("greenlet").getcurrent
    running = set()

    def run(task: Callable[[], object]) -> None:
        running.add(getcurrent())
        try:
            task()
        finally:
            running.discard(getcurrent())

    while True:
        try:
            task = next_task()
            if task is None:
                return
            hub.spawn(functools.partial(run, task))
        except KeyboardInterrupt:
            for greenlet in list(running):
                hub.interrupt(greenlet)
