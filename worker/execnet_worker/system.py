"""What differs between versions of Python, and small things that the whole worker needs."""

import itertools
import os
import sys
import time

try:
    from _thread import allocate_lock, get_ident, start_new_thread  # noqa: F401
    from _thread import error as ThreadError  # noqa: F401
except ImportError:  # Python 2
    from thread import allocate_lock, get_ident, start_new_thread  # noqa: F401
    from thread import error as ThreadError  # noqa: F401
try:
    from _functools import partial  # noqa: F401 - the module in Python imports more than the worker needs
except ImportError:  # PyPy
    from functools import partial  # noqa: F401
try:
    import _signal as signal  # noqa: F401 - the other imports half of the library
except ImportError:
    import signal  # noqa: F401

if sys.version_info[:2] == (3, 14) and sys.implementation.name == "cpython":
    from _operator import attrgetter
    from _thread import allocate_lock as allocate_plain_lock

    class allocate_lock(object):  # noqa: N801, F811 - in the place of the function
        """A lock that no interrupt leaves taken.

        In Python 3.14, and only there, the exception of a signal handler can come after `__enter__` of a lock and
        before the block of its `with`. Then nobody lets go of the lock. An `__enter__` in Python returns without such a
        point. In there one call into C takes the lock and notes that it has. `__exit__` is that of the lock: one in
        Python could be interrupted before it does anything.
        """

        __slots__ = ("_lock", "acquire", "locked", "release")

        def __init__(self):
            self._lock = lock = allocate_plain_lock()
            self.acquire, self.locked, self.release = lock.acquire, lock.locked, lock.release

        def __enter__(self):
            taken = []
            try:
                taken.extend(map(self.acquire, (True,)))
            except BaseException:
                if taken:
                    self.release()
                raise

        __exit__ = property(attrgetter("_lock.__exit__"))


PY3 = sys.version_info[0] >= 3
unicode_type = type(u"")
izip, imap = (zip, map) if PY3 else (itertools.izip, itertools.imap)
now = time.monotonic if PY3 else time.time
sleep = time.sleep  # also if gevent replaces it
LOST_MOMENT = 0.1  # seconds from the end of the coordinator until running code is interrupted


def native(text):
    """Text as the interpreter's own `str`: on Python 2 that is UTF-8 bytes."""
    return text if PY3 or not isinstance(text, unicode_type) else text.encode("utf-8")


def portable(value):
    """The text of anything, such that it can be sent."""
    text = value if isinstance(value, (bytes, unicode_type)) else str(value)
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    return text.encode("utf-8", "backslashreplace").decode("utf-8") if PY3 else text


def printable(text):
    """Text of the other side as error messages show it: with what a terminal would obey, or what turns the order of
    letters around, escaped. Newlines and tabs stay."""
    unsafe = [code for code in range(160) if (code < 32 or code > 126) and code not in (9, 10)]
    unsafe += list(range(0x202A, 0x202F)) + list(range(0x2066, 0x206A))
    escapes = dict((code, (u"\\x%02x" if code < 256 else u"\\u%04x") % code) for code in unsafe)
    return text.replace(u"\r\n", u"\n").translate(escapes)


LINUX = sys.platform.startswith("linux")


def start_thread(name, target, *args):
    """Throws ThreadError if the system has no more threads."""
    import threading  # was imported by the main thread

    thread = threading.Thread(target=target, name="execnet " + name, args=args)
    thread.daemon = True
    thread.start()
    return thread


def flush(file):
    try:
        file.flush()
    except Exception:
        pass  # None, closed, or replaced by something that is no file


complaints = []  # the descriptor of what the coordinator reads, if that is not the stderr


def complain(text):
    line = "execnet worker: %s\n" % text
    try:
        if complaints:
            os.write(complaints[0], line.encode("utf-8", "replace") if PY3 else line)
        else:
            sys.stderr.write(line)
    except Exception:
        pass


def close_on_exec(descriptor):
    if PY3:
        os.set_inheritable(descriptor, False)
    else:
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
