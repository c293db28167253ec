#!/usr/bin/env python3
"""An interpreter with a fault in its line: stands between a coordinator and the worker that it runs.

It is started in place of the interpreter, with the stream on descriptor 3, and on 0 and 1 for a pure worker; runs the
real one with a stream of its own,
and passes everything on, frame by frame, until the one that is asked for. The environment says what is to happen then:

    EXECNET_FAULT_PYTHON   the real interpreter
    EXECNET_FAULT_REPORT   a named pipe: "struck" is written to it when it has happened, and "frames UP DOWN" in the end
    EXECNET_FAULT          "kind direction index position"; nothing happens without it

Kinds: kill, stop (the worker, before the frame is passed on), cut (the stream, instead of the frame), truncate (the
same after half of the frame), delay (the frame, by a tenth of a second), corrupt (a byte of it, at the position).
Directions: up, to the worker, and down. What comes before the first frame counts as one: the source of a pure worker,
and the worker's magic bytes. It ends as the worker ends, with the same exit status or signal.
"""

import contextlib
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

HEADER = struct.Struct("<BBHIII")
MAGIC = b"EXECNET\x01"
STREAM, STDERR, STDOUT = 3, 4, 5
DELAY = 0.1  # seconds


class Line:
    """Both directions of the stream, and the fault in one of them."""

    def __init__(self, coordinator, worker, process):
        self.process = process
        self.ends = {"up": (coordinator, worker), "down": (worker, coordinator)}
        self.frames = {"up": 0, "down": 0}
        kind, direction, index, position = os.environ.get("EXECNET_FAULT", "none up -1 0").split()
        self.kind, self.at, self.position = kind, (direction, int(index)), int(position)

    def pump(self, direction, first):
        source, sink = self.ends[direction]
        with contextlib.suppress(OSError):  # it was cut
            chunk = read(source, first) if first else read_frame(source)
            while chunk:
                self.pass_on(direction, sink, chunk)
                self.frames[direction] += 1
                chunk = read_frame(source)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def pass_on(self, direction, sink, frame):
        if self.at == (direction, self.frames[direction]):
            frame = self.strike(sink, frame)
            report("struck")
        sink.sendall(frame)

    def strike(self, sink, frame):
        if self.kind == "kill":
            self.process.kill()
        elif self.kind == "stop":
            os.kill(self.process.pid, signal.SIGSTOP)
        elif self.kind == "delay":
            time.sleep(DELAY)
        elif self.kind == "corrupt":
            position = self.position % len(frame)
            return frame[:position] + bytes([frame[position] ^ 0xFF]) + frame[position + 1 :]
        else:
            if self.kind == "truncate":
                sink.sendall(frame[: len(frame) // 2])
            for end in self.ends["up"]:
                end.shutdown(socket.SHUT_RDWR)
        return frame


def read(source, size):
    """`size` bytes; fewer only at the end of the stream."""
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def read_frame(source):
    header = read(source, HEADER.size)
    return header + read(source, HEADER.unpack(header)[4]) if len(header) == HEADER.size else header


def report(line):
    with open(os.environ["EXECNET_FAULT_REPORT"], "w") as pipe:
        pipe.write(line + "\n")


def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is the worker who ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    coordinator = socket.socket(fileno=os.dup(STREAM))
    ours, theirs = socket.socketpair()
    on_stdio = stat.S_ISSOCK(os.fstat(0).st_mode)
    for number in (0, 1, STREAM) if on_stdio else (STREAM,):
        os.dup2(theirs.fileno(), number)
    theirs.close()
    passed = (STREAM, STDERR, STDOUT) if on_stdio else (STREAM, STDERR)
    process = subprocess.Popen(
        [os.environ["EXECNET_FAULT_PYTHON"], *sys.argv[1:]],
        pass_fds=passed,
        restore_signals=True,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)],
    )
    for number in passed:
        os.close(number)
    if on_stdio:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
    line = Line(coordinator, ours, process)
    sources = sum(map(int, re.findall(r"\.read\((\d+)\)", sys.argv[-1])))
    pumps = [
        threading.Thread(target=line.pump, args=("up", sources), daemon=True),
        threading.Thread(target=line.pump, args=("down", len(MAGIC)), daemon=True),
    ]
    for pump in pumps:
        pump.start()
    code = process.wait()
    pumps[1].join()  # what the worker had said is still passed on
    report(f"frames {line.frames['up']} {line.frames['down']}")
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
