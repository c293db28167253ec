"""What threads, and greenlets, sleep on."""

import os
import time
from _collections import deque

from .system import PY3, ThreadError, allocate_lock, close_on_exec, now

FOREVER = 1e9


class Mailbox(object):
    """A queue for one reader. put() takes no lock and never waits, so that __del__ may call it."""

    def __init__(self, wake):
        self._items = deque()
        self._wake = wake

    def put(self, item):
        self._items.append(item)
        if self._wake.locked():  # else it was let go of, and will be looked at
            release(self._wake)

    def get(self):
        while True:
            try:
                return self._items.popleft()
            except IndexError:
                self._wake.acquire()


def release(lock):
    """Lets go of a lock that stands for "something has happened"; it may have been let go."""
    try:
        lock.release()
    except ThreadError:
        pass


class GreenLock(object):
    """A lock, made taken, for greenlets to wait for. Any thread may release() it."""

    def __init__(self, greenlets):
        import fcntl

        self._wait_readable = greenlets.wait_readable
        self._pipe = ()  # for __del__, if there are no descriptors
        self._pipe = os.pipe()
        for descriptor in self._pipe:
            close_on_exec(descriptor)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK)

    def release(self):
        try:
            os.write(self._pipe[1], b"x")
        except EnvironmentError:
            pass  # full: a wake-up is pending

    def locked(self):
        return True  # maybe

    def acquire(self, seconds=None):
        self._wait_readable(self._pipe[0], seconds)
        try:
            return bool(os.read(self._pipe[0], 4096))
        except EnvironmentError:
            return False

    def __del__(self):
        for descriptor in self._pipe:
            os.close(descriptor)


def deadline_after(timeout):
    """When a time-out of so many seconds is over; None: never. As base::deadline_after() in src/base/wait.hpp.

    Throws ValueError for nan.
    """
    if timeout is None:
        return None
    try:
        seconds = float(timeout)
    except OverflowError:
        seconds = FOREVER if timeout > 0 else 0.0
    if seconds != seconds:
        raise ValueError("a timeout is a number of seconds, not nan")
    return None if seconds >= FOREVER else now() + max(0.0, seconds)


def acquire_until(lock, deadline):
    """Waits for a lock until now() is `deadline` (None: for ever); False if that came first."""
    if isinstance(lock, GreenLock):
        return lock.acquire(deadline and max(0, deadline - now()))
    if deadline is None:
        return lock.acquire()
    if PY3:
        return lock.acquire(True, min(max(0, deadline - now()), 1000000))
    delay = 0.0005
    while not lock.acquire(False):
        left = deadline - now()
        if left <= 0:
            return False
        delay = min(delay * 2, left, 0.05)
        time.sleep(delay)
    return True


def taken_lock():
    lock = allocate_lock()
    lock.acquire()
    return lock
