"""The conversation of tests/vectors/forks.txt, with the fork server in Python; and what else speaks it in Python.

src/gateway/fork_requests_test.cpp has the same conversation with the one in C++.
"""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import io
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import unittest

from vectors_test import vectors
from worker_client import HERE, PATIENCE, PY3, worker

FORK_SERVER = os.path.join(HERE, "fork_server.py")
# Its workers end with 3 when their stream does.
PROGRAM = """
import os, sys
names = {"__name__": "fork_server"}
with open(sys.argv[1]) as file:
    exec(compile(file.read(), "fork_server.py", "exec"), names)
pids = names["answer_requests"]()
if pids is None:
    os._exit(5 if os.read(3, 1) else 3)
names["end"](pids, 1.0)
"""
FORKED, READY = 2, 1


def conversation():
    """Rows (name, who, bytes, fields): of an answer kind, number, value and text."""
    rows = []
    for name, who, data, fields in vectors("forks.txt", 4):
        fields = fields.split(" ", 3)
        rows.append((name, who, bytes(bytearray.fromhex(data)), [int(field) for field in fields[:3]] + fields[3:]))
    return rows


def message(kind, number, value, text=""):
    return struct.pack("<IIiI", kind, number, value, len(text)) + text.encode("ascii")


def has_ended(pid):
    """Whether it is a zombie, or gone."""
    try:
        with open("/proc/%d/stat" % pid) as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except EnvironmentError:
        return True


@unittest.skipUnless(PY3 and sys.byteorder == "little", "it is for Python 3, and the bytes are little-endian")
class Conversation(unittest.TestCase):
    def setUp(self):
        self.control, theirs = socket.socketpair()
        self.control.settimeout(PATIENCE)
        command = [sys.executable, "-B", "-c", PROGRAM, FORK_SERVER]
        shell = 'exec "$@" 3<&0 4>&2 0</dev/null'
        self.process = subprocess.Popen(["sh", "-c", shell, "sh"] + command, stdin=theirs)
        theirs.close()
        self.streams, self.pids = {}, {}

    def tearDown(self):
        self.control.close()
        for stream in self.streams.values():
            stream.close()
        self.assertEqual(self.process.wait(), 0)

    def ask(self, data, number=None):
        if number is None:
            self.control.sendall(data)
            return
        self.streams[number], theirs = socket.socketpair()
        descriptors = struct.pack("=4i", theirs.fileno(), 2, 2, 2)
        with theirs:
            self.control.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.control.recv(size - len(data))
            self.assertTrue(more, "it has ended")
            data += more
        return data

    def hear(self):
        header = self.receive(16)
        return header + self.receive(struct.unpack("<I", header[12:])[0])

    def end(self, number):
        self.streams[number].shutdown(socket.SHUT_RDWR)
        for _ in range(PATIENCE * 100):
            if has_ended(self.pids[number]):
                return
            select.select([], [], [], 0.01)
        self.fail("worker %d has not ended" % number)

    def test_the_golden_conversation(self):
        for name, who, data, fields in conversation():
            if who == "end":
                self.end(fields[0])
            elif who != "answer":
                self.ask(data, fields[1] if who == "request" and fields[0] == 1 else None)
            else:
                said = self.hear()
                if fields[0] == FORKED:
                    self.pids[fields[1]] = fields[2] = struct.unpack("<i", said[8:12])[0]
                    data = message(*fields)
                elif fields[0] == READY:
                    data = message(1, 0, 0, os.readlink("/proc/self/ns/pid"))
                self.assertEqual(said, data, name)

    def test_it_ends_with_the_coordinator_and_kills_workers_that_do_not(self):
        self.hear()
        self.ask(struct.pack("<II", 1, 1), 1)
        pid = struct.unpack("<i", self.hear()[8:12])[0]
        os.kill(pid, signal.SIGSTOP)
        self.control.close()
        self.process.wait()
        for _ in range(PATIENCE * 100):
            if has_ended(pid):
                return
            select.select([], [], [], 0.01)
        self.fail("the worker is left")


class Protocol(unittest.TestCase):
    """What fork_protocol.hpp and the vectors have is what the two sides in Python have."""

    @unittest.skipUnless(PY3, "it is for Python 3")
    def test_numbers(self):
        with io.open(os.path.join(HERE, "..", "src", "gateway", "fork_protocol.hpp"), encoding="utf-8") as file:
            found = dict(re.findall(r"^  k(\w+) = (\d+),", file.read(), re.MULTILINE))
        self.assertEqual(len(found), 9)
        names = {"__name__": "fork_server"}
        with open(FORK_SERVER) as file:
            exec(compile(file.read(), FORK_SERVER, "exec"), names)
        for name, value in found.items():
            self.assertEqual(names[name.upper()], int(value), name)
            if name.upper() in worker:
                self.assertEqual(worker[name.upper()], int(value), name)

    @unittest.skipUnless(PY3 and sys.byteorder == "little", "it is for Python 3, and the bytes are little-endian")
    def test_the_side_of_a_proxy(self):
        rows = conversation()
        for at in range(len(rows) - 1):
            (name, who, data, fields), (_, its_kind, its_data, answer) = rows[at], rows[at + 1]
            if who != "request" or its_kind != "answer" or answer[0] == 5:
                continue
            server = worker["ForkServer"].__new__(worker["ForkServer"])
            server.control, other = socket.socketpair()
            server._socket, server._turn, server._ready = socket, worker["allocate_lock"](), True
            with server.control, other:
                other.sendall(its_data)
                said = server._ask(fields[0], fields[1])
                self.assertEqual(said, (answer[0], answer[2], "".join(answer[3:])), name)
                self.assertEqual(other.recv(100), data, name)


if __name__ == "__main__":
    unittest.main()
