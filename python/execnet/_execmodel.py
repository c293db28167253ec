"""Execution models: where a side of a gateway gets threads, locks, queues and sleeping from.

`thread` and `main_thread_only` take them from the standard library, `gevent` and `eventlet` from the
package of that name. Programs find theirs at `gateway.execmodel` and stay usable with any of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import IO, Any

from execnet._core import import_installed

_MODULES = {
    # backend: (queue, subprocess, socket, threading, what has sleep)
    "thread": ("queue", "subprocess", "socket", "threading", "time"),
    "main_thread_only": ("queue", "subprocess", "socket", "threading", "time"),
    "gevent": ("gevent.queue", "gevent.subprocess", "gevent.socket", "gevent.threading", "gevent"),
    "eventlet": (
        "eventlet.green.Queue",
        "eventlet.green.subprocess",
        "eventlet.green.socket",
        "eventlet.green.threading",
        "eventlet",
    ),
}


class ExecModel:
    """One execution model. Its modules are imported when they are first asked for.

    >>> get_execmodel("thread").RLock().acquire(timeout=1)
    True
    """

    def __init__(self, backend: str) -> None:
        """Raises ValueError for an unknown model."""
        if backend not in _MODULES:
            raise ValueError(f"unknown execmodel {backend!r}; use one of {', '.join(_MODULES)}")
        self._backend = backend

    def __repr__(self) -> str:
        return f"<ExecModel {self._backend!r}>"

    def _module(self, which: int) -> ModuleType:
        return import_installed(_MODULES[self._backend][which])

    @property
    def backend(self) -> str:
        """The name of the model."""
        return self._backend

    @property
    def queue(self) -> Any:
        """The module `queue`, or its replacement."""
        return self._module(0)

    @property
    def subprocess(self) -> Any:
        """The module `subprocess`, or its replacement."""
        return self._module(1)

    @property
    def socket(self) -> Any:
        """The module `socket`, or its replacement."""
        return self._module(2)

    def start(self, func: Callable[..., object], args: tuple[object, ...] = ()) -> None:
        """Runs func(*args) beside the caller, on a daemon thread or in a greenlet."""
        if self._backend == "gevent":
            self._module(4).spawn(func, *args)
        elif self._backend == "eventlet":
            self._module(4).spawn_n(func, *args)
        else:
            self._module(3).Thread(target=func, args=args, daemon=True).start()

    def get_ident(self) -> int:
        """A number that identifies the running thread or greenlet."""
        if self._backend == "gevent":
            return id(import_installed("greenlet").getcurrent())
        return int(self._module(3).get_ident())

    def sleep(self, delay: float) -> None:
        """Sleeps for `delay` seconds."""
        self._module(4).sleep(delay)

    def fdopen(self, fd: int, mode: str, bufsize: int = 1, closefd: bool = True) -> IO[Any]:
        """A file object for a descriptor. It is a text file, in UTF-8, unless the mode has a "b"."""
        if "b" in mode:  # which cannot be line buffered
            return os.fdopen(fd, mode, -1 if bufsize == 1 else bufsize, closefd=closefd)
        return os.fdopen(fd, mode, bufsize, encoding="utf-8", closefd=closefd)

    def Lock(self) -> Any:
        return self._locks().Lock() if self._backend != "gevent" else self._locks().BoundedSemaphore(1)

    def RLock(self) -> Any:
        return self._locks().RLock()

    def Event(self) -> Any:
        return import_installed("gevent.event").Event() if self._backend == "gevent" else self._locks().Event()

    def _locks(self) -> ModuleType:
        return import_installed("gevent.lock") if self._backend == "gevent" else self._module(3)


_models: dict[str, ExecModel] = {}


def get_execmodel(backend: str | ExecModel) -> ExecModel:
    """The model of that name; a model is returned as it is.

    Raises ValueError for an unknown name, ImportError when its package is not installed.
    """
    if isinstance(backend, ExecModel):
        return backend
    model = _models.get(backend)
    if model is None:
        model = ExecModel(backend)
        if backend in ("gevent", "eventlet") and backend not in sys.modules:
            import_installed(backend)
        _models[backend] = model
    return model
