"""A slow line: passes bytes on between its standard descriptors and a port, at so many bits per second.

    ssh -o "ProxyCommand=python3 slow_line.py %h %p 20e6 /tmp/counts" host

Each direction has that rate (0: as fast as it goes). The file, if one is named, has how many bytes have gone up and
down so far: two numbers of eight bytes. They are there before the bytes are passed on. ``bytes_of(file)`` reads them.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

PIECE = 16384
_COUNTS = struct.Struct("=Q")


def bytes_of(counts: Path) -> tuple[int, int]:
    """(up, down), of a line that was opened with that file."""
    data = counts.read_bytes().ljust(2 * _COUNTS.size, b"\0")
    return _COUNTS.unpack_from(data)[0], _COUNTS.unpack_from(data, _COUNTS.size)[0]


def pump(source: int, sink: int, bits: float, counts: int | None, at: int) -> None:
    total, due = 0, time.monotonic()
    while True:
        data = os.read(source, PIECE)
        if not data:
            return
        total += len(data)
        if counts is not None:
            os.pwrite(counts, _COUNTS.pack(total), at)
        if bits:
            due = max(due, time.monotonic()) + 8 * len(data) / bits
            time.sleep(max(0.0, due - time.monotonic()))
        while data:
            data = data[os.write(sink, data) :]


def main(host: str, port: str, bits: str, report: str = "") -> None:
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # what is under way lies before the line, not behind it
    line.connect((host, int(port)))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    counts = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if report else None

    def up() -> None:
        try:
            pump(0, line.fileno(), float(bits), counts, 0)
            line.shutdown(socket.SHUT_WR)
        except OSError:
            os._exit(1)

    threading.Thread(target=up, daemon=True).start()
    try:
        pump(line.fileno(), 1, float(bits), counts, _COUNTS.size)
    except OSError:
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
