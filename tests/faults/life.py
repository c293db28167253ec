"""A short life of a gateway: start, code, items both ways, long messages, a callback, a channel over a channel, a
status request, the end.

`life.py SPEC` is a program that lives it, for tests that break it.
"""

from __future__ import annotations

import queue
import sys

import execnet

LONG = 600_000  # bytes: three frames
END = object()
LIFE = """
reply = channel.receive()
channel.send(reply + 1)
channel.send(len(channel.receive()))
other = channel.receive()
other.send("over another channel")
other.close()
channel.send(b"x" * 600000)
"""


class WrongItem(Exception):
    """An item is not the one that was sent. Frames have no checksum, so corrupted bytes may cause this."""


def live(group: execnet.Group, spec: str) -> None:
    """Lives the life of a gateway. Raises the error that ended it, if one did."""
    gateway = group.makegateway(spec)
    channel = gateway.remote_exec(LIFE)
    channel.send(41)
    if channel.receive() != 42:
        raise WrongItem
    channel.send(b"x" * LONG)
    if channel.receive() != LONG:
        raise WrongItem
    other = gateway.newchannel()
    items: queue.Queue[object] = queue.Queue()
    other.setcallback(items.put, endmarker=END)
    channel.send(other)
    while items.get() is not END:  # comes in any case
        pass
    if channel.receive() != b"x" * LONG:
        raise WrongItem
    channel.waitclose()
    gateway.remote_status()
    gateway.exit()
    gateway.join()
    if gateway.hasreceiver():
        raise AssertionError("it is there still")


if __name__ == "__main__":
    with execnet.Group() as group:
        live(group, sys.argv[1])
        group.terminate(timeout=5)
    print("lived")
