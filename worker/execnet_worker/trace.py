"""What EXECNET_DEBUG asks for: a line for each frame, and for the end. docs/debugging.md has their form."""

import os
import time

from .frames import ABORT, CREDIT, DEFLATED, EXEC, HEADER, HELLO, MAGIC, MORE, PASSED, PROBE
from .system import close_on_exec, complain, portable, printable
from .values import load

FILE, STDERR = 1, 2  # as HELLO says it
MOST_NAMES = 10000
NAMES = (
    "HELLO EXEC DATA CLOSE CLOSE_ERROR LAST TERMINATE STATUS RECONFIGURE CREDIT OPEN WINDOW RINGS DEFLATED PROBE PASSED"
).split()


def open_trace(where, gateway_id):
    """None if it is to go nowhere, or cannot: what is debugged is to run all the same."""
    if where not in (FILE, STDERR):
        return None
    try:
        output = new_file() if where == FILE else os.dup(2)
        close_on_exec(output)
    except EnvironmentError as error:
        complain("EXECNET_DEBUG has no effect: %s" % error)
        return None
    return Trace(output, gateway_id)


def new_file():
    # Anybody may write to that directory: a file or a link that is there already is somebody else's.
    first = path = "%s/execnet-debug-%d" % (os.environ.get("TMPDIR") or "/tmp", os.getpid())
    number = 1
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except EnvironmentError:
            if not os.path.lexists(path) or number == MOST_NAMES:
                raise
        number += 1
        path = "%s-%d" % (first, number)


def one_line(text):
    return printable(portable(text)[:1000]).replace(u"\n", u" ").replace(u"\t", u" ")


def about(kind, payload):
    """What is worth knowing of a message: nothing that may be secret, so no values, no code and no arguments."""
    try:
        if kind == HELLO:
            hello = load(payload, None)
            if "error" in hello:
                return "error: %s" % hello["error"]
            return "%(implementation)s pid %(pid)d %(executable)s" % hello
        if kind == EXEC:
            _, filename, line, function, _ = load(payload, lambda number: None)
            place = "text" if filename is None else "%s:%d" % (filename, line)
            return place if function is None else "%s %s" % (place, function)
    except Exception:  # it was not checked yet
        pass
    return ""


class Trace(object):
    """Writes what it is told of, where that happens. Any thread."""

    def __init__(self, output, gateway_id):
        self._output = output
        self._who = u"%d %s" % (os.getpid(), one_line(gateway_id))

    def received(self, header, payload):
        self._frame("<-", header, payload)

    def sends(self, data):
        """A frame, perhaps behind the magic bytes."""
        at = len(MAGIC) if data.startswith(MAGIC) else 0
        self._frame("->", data[at : at + HEADER.size], data[at + HEADER.size :])

    def note(self, text):
        self._write(u"-- " + one_line(text.split("\n")[0]))

    def _frame(self, direction, header, payload):
        kind, flags, _, channel, length, credit = HEADER.unpack(header)
        line = u"%s %s %d %d" % (direction, NAMES[kind - 1], channel, length)
        text = "more" if flags == MORE else "abort" if flags == ABORT else about(kind, payload)
        if kind == CREDIT:
            text = "credit %d" % credit
        elif kind == DEFLATED:
            text = "inflated %d" % credit
        elif kind in (PROBE, PASSED):
            text = "number %d" % credit
        self._write(line + (text and u" " + one_line(text)))

    def _write(self, line):
        try:
            os.write(self._output, (u"%.6f %s %s\n" % (time.time(), self._who, line)).encode("utf-8"))
        except EnvironmentError:
            pass  # there is nobody to be told
