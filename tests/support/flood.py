"""flood.py ATTACK: a worker of an own kind. It says HELLO, and then sends frames of one kind without end.

It stands in for an interpreter (`python=`), for tests/python/test_peer_limits.py and tests/cpp/limits_test.cpp.
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
from collections.abc import Callable, Iterator

HELLO, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST, TERMINATE, STATUS, RECONFIGURE, CREDIT, OPEN, WINDOW = range(1, 13)
MORE = 1
MAGIC = b"EXECNET\x01"
OPEN_CHANNEL = 1  # the first that the coordinator makes
NEW = range(2, 2**32, 2)  # ids of the worker's making
KILOBYTE = b"\x41" + struct.pack("!i", 1024) + bytes(1024) + b"\x51"  # a value: bytes
MEGABYTE = bytes(2**20)


def frame(kind: int, channel: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("<BBHIII", kind, flags, 0, channel, len(payload), 0) + payload


def dumped(value: object) -> bytes:
    """A payload. The interpreter that runs this need not have execnet."""
    return _encoded(value) + b"Q"


def _encoded(value: object) -> bytes:
    if isinstance(value, bool):
        return b"R" if value else b"C"
    if isinstance(value, int):
        digits = b"%d" % value
        return struct.pack("!ci", b"F", value) if value < 2**31 else struct.pack("!ci", b"H", len(digits)) + digits
    if isinstance(value, str):
        return struct.pack("!ci", b"N", len(value)) + value.encode("ascii")
    if isinstance(value, tuple):
        return b"".join(map(_encoded, value)) + struct.pack("!ci", b"@", len(value))
    if isinstance(value, dict):
        return b"J" + b"".join(_encoded(key) + _encoded(item) + b"P" for key, item in value.items())
    raise TypeError(value)


def on_new_channels(kind: int, payload: bytes = b"", flags: int = 0, step: int = 1) -> Callable[[], Iterator[bytes]]:
    return lambda: (frame(kind, channel, payload, flags) for channel in NEW[::step])


def again_and_again(*frames: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.repeat(b"".join(frames))


ATTACKS: dict[str, Callable[[], Iterator[bytes]]] = {
    "items": again_and_again(frame(DATA, OPEN_CHANNEL, KILOBYTE)),
    "small items": again_and_again(frame(DATA, OPEN_CHANNEL, b"\x4c\x51")),
    "items, window lifted": lambda: itertools.chain(
        [frame(WINDOW, OPEN_CHANNEL, dumped(2**60))], itertools.repeat(frame(DATA, OPEN_CHANNEL, KILOBYTE))
    ),
    "items of new channels": on_new_channels(DATA, KILOBYTE),
    "new channels": on_new_channels(LAST),
    "windows of new channels": on_new_channels(WINDOW, dumped(1)),
    "strings of new channels": on_new_channels(RECONFIGURE, dumped((True, False))),
    "errors of new channels": on_new_channels(CLOSE_ERROR, dumped("x" * 1000)),
    "closes of every second channel": on_new_channels(CLOSE, step=2),
    "an endless message": again_and_again(frame(DATA, OPEN_CHANNEL, MEGABYTE, MORE)),
    "an endless message for no channel": again_and_again(frame(DATA, 2**31 + 1, MEGABYTE, MORE)),
    "begun messages": on_new_channels(DATA, b"", MORE),
    "begun messages and closes": lambda: (
        frame(DATA, channel, b"x" * 100, MORE) + frame(DATA, channel + 2, b"", 0) for channel in NEW[::2]
    ),
}


def main() -> None:
    hello = {
        "protocol": 1,
        "implementation": "pure",
        "version_info": (3, 11, 0, "final", 0),
        "executable": sys.executable,
        "platform": "linux",
        "cwd": "/",
        "pid": os.getpid(),
        "features": (),
    }
    with open(3, "wb", buffering=2**16) as out:
        out.write(MAGIC + frame(HELLO, 0, dumped(hello)))
        out.flush()
        try:
            for frames in ATTACKS[sys.argv[1]]():
                out.write(frames)
        except OSError:
            os._exit(0)  # the coordinator has had enough


if __name__ == "__main__":
    main()
