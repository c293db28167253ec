"""WorkerPool: functions that run beside the caller, and their results."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from execnet._core import seconds_to_wait
from execnet._execmodel import ExecModel


class Reply:
    """The result of a function that WorkerPool.spawn() runs."""

    def __init__(self, task: Callable[[], Any], execmodel: ExecModel) -> None:
        self._task = task
        self._finished = execmodel.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        self.running = True

    def get(self, timeout: float | None = None) -> Any:
        """Returns or raises what the function did. Raises OSError if that takes more than `timeout` seconds."""
        self.waitfinish(timeout)
        if self._error is not None:
            raise self._error
        return self._result

    def waitfinish(self, timeout: float | None = None) -> None:
        """Waits until the function has ended. Raises OSError after `timeout` seconds."""
        if not self._finished.wait(seconds_to_wait(timeout)) and not self._finished.is_set():
            raise OSError(f"timeout waiting for {self._task!r}")

    def run(self) -> None:
        try:
            self._result = self._task()
        except BaseException as error:
            self._error = error
        finally:
            self.running = False
            self._finished.set()


class WorkerPool:
    """Runs functions, each on a thread of its own, and knows which of them still run.

    With `hasprimary`, one at a time runs on the thread that calls integrate_as_primary_thread().

        pool = WorkerPool(get_execmodel("thread"))
        assert pool.spawn(divmod, 7, 2).get(timeout=5) == (3, 1)
        assert pool.terminate(timeout=5)
    """

    def __init__(self, execmodel: ExecModel, hasprimary: bool = False) -> None:
        self.execmodel = execmodel
        self._lock = execmodel.RLock()
        self._running: set[Reply] = set()
        self._idle = execmodel.Event()
        self._idle.set()
        self._shutdown = False
        self._primary: Any = execmodel.queue.Queue() if hasprimary else None
        self._primary_free = False

    def integrate_as_primary_thread(self) -> None:
        """Runs functions on the calling thread, until the pool is shut down."""
        while True:
            with self._lock:
                if self._shutdown and self._primary.empty():
                    return
                self._primary_free = True
            reply = self._primary.get()
            if reply is not None:
                self._run(reply)

    def trigger_shutdown(self) -> None:
        """Accepts no more functions."""
        with self._lock:
            self._shutdown = True
            if self._primary is not None:
                self._primary.put(None)

    def active_count(self) -> int:
        """How many functions run, or wait for the primary thread."""
        return len(self._running)

    def spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Reply:
        """Runs func(*args, **kwargs). Raises ValueError when the pool was shut down."""
        reply = Reply(lambda: func(*args, **kwargs), self.execmodel)
        with self._lock:
            if self._shutdown:
                raise ValueError("the pool was shut down")
            self._running.add(reply)
            self._idle.clear()
            on_primary, self._primary_free = self._primary_free, False
        if on_primary:
            self._primary.put(reply)
        else:
            self.execmodel.start(self._run, (reply,))
        return reply

    def _run(self, reply: Reply) -> None:
        reply.run()
        with self._lock:
            self._running.discard(reply)
            if not self._running:
                self._idle.set()

    def terminate(self, timeout: float | None = None) -> bool:
        """Shuts the pool down and waits. Returns whether all functions have ended within `timeout` seconds."""
        self.trigger_shutdown()
        return self.waitall(timeout)

    def waitall(self, timeout: float | None = None) -> bool:
        """Waits until no function runs; whether that was within `timeout` seconds."""
        self._idle.wait(seconds_to_wait(timeout))
        return bool(self._idle.is_set())


def safe_terminate(
    execmodel: ExecModel,
    timeout: float | None,
    list_of_paired_functions: list[tuple[Callable[[], object], Callable[[], object]]],
) -> None:
    """Calls the first of each pair; if that takes more than `timeout` seconds, the second, which is to end it."""
    timeout = seconds_to_wait(timeout)
    pool = WorkerPool(execmodel)
    pairs = [(pool.spawn(end), kill) for end, kill in list_of_paired_functions]
    deadline = None if timeout is None else time.monotonic() + timeout
    for reply, kill in pairs:
        try:
            reply.waitfinish(None if deadline is None else max(deadline - time.monotonic(), 0))
        except OSError:
            kill()
    if not pool.waitall(timeout):
        print("execnet: safe_terminate: some did not end in time", file=sys.stderr)
