"""Tests of the pure worker, by pytest or on its own: python worker/worker_test.py

They run under every interpreter that the worker has to run under, 2.7 and 3.6 included, and start
the worker under the same interpreter.
"""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import __future__

import functools
import io
import os
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
import unittest
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
PY3 = sys.version_info[0] >= 3
PATIENCE = 20  # seconds after which a test has failed

with io.open(os.path.join(HERE, "worker.py"), "rb") as file:
    SOURCE = file.read()
worker = {"__name__": "execnet_worker"}
exec(compile(SOURCE, "worker.py", "exec"), worker)
coordinator = {"__name__": "execnet_worker"}
exec(compile(SOURCE, "worker.py", "exec"), coordinator)
HELLO, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST, TERMINATE, STATUS, RECONFIGURE, CREDIT, OPEN, WINDOW, RINGS = range(1, 14)
MORE, ABORT = 1, 2
CHUNK = 256 * 1024
dump = coordinator["dump"]
text_type = type(u"")
# A coordinator never writes what only Python 2 does.
coordinator["WRITERS"][text_type] = coordinator["data_writer"](78, 86, coordinator["encode_utf8"])


def load(data, **config):
    return worker["load"](data, lambda number: ("channel", number), **config)


def compressed():
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    return squeeze.compress(SOURCE) + squeeze.flush()


def bootstrap_line(source_size, over_stdio):
    stream = "os.dup(0)" if over_stdio else "3"
    rest = "os.dup(1),None" if over_stdio else "3,4"
    return (
        'import os,zlib;i=os.fdopen(%s,"rb");g={"__name__":"execnet_worker"};'
        'exec(compile(zlib.decompress(i.read(%d),31),"<execnet worker>","exec"),g);g["serve"](i,%s)'
        % (stream, source_size, rest)
    )


def frame(kind, number, payload=b"", flags=0, reserved=0, length=None, credit=0):
    size = len(payload) if length is None else length
    return struct.pack("<BBHIII", kind, flags, reserved, number, size, credit) + payload


def status(busy):
    """What a worker without windows says while it runs so much, each with a channel."""
    return {
        "numchannels": busy,
        "numexecuting": busy,
        "execmodel": "thread",
        "numblocked": 0,
        "outstanding": 0,
    }


def hello(**changes):
    fields = {
        u"protocol": 1,
        u"id": u"gw0",
        u"execmodel": u"thread",
        u"chdir": None,
        u"nice": None,
        u"env": {},
        u"dont_write_bytecode": False,
        u"stdout": u"inherit",
        u"window": None,
    }
    fields.update((text_type(key), value) for key, value in changes.items())
    return fields


class Client(object):
    """A coordinator of the simplest kind: sends frames, and reads what comes in the order it comes."""

    def __init__(self, over_stdio=False, greeting=None, wait=True, modules=None):
        here, there = socket.socketpair()
        here.settimeout(PATIENCE)
        source = compressed()
        line = bootstrap_line(len(source), over_stdio)
        argv = [sys.executable, "-u", "-c", line]
        self.out = tempfile.TemporaryFile()
        self.err = tempfile.NamedTemporaryFile()  # what the started process calls stderr
        self.real_err = tempfile.TemporaryFile()  # what it is given as descriptor 4
        environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
        environment.pop("PYTHONPATH", None)
        if modules is not None:
            environment["PYTHONPATH"] = modules
        if over_stdio:
            self.process = subprocess.Popen(argv, stdin=there, stdout=there, stderr=self.err, env=environment)
        else:
            shell = 'exec "$@" 3<&0 4>&2 0</dev/null 2>"$STDERR"'
            environment["STDERR"] = self.err.name
            self.process = subprocess.Popen(
                ["sh", "-c", shell, "sh"] + argv,
                stdin=there,
                stdout=self.out,
                stderr=self.real_err,
                env=environment,
                close_fds=True,
            )
        there.close()
        self.socket = here
        self._buffer = b""
        self.next_id = 1
        self.write(source + frame(HELLO, 0, dump(hello() if greeting is None else greeting)))
        self.hello = None
        if wait:
            magic = self.take(8)
            if magic != b"EXECNET\x01":
                raise AssertionError("no magic but %r; stderr: %r" % (magic, self.captured(self.err)))
            kind, number, payload = self.read()
            assert (kind, number) == (HELLO, 0), (kind, number)
            self.hello = load(payload)

    def write(self, data):
        self.socket.sendall(data)

    def take(self, size):
        """So many bytes; less only at the end of the stream."""
        while len(self._buffer) < size:
            received = self.socket.recv(1 << 20)
            if not received:
                break
            self._buffer += received
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def send(self, kind, number, payload=b"", **more):
        self.write(frame(kind, number, payload, **more))

    def item(self, number, value):
        payload = dump(value)
        for at in range(0, len(payload), CHUNK):
            self.send(DATA, number, payload[at : at + CHUNK], flags=MORE if at + CHUNK < len(payload) else 0)

    def new_id(self):
        self.next_id += 2
        return self.next_id - 2

    def execute(self, source, filename=None, first_line=1, function=None, kwargs=None):
        number = self.new_id()
        source = text_type(textwrap.dedent(source))
        self.send(EXEC, number, dump((source, filename, first_line, function, kwargs or {})))
        return number

    def read_frame(self):
        """(type, flags, channel, payload, credit), or None at the end of the stream."""
        header = self.take(16)
        if len(header) < 16:
            return None
        kind, flags, reserved, number, length, credit = struct.unpack("<BBHIII", header)
        assert reserved == 0
        payload = self.take(length)
        assert len(payload) == length
        return kind, flags, number, payload, credit

    def read(self):
        """The next whole message: (type, channel, payload), or None."""
        chunks = []
        while True:
            got = self.read_frame()
            if got is None:
                return None
            kind, flags, number, payload, _ = got
            chunks.append(payload)
            if flags == 0:
                return kind, number, b"".join(chunks)

    def receive(self, number):
        """The next item, which has to be on that channel."""
        got = self.read()
        if got is None or got[:2] != (DATA, number):
            if got and got[0] == CLOSE_ERROR:
                raise AssertionError(load(got[2]))
            raise AssertionError("expected an item of channel %d, not %r" % (number, got))
        return load(got[2])

    def closed(self, number):
        """Reads the CLOSE of a channel and answers it."""
        got = self.read()
        if got and got[0] == CLOSE_ERROR:
            raise AssertionError(load(got[2]))
        assert got == (CLOSE, number, b""), got
        self.send(CLOSE, number)

    def error(self, number):
        got = self.read()
        assert got is not None and got[:2] == (CLOSE_ERROR, number), got
        self.send(CLOSE, number)
        return load(got[2])

    def status(self):
        number = self.new_id()
        self.send(STATUS, number)
        status = self.receive(number)
        self.closed(number)
        return status

    @staticmethod
    def captured(file):
        file.flush()
        file.seek(0)
        return file.read().decode("utf-8")

    def wait(self):
        """The exit status."""
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        try:
            return self.process.wait()
        finally:
            watchdog.cancel()

    def wait_until_asleep(self):
        """Waits until the main thread is in the system call where its code means to stay.

        Of a signal that comes between CPython's last look and that call, it would hear only after it. A thread that
        waits for the interpreter's lock wakes every 5 ms. (`sleeps` in tests/support is not for Python 2.)
        """
        def state():
            with io.open("/proc/%d/status" % self.process.pid) as file:
                return re.findall(r"State:\tS|ctxt_switches:\t\d+", file.read())

        seen, since = state(), time.time()
        while len(seen) < 3 or time.time() < since + 0.05:
            time.sleep(0.005)
            before, seen = seen, state()
            if seen != before:
                since = time.time()

    def terminate(self):
        self.send(TERMINATE, 0)
        while self.read() is not None:
            pass
        return self.wait()

    def close(self):
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for file in (self.out, self.err, self.real_err):
            file.close()


class Tables(unittest.TestCase):
    """What the C++ side has in headers, the worker has in tables of its own."""

    def check(self, header, pattern, count):
        with io.open(os.path.join(HERE, "..", "src", "wire", header), encoding="utf-8") as file:
            found = re.findall(pattern, file.read(), re.MULTILINE)
        self.assertEqual(len(found), count)
        names = dict((name.replace("_", ""), value) for name, value in worker.items() if isinstance(value, int))
        for name, value in found:
            self.assertEqual(names[name.upper()], int(value) if value.isdigit() else ord(value), name)

    def test_opcodes(self):
        self.check("opcode.hpp", r"^  k(\w+) = '(.)',$", 23)

    def test_frame_types(self):
        self.check("frame.hpp", r"^  k(\w+) = (\d+),$", 13)


def vectors(file, columns):
    """The rows of a file of tests/vectors/, which says what they mean."""
    with io.open(os.path.join(HERE, "..", "tests", "vectors", file), encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("|", columns - 1) for line in lines if line.strip() and line[0] != "#"]
    assert rows and all(len(row) == columns for row in rows), file
    return [[column.strip() for column in row] for row in rows]


class Vectors(unittest.TestCase):
    """The bytes that all implementations share."""

    def test_values(self):
        for name, mode, data, text in vectors("values.txt", 4):
            data = bytes(bytearray.fromhex(data))[1:]
            names = {"inf": float("inf"), "nan": float("nan"), "channel": lambda number: ("channel", number)}
            value = eval(compile(text, name, "eval", __future__.unicode_literals.compiler_flag), names)
            config = {}
            if mode == "load-py2str-as-bytes":
                config = {"py2str_as_py3str": False}
            elif mode == "load-py3str-as-bytes":
                config = {"py3str_as_py2str": True}
            elif not PY3 and name == "python 2 str":
                value = value.encode("latin-1")  # stays one
            loaded = load(data, **config)
            self.assertEqual(repr_of(loaded), repr_of(value), name)
            if mode == "both":
                written = worker["dump"](value)
                if PY3:
                    self.assertEqual(written, data, name)
                self.assertEqual(repr_of(load(written)), repr_of(value), name)

    def test_malformed(self):
        for name, offset, data in vectors("malformed.txt", 3):
            data = bytes(bytearray.fromhex(data))
            if int(offset) > 0:  # there is no version byte in frames
                try:
                    self.fail("%s is read as %r" % (name, worker["load"](data[1:], None)))
                except worker["LoadError"] as error:
                    self.assertEqual(error.offset + 1, int(offset), name)

    def test_frames(self):
        for name, header, fields in vectors("frames.txt", 3):
            header = bytes(bytearray.fromhex(header))
            kind, flags, _, number, length, credit = worker["HEADER"].unpack(header)
            payload = b"x" * min(length, 1 << 20)
            data = header + payload + (frame(kind, number) if flags == MORE else b"")
            if fields == "refused":
                with self.assertRaises(worker["ProtocolError"]):
                    list(worker["read_messages"](io.BytesIO(data)))
            else:
                self.assertEqual([kind, flags, number, length, credit], [int(field) for field in fields.split()], name)
                messages = list(worker["read_messages"](io.BytesIO(data)))
                content = credit if kind == CREDIT else payload
                self.assertEqual(messages, [] if flags == ABORT else [(kind, number, content)], name)


def repr_of(value):
    """A text that is the same for equal values of equal types; sets and dicts have no order."""
    if isinstance(value, (list, tuple)):
        return "%s%s" % (type(value).__name__, [repr_of(item) for item in value])
    if isinstance(value, dict):
        return "dict%s" % sorted((repr_of(key), repr_of(item)) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return "%s%s" % (type(value).__name__, sorted(repr_of(item) for item in value))
    return repr(value).rstrip("L")


class Values(unittest.TestCase):
    def check(self, value, data=None):
        dumped = worker["dump"](value)
        if data is not None:
            self.assertEqual(dumped, data)
        loaded = load(dumped)
        self.assertEqual(loaded, value)
        self.assertEqual(type(loaded), type(value))

    def refuse(self, value, text):
        with self.assertRaises(worker["DumpError"]) as caught:
            worker["dump"](value)
        self.assertEqual(str(caught.exception), text)

    def reject(self, data, text, offset):
        with self.assertRaises(worker["LoadError"]) as caught:
            load(data)
        self.assertIn(text, str(caught.exception))
        self.assertEqual(caught.exception.offset, offset)
        self.assertIn("at byte %d" % offset, str(caught.exception))

    def test_plain_values_have_their_opcodes(self):
        self.check(None, b"LQ")
        self.check(True, b"RQ")
        self.check(False, b"CQ")
        self.check(5, b"F\x00\x00\x00\x05Q")
        self.check(-1, b"F\xff\xff\xff\xffQ")
        self.check(1.5, b"D\x3f\xf8" + b"\0" * 6 + b"Q")
        self.check(1 - 2j)
        self.check(u"", None)
        self.assertEqual(worker["dump"](u"\xe4")[1:], b"\0\0\0\x02\xc3\xa4Q")
        self.check(u"\xe4\u20ac")
        self.check(u"\U0001f600")

    def test_bytes_and_text_per_interpreter(self):
        if PY3:
            self.check(b"ab", b"A\0\0\0\x02abQ")
            self.check(u"ab", b"N\0\0\0\x02abQ")
            self.assertEqual(load(b"M\0\0\0\x01\xe4Q"), u"\xe4")
            self.assertEqual(load(b"M\0\0\0\x01\xe4Q", py2str_as_py3str=False), b"\xe4")
        else:
            self.check("ab", b"M\0\0\0\x02abQ")
            self.check(u"ab", b"S\0\0\0\x02abQ")
            self.assertEqual(load(b"N\0\0\0\x02\xc3\xa4Q"), u"\xe4")
            self.assertEqual(load(b"N\0\0\0\x02\xc3\xa4Q", py3str_as_py2str=True), "\xc3\xa4")
        self.assertEqual(load(b"S\0\0\0\x02\xc3\xa4Q"), u"\xe4")
        self.assertEqual(load(b"A\0\0\0\x01\xe4Q"), b"\xe4")

    def test_wide_strings_are_read(self):
        self.assertEqual(load(b"U" + struct.pack(">q", 2) + b"abQ"), b"ab")
        self.assertEqual(load(b"V" + struct.pack(">q", 2) + b"\xc3\xa4Q"), u"\xe4")
        self.reject(b"V" + struct.pack(">q", -1) + b"Q", "bad length -1", 0)
        self.reject(b"U" + struct.pack(">q", 1 << 62) + b"Q", "bad length", 0)

    def test_strings_too_long_for_four_bytes_have_the_wide_opcode(self):
        class Long(bytes):
            def __len__(self):
                return 1 << 31

        pieces = []
        worker["data_writer"](65, 85)(pieces.append, Long())
        self.assertEqual(pieces[0], b"U" + struct.pack(">q", 1 << 31))

    def test_worked_example_of_the_format(self):
        data = b"K\0\0\0\x02F\0\0\0\0F\0\0\0\x01PF\0\0\0\x01R" + b"PQ"
        self.check([1, True], data)

    def test_containers(self):
        for value in (
            [],
            (),
            {},
            set(),
            frozenset(),
            [[]],
            ([], {}),
            {u"a": [1, (2, 3)], 4: {5: None}},
            set([1, 2]),
            frozenset([(1, 2), frozenset([3])]),
            [None] * 3,
            list(range(1000)),
            tuple(range(1000)),
            dict((i, str(i)) for i in range(1000)),
            {(1, (2, frozenset([3]))): u"x"},
        ):
            self.check(value)

    def test_integers(self):
        for value in (2**31 - 1, -(2**31), 2**31, -(2**31) - 1, 2**63, -(2**63), 10**30, -(10**30)):
            self.assertEqual(load(worker["dump"](value)), value)
            self.assertEqual(worker["dump"](value)[0:1] in (b"F", b"G"), -(2**31) <= value < 2**31)
        self.assertEqual(worker["dump"](2**31), b"H\0\0\0\x0a2147483648Q")
        if not PY3:
            self.assertEqual(worker["dump"](eval("5L")), b"G\0\0\0\x05Q")
            self.assertEqual(worker["dump"](eval("2L ** 63"))[:1], b"I")
            self.assertEqual(type(load(b"G\0\0\0\x05Q")), type(eval("5L")))
        self.assertEqual(load(b"I\0\0\0\x02-7Q"), -7)

    def test_integers_beyond_the_interpreters_limit_of_digits(self):
        for digits in (499, 500, 501, 999, 1000, 1001, 1499, 1501, 4299, 4301, 12345):
            for value in (10**digits, 10**digits - 1, -(10**digits) - 7, 7 * 10 ** (digits // 2)):
                data = worker["dump"](value)
                self.assertEqual(load(data), value)
                self.assertIn(data[5:6], (b"1", b"9", b"-", b"7"))

    def test_lists_of_numbers_are_as_if_written_and_read_one_by_one(self):
        def outcome(data):
            try:
                return repr_of(load(data))
            except worker["LoadError"] as error:
                return str(error)

        def one_by_one(function, argument):
            worker["MANY_NUMBERS"] = 1 << 30
            try:
                return function(argument)
            finally:
                worker["MANY_NUMBERS"] = 16

        ints, floats = list(range(-8, 12)), [i / 7.0 for i in range(20)]
        for numbers in (ints, floats, [2**31 - 1, -(2**31)] * 8, [float("nan"), float("-inf"), -0.0] * 6):
            mixed = [numbers + [2**31], numbers + [True], [numbers, {1: numbers}]]
            for value in [numbers, numbers[:15], numbers * 99, mixed] + mixed:
                data = worker["dump"](value)
                self.assertEqual(data, one_by_one(worker["dump"], value))
                self.assertEqual(repr_of(load(data)), repr_of(value))
        for numbers in (ints, floats):
            data = worker["dump"](numbers)
            for at in range(len(data)):
                for byte in (b"F", b"D", b"L", b"P", b"Q", b"\x00", b"\x01", b"\x11", b"\x7f", b"\xff"):
                    damaged = data[:at] + byte + data[at + 1 :]
                    self.assertEqual(outcome(damaged), one_by_one(outcome, damaged))
                self.assertEqual(outcome(data[:at]), one_by_one(outcome, data[:at]))

    def test_words_that_come_again_are_not_mistaken_for_others(self):
        words = [u"a" * size for size in range(70)] + [u"\xe4" * size for size in range(70)]
        words += [u"word %d" % number for number in range(500)]
        for value in (words * 2, dict((word, word) for word in words), [str(word.count(u"a")) for word in words]):
            self.assertEqual(load(worker["dump"](value)), value)

    def test_integers_have_a_limit(self):
        self.assertEqual(load(b"H" + struct.pack(">i", 10**6) + b"9" * 10**6 + b"Q") + 1, 10 ** (10**6))
        self.refuse(10 ** (10**6), "can't serialize an integer of more than 1000000 digits")
        self.reject(b"H" + struct.pack(">i", 10**6 + 1) + b"9" * (10**6 + 1) + b"Q", "more than 1000000 digits", 0)

    def test_integers_are_digits_and_nothing_else(self):
        for digits in (b"", b"-", b"+1", b" 1", b"1_0", b"--1", b"1.0", b"\xd9\xa1"):
            self.reject(b"H" + struct.pack(">i", len(digits)) + digits + b"Q", "decimal digits", 0)

    def test_nesting_is_bounded_not_by_the_interpreter(self):
        limit = sys.getrecursionlimit()
        for build in (lambda x: [x], lambda x: (x,), lambda x: {1: x}, lambda x: frozenset([x])):
            value = None
            for _ in range(1000):
                value = build(value)
            sys.setrecursionlimit(120)
            try:
                loaded = load(worker["dump"](value))
                depth = 0
                while loaded is not None:
                    loaded = loaded[1] if type(loaded) is dict else next(iter(loaded))
                    depth += 1
                with self.assertRaises(worker["DumpError"]) as caught:
                    worker["dump"]([value])
            finally:
                sys.setrecursionlimit(limit)
            self.assertEqual(depth, 1000)
            self.assertIn("more than 1000 levels of nesting", str(caught.exception))

    def test_nesting_is_bounded_when_loading(self):
        one = struct.pack(">i", 1)
        key = b"F\0\0\0\0"
        for data in (
            b"L" + (b"@" + one) * 1001 + b"Q",
            b"L" + (b"E" + one) * 100000 + b"Q",
            (b"K" + one + key) * 1001 + b"L" + b"P" * 1001 + b"Q",
            (b"J" + key) * 1001 + b"L" + b"P" * 1001 + b"Q",
            b"JL" + (b"@" + one) * 1000 + b"LPQ",
        ):
            with self.assertRaises(worker["LoadError"]) as caught:
                load(data)
            self.assertIn("more than 1000 levels", str(caught.exception))
        load(b"L" + (b"@" + one) * 1000 + b"Q")
        load(b"JL" + (b"@" + one) * 999 + b"LPQ")
        deep = b"K" + struct.pack(">i", 2) + key + (b"K" + one + key) * 998 + b"L" + b"P" * 999 + b"F" + one + b"JP"
        load(deep + b"@" + one + b"Q")
        with self.assertRaises(worker["LoadError"]) as caught:  # what comes after the deepest item changes nothing
            load(deep + (b"@" + one) * 2 + b"Q")
        self.assertIn("more than 1000 levels", str(caught.exception))
        wide = b"J" + b"".join(b"F" + struct.pack(">i", i) + b"J" + b"P" for i in range(3000)) + b"Q"
        self.assertEqual(len(load(wide)), 3000)

    def test_refused_values_are_named_with_their_path(self):
        name = repr(object)
        self.refuse(object(), "can't serialize " + name)
        self.refuse([1, 2, 3, {"status": object()}], "can't serialize %s at [3]['status']" % name)
        self.refuse((0, [object(), 5]), "can't serialize %s at [1][0]" % name)
        self.refuse([frozenset([object])], "can't serialize %s at [0]{...}" % repr(type))
        self.refuse({1: 2, 3: {5: (), 7: [[], type]}}, "can't serialize %s at [3][7][1]" % repr(type))
        self.refuse({type: 1}, "can't serialize %s at {%r: ...}" % (repr(type), type))
        value = object()
        for _ in range(30):
            value = [0, value]
        self.refuse(value, "can't serialize %s at %s...%s" % (name, "[1]" * 8, "[1]" * 8))

    def test_lone_surrogates_are_refused(self):
        self.refuse([u"\ud800"], "can't serialize a string: lone surrogates are not UTF-8 at [0]")

    def test_subclasses_are_refused(self):
        class Text(text_type):
            pass

        self.refuse([Text(u"a")], "can't serialize %r at [0]" % Text)

    def test_hostile_bytes_are_load_errors(self):
        self.reject(b"", "truncated", 0)
        self.reject(b"F\0\0", "truncated", 0)
        self.reject(b"L", "truncated", 1)
        self.reject(b"Q", "ends with 0 items", 0)
        self.reject(b"LLQ", "ends with 2 items", 2)
        self.reject(b"LQL", "1 bytes after the end", 2)
        self.reject(b"L?Q", "unknown opcode 63", 1)
        self.reject(b"LWQ", "unknown opcode 87", 1)
        self.reject(b"A\xff\xff\xff\xffQ", "bad length -1", 0)
        self.reject(b"LA\x7f\xff\xff\xffQ", "bad length", 1)
        self.reject(b"K\x7f\xff\xff\xffQ", "more than the input can fill", 0)
        self.reject(b"K\xff\xff\xff\xffQ", "-1 items", 0)
        self.reject(b"@\xff\xff\xff\xffQ", "-1 items", 0)
        self.reject(b"L@\0\0\0\x02Q", "2 items wanted, 1 there", 1)
        self.reject(b"PQ", "nothing to work on", 0)
        self.reject(b"LLLPQ", "list or dict only", 3)
        self.reject(b"JJLPQ", "unhashable", 3)
        self.reject(b"JO\0\0\0\x01Q", "unhashable", 1)
        self.reject(b"N\0\0\0\x01\xffQ", "utf", 0)
        self.reject(b"B\0\0\0\0Q", "bad channel id 0", 0)
        self.reject(b"K\0\0\0\x01" + b"F\xff\xff\xff\xffLPQ", "bad list index -1", 11)
        self.reject(b"K\0\0\0\x01" + b"CLP" + b"Q" * 6, "bad list index False", 7)
        self.reject(b"K\0\0\0\x01" + b"F\0\0\0\x01LPQ", "bad list index 1", 11)

    def test_every_truncation_of_a_value_is_a_load_error(self):
        data = worker["dump"]([1, 2.5, {u"a": (None, True, 10**30, 1j)}, frozenset([u"b"]), b"x"])
        for size in range(len(data)):
            with self.assertRaises(worker["LoadError"]):
                load(data[:size])

    def test_lists_share_the_bytes_that_could_fill_them(self):
        data = (b"K" + struct.pack(">i", 100)) * 100 + b"Q"
        self.reject(data, "more than the input can fill", 0 if 100 > len(data) // 6 else 5)

    def test_channels_are_asked_for_by_id(self):
        self.assertEqual(load(b"B\0\0\0\x07Q"), ("channel", 7))

    def test_all_bytes_as_input_end_in_a_value_or_a_load_error(self):
        state = 12345
        for _ in range(3000):
            data = bytearray()
            for _ in range(12):
                state = (state * 1103515245 + 12345) & 0x7FFFFFFF
                data.append(64 + (state >> 16) % 23 if state >> 8 & 3 else 0)
            try:
                load(bytes(data) + b"Q")
            except worker["LoadError"]:
                pass


class Frames(unittest.TestCase):
    def messages(self, data):
        return list(worker["read_messages"](io.BytesIO(data)))

    def reject(self, data, text):
        with self.assertRaises(worker["ProtocolError"]) as caught:
            self.messages(data)
        self.assertIn(text, str(caught.exception))

    def test_messages_are_put_together_from_chunks(self):
        data = (
            frame(DATA, 1, b"ab", flags=MORE)
            + frame(DATA, 3, b"x")
            + frame(DATA, 1, b"cd", flags=MORE)
            + frame(DATA, 1, b"")
            + frame(TERMINATE, 0)
        )
        self.assertEqual(self.messages(data), [(DATA, 3, b"x"), (DATA, 1, b"abcd"), (TERMINATE, 0, b"")])

    def test_abort_takes_back(self):
        data = frame(DATA, 1, b"ab", flags=MORE) + frame(DATA, 1, flags=ABORT) + frame(DATA, 1, b"c")
        self.assertEqual(self.messages(data), [(DATA, 1, b"c")])
        self.assertEqual(self.messages(frame(DATA, 1, flags=ABORT) + frame(DATA, 1, b"c")), [(DATA, 1, b"c")])

    def test_a_stream_may_end_anywhere(self):
        data = frame(DATA, 1, b"ab")
        for size in range(len(data)):
            self.assertEqual(self.messages(data[:size]), [])

    def test_what_is_not_of_the_protocol_is_an_error(self):
        self.reject(frame(0, 1), "unknown frame type 0")
        self.reject(frame(13, 1), "unknown frame type 13")
        self.reject(frame(DATA, 1, flags=4), "reserved")
        self.reject(frame(DATA, 1, flags=MORE | ABORT), "reserved")
        self.reject(frame(DATA, 1, reserved=1), "reserved")
        self.reject(frame(DATA, 1, length=1024 * 1024 + 1), "over the limit")
        self.reject(frame(CLOSE, 1, b"x"), "cannot have a payload")
        self.reject(frame(DATA, 1, b"x", flags=ABORT), "cannot have a payload")
        self.reject(frame(DATA, 1, b"x", flags=MORE) + frame(CLOSE, 1), "among the chunks")


class LiveTest(unittest.TestCase):
    def start(self, **options):
        client = Client(**options)
        self.addCleanup(client.close)
        return client

    def setUp(self):
        watchdog = threading.Timer(60, os._exit, (3,))  # nothing here may wait for ever
        watchdog.daemon = True
        watchdog.start()
        self.addCleanup(watchdog.cancel)


class Proxies(LiveTest):
    def setUp(self):
        LiveTest.setUp(self)
        self.client = self.start()

    def open(self, *argv):
        number = self.client.new_id()
        self.client.send(OPEN, number, dump(([word.encode("ascii") for word in argv], {b"COLOUR": b"red"}, True, None)))
        return number

    def test_standard_input_and_output_are_the_channel(self):
        number = self.open("sh", "-c", "echo $COLOUR; exec cat")
        self.assertEqual(self.client.receive(number), b"red\n")
        self.client.item(number, b"ping")
        self.assertEqual(self.client.receive(number), b"ping")
        self.client.send(LAST, number)
        self.assertEqual(self.client.error(number), "exit status 0")
        self.assertEqual(self.client.terminate(), 0)

    def test_the_end_is_told_with_what_was_said(self):
        number = self.open("sh", "-c", "echo no luck >&2; kill -9 $$")
        self.assertEqual(self.client.error(number), "killed by SIGKILL\nno luck")

    def test_what_cannot_be_started_is_told(self):
        number = self.open("nopython")
        self.assertEqual(self.client.error(number), "cannot start 'nopython': No such file or directory")

    def test_what_does_not_end_with_its_stream_is_killed_with_its_children(self):
        number = self.open("sh", "-c", "trap '' TERM INT; sleep 1000 >/dev/null 2>&1 & echo $!; wait")
        child = int(self.client.receive(number))
        self.client.send(LAST, number)
        self.assertEqual(self.client.error(number), "killed by SIGKILL")
        with self.assertRaises(EnvironmentError):
            while True:  # until whoever has inherited it has collected it
                with open("/proc/%d/stat" % child) as stat:
                    self.assertIn(stat.read().rpartition(")")[2].split()[0], "RSZXD")

    def fork(self, *argv):
        number = self.client.new_id()
        self.client.send(OPEN, number, dump(([word.encode("ascii") for word in argv], {}, True, b"sources")))
        return self.client.error(number)

    @unittest.skipIf(PY3, "with Python 3 it can")
    def test_forking_takes_python_3(self):
        self.assertIn("preload needs Python 3, and this is Python 2.7", self.fork("true"))

    @unittest.skipUnless(PY3, "with Python 2 it cannot")
    def test_what_a_fork_server_says_is_told(self):
        self.assertEqual(
            self.fork("sh", "-c", "echo no luck >&2; exit 3"),
            "its fork server has ended: exit status 3\nno luck",
        )
        answer = (
            "import os, socket, struct\n"
            "control = socket.socket(fileno=0)\n"
            "def say(kind, number, text): control.sendall(struct.pack('=IIiI', kind, number, 0, len(text)) + text)\n"
            "control.recv(7, socket.MSG_WAITALL)\n"
            "say(1, 0, os.readlink('/proc/self/ns/pid').encode())\n"
            "kind, number = struct.unpack('=II', control.recvmsg(8)[0])\n"
            "say(3, number, b'not today %d' % kind)\n"
            "control.recv(1)"
        )
        self.assertEqual(
            self.fork(sys.executable, "-c", answer), "its fork server has not started it: not today 1"
        )

    def test_no_more_comes_than_the_window_allows(self):
        size = 3 << 20
        number = self.open("head", "-c", str(size), "/dev/zero")
        came, allowed = 0, worker["RELAY_WINDOW"]
        while came < size:
            while came < min(allowed, size):
                came += len(self.client.receive(number))
            self.assertEqual(came, min(allowed, size))
            self.client.status()  # the answer is the next that comes
            self.client.item(number, worker["RELAY_WINDOW"])
            allowed += worker["RELAY_WINDOW"]
        self.assertEqual(self.client.error(number), "exit status 0")

    def test_what_is_not_of_the_form_ends_the_worker(self):
        too_much = b"x" * (worker["MOST_SOURCES"] + 1)
        for request in (
            (),
            ([], {}, True, None),
            ([b"true"], {}, False, None),
            ([b"true"], {}, True),
            ([b"true"], {}, True, too_much),
        ):
            client = self.start()
            client.send(OPEN, client.new_id(), dump(request))
            self.assertIs(client.read(), None)
            self.assertIn("OPEN without", client.captured(client.real_err))


class Starting(LiveTest):
    def test_hello_says_what_runs(self):
        client = self.start()
        said = client.hello
        self.assertEqual(said["protocol"], 1)
        self.assertEqual(said["implementation"], "pure")
        self.assertEqual(said["version_info"], tuple(sys.version_info))
        self.assertEqual(said["pid"], client.process.pid)
        self.assertEqual(said["cwd"], os.getcwd())
        self.assertEqual(said["platform"], sys.platform)
        self.assertEqual(said["features"], [])
        self.assertTrue(os.path.exists(said["executable"]))
        for value in list(said) + [said["executable"], said["version_info"][3]]:
            self.assertEqual(type(value), text_type)
        self.assertEqual(client.terminate(), 0)

    def test_environment_of_the_code(self):
        client = self.start(greeting=hello(env={u"EXECNET_A": u"b c"}, dont_write_bytecode=True, nice=1))
        number = client.execute(
            """
            import os, sys
            names = [name for name in sorted(globals()) if name[:2] != "__"]
            channel.send((sys.argv, sys.path[0], os.environ["EXECNET_A"], sys.dont_write_bytecode, os.nice(0),
                          __name__, sys.stdin.read(), channel.gateway.id, names))
            """
        )
        got = client.receive(number)
        names = ["channel", "os", "sys"]
        expected = (["-c"], "", "b c", True, os.nice(0) + 1, "__channelexec__", "", "gw0", names)
        self.assertEqual(got, expected)
        client.closed(number)

    def test_chdir_is_made_when_missing(self):
        directory = os.path.realpath(tempfile.mkdtemp())
        client = self.start(greeting=hello(chdir=text_type(os.path.join(directory, "a", "b"))))
        self.assertEqual(client.hello["cwd"], os.path.join(directory, "a", "b"))
        os.removedirs(os.path.join(directory, "a", "b"))

    def test_what_cannot_be_applied_is_named(self):
        for changes, text in (
            ({"chdir": u"/dev/null/x"}, "chdir=/dev/null/x: "),
            ({"execmodel": u"fibers"}, "execmodel=fibers: ValueError: there are thread, main_thread_only, gevent"),
            ({"protocol": 2}, "protocol=2: ValueError: "),
            ({"env": {u"A": u"b\0"}}, "env:A="),
        ):
            client = self.start(greeting=hello(**changes))
            self.assertEqual(sorted(client.hello), ["error", "protocol"])
            self.assertIn(text, client.hello["error"])
            self.assertIs(client.read(), None)
            self.assertEqual(client.wait(), 1)

    def test_a_hello_that_is_none_ends_it(self):
        for greeting in ({}, {u"protocol": 1}, [], hello(nice=u"x")):
            client = self.start(greeting=greeting, wait=False)
            self.assertEqual(client.take(1), b"")
            self.assertEqual(client.wait(), 1)
            self.assertIn("HELLO without a proper", client.captured(client.err))

    def test_stderr_is_taken_over_and_print_reaches_stdout(self):
        client = self.start()
        number = client.execute("import sys; print('out'); sys.stderr.write('err\\n')")
        client.closed(number)
        self.assertEqual(client.captured(client.out), "out\n")
        self.assertEqual(client.captured(client.err), "")
        self.assertEqual(client.captured(client.real_err), "err\n")

    def test_over_stdio_print_goes_to_stderr_and_stdin_is_empty(self):
        client = self.start(over_stdio=True)
        number = client.execute("import os, sys; print('out'); os.write(1, b'raw'); channel.send(sys.stdin.read())")
        self.assertEqual(client.receive(number), "")
        client.closed(number)
        self.assertEqual(client.captured(client.err), "out\nraw")
        self.assertEqual(client.terminate(), 0)

    def test_children_do_not_get_the_stream(self):
        client = self.start()
        number = client.execute(
            """
            import subprocess, sys
            code = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd') if int(fd) > 2))"
            child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, close_fds=False)
            channel.send(child.communicate()[0].decode().strip())
            """
        )
        self.assertEqual(client.receive(number), "[3]")  # the listing itself


class Executing(LiveTest):
    def test_echo_and_close(self):
        client = self.start()
        number = client.execute("for item in channel: channel.send(item)")
        for value in (1, None, [1, {u"a": (2.5, u"\xe4")}], 10**50, frozenset([1]), b"" if PY3 else u""):
            client.item(number, value)
            self.assertEqual(client.receive(number), value)
        client.send(LAST, number)
        client.closed(number)
        self.assertEqual(client.status()["numexecuting"], 0)

    def test_big_messages_travel_in_chunks(self):
        client = self.start()
        number = client.execute("channel.send(channel.receive())")
        value = u"\xe4bcdefgh" * 100000
        client.item(number, value)
        sizes, chunks = [], []
        while True:
            kind, flags, channel, payload, credit = client.read_frame()
            self.assertEqual((kind, channel), (DATA, number))
            sizes.append((flags, len(payload), credit))
            chunks.append(payload)
            if not flags:
                break
        total = 5 + 900000 + 1
        self.assertEqual(sizes, [(MORE, CHUNK, 0)] * 3 + [(0, total - 3 * CHUNK, 0)])
        self.assertEqual(load(b"".join(chunks)), value)
        client.closed(number)

    def test_functions_get_channel_and_arguments(self):
        client = self.start()
        source = "def f(channel, a, b=2):\n    channel.send((a, b))\n"
        number = client.execute(source, function=u"f", kwargs={u"a": 5})
        self.assertEqual(client.receive(number), (5, 2))
        client.closed(number)

    def test_one_in_the_main_thread_others_beside_it(self):
        client = self.start()
        source = """
            import threading
            channel.send(threading.current_thread().name)
            channel.receive()
            """
        first = client.execute(source)
        self.assertEqual(client.receive(first), "MainThread")
        second = client.execute(source)
        self.assertEqual(client.receive(second), "execnet exec %d" % second)
        self.assertEqual(client.status(), status(2))
        client.item(first, 1)
        client.closed(first)
        third = client.execute(source)
        self.assertEqual(client.receive(third), "MainThread")
        for number in (second, third):
            client.item(number, 1)
            client.closed(number)
        for _ in range(20):
            number = client.execute("import threading; channel.send(threading.current_thread().name)")
            self.assertEqual(client.receive(number), "MainThread")
            client.closed(number)
        self.assertEqual(client.status(), status(0))

    def test_main_thread_only_refuses_a_second_after_a_grace(self):
        client = self.start(greeting=hello(execmodel=u"main_thread_only"))
        source = "import threading; channel.send(threading.current_thread().name); channel.receive()"
        first = client.execute(source)
        self.assertEqual(client.receive(first), "MainThread")
        second = client.execute(source)
        error = client.error(second)
        self.assertEqual(error, "concurrent remote_exec would cause deadlock for main_thread_only execmodel")
        self.assertEqual(client.status()["numexecuting"], 1)
        third = client.execute(source)  # comes to its turn in time
        client.item(first, None)
        client.closed(first)
        self.assertEqual(client.receive(third), "MainThread")
        client.item(third, None)
        client.closed(third)
        self.assertEqual(client.terminate(), 0)

    def test_closing_the_executing_channel_is_refused(self):
        client = self.start()
        number = client.execute(
            """
            try:
                channel.close()
            except EnvironmentError as error:
                channel.send(str(error))
            """
        )
        self.assertEqual(client.receive(number), "cannot explicitly close channel within remote_exec")
        client.closed(number)

    def test_forked_children_are_cut_off(self):
        if sys.version_info < (3, 7):
            self.skipTest("os.register_at_fork is new in 3.7")
        client = self.start()
        number = client.execute(
            """
            import os
            child = os.fork()
            if child == 0:
                try:
                    channel.send("from the child")
                except OSError as error:
                    assert "forked child" in str(error)
                else:
                    assert False
            else:
                channel.send(os.waitpid(child, 0)[1])
            """
        )
        self.assertEqual(client.receive(number), 0)
        client.closed(number)
        self.assertEqual(client.terminate(), 0)


class Failing(LiveTest):
    def fail_with(self, source, **options):
        client = self.start()
        number = client.execute(source, **options)
        error = client.error(number)
        again = client.execute("channel.send(1)")
        self.assertEqual(client.receive(again), 1)
        return error

    def test_the_traceback_has_file_line_and_source_of_what_was_sent(self):
        source = "def f(channel):\n    def inner():\n        raise KeyError('gone')\n    inner()\n"
        error = self.fail_with(source, filename=u"/no/such/file.py", first_line=41, function=u"f")
        self.assertIn('File "/no/such/file.py", line 44, in f\n    inner()\n', error)
        self.assertIn("File \"/no/such/file.py\", line 43, in inner\n    raise KeyError('gone')\n", error)
        self.assertIn("KeyError: 'gone'", error)
        self.assertTrue(error.startswith("Traceback (most recent call last):\n"))
        self.assertNotIn("execnet worker", error)

    def test_sources_of_the_same_name_are_not_mixed_up(self):
        client = self.start()
        waits = client.execute("channel.send(0)\nchannel.receive()\nassert 1 == 2, 'first'")
        client.receive(waits)
        number = client.execute("1\n2\nassert 3 == 4, 'second'")
        error = client.error(number)
        self.assertIn('File "<remote exec>", line 3, in <module>\n    assert 3 == 4', error)
        client.item(waits, None)
        self.assertIn('File "<remote exec>", line 3, in <module>\n    assert 1 == 2', client.error(waits))

    def test_worker_frames_are_cut_off(self):
        error = self.fail_with("channel.send([object])")
        self.assertNotIn("execnet worker", error)
        self.assertIn('File "<remote exec>", line 1, in <module>\n    channel.send([object])\n', error)
        self.assertIn("DumpError: can't serialize %r at [0]" % type, error)

    def test_syntax_errors(self):
        error = self.fail_with("a = 1\nb = = 2\n", filename=u"/no/file.py", first_line=10)
        self.assertIn('File "/no/file.py", line 11', error)
        self.assertIn("b = = 2", error)
        self.assertIn("SyntaxError", error)

    def test_null_bytes_in_the_source(self):
        self.assertIn("null byte", self.fail_with("a = '\0'"))

    def test_chained_exceptions(self):
        error = self.fail_with("try:\n    1 / 0\nexcept Exception:\n    raise ValueError(u'\\xe4')\n")
        self.assertIn("ValueError", error)
        if PY3:
            self.assertIn("ZeroDivisionError", error)
            self.assertIn("    1 / 0\n", error)
            self.assertIn(u"\xe4", error)

    def test_errors_with_odd_text(self):
        error = self.fail_with("class Odd(Exception):\n    def __str__(self): raise KeyError\nraise Odd")
        self.assertIn("Odd", error)
        if PY3:
            self.assertIn("\\ud800", self.fail_with("raise ValueError('\\ud800')"))
        else:
            self.assertIn("Classic", self.fail_with("class Classic: pass\nraise Classic()"))

    def test_exit_and_interrupts_are_reported(self):
        self.assertIn("SystemExit: 3", self.fail_with("import sys; sys.exit(3)"))
        self.assertIn("KeyboardInterrupt", self.fail_with("raise KeyboardInterrupt"))
        self.assertIn("GeneratorExit", self.fail_with("raise GeneratorExit"))

    def test_sigint_interrupts_the_main_thread_only_when_it_is_busy(self):
        client = self.start()
        for _ in range(3):
            os.kill(client.process.pid, signal.SIGINT)
        number = client.execute("import time; channel.send(1); time.sleep(1000)")
        self.assertEqual(client.receive(number), 1)
        client.wait_until_asleep()
        os.kill(client.process.pid, signal.SIGINT)
        self.assertIn("KeyboardInterrupt", client.error(number))
        self.assertEqual(client.terminate(), 0)

    def test_deep_recursion(self):
        error = self.fail_with("def f(n):\n    return f(n + 1)\nf(0)")
        self.assertIn("ecursion", error)
        self.assertIn('File "<remote exec>", line 3, in <module>\n    f(0)\n', error)

    def test_eof_of_the_channel_is_no_error_but_others_are(self):
        client = self.start()
        number = client.execute("channel.receive()")
        client.send(LAST, number)
        client.closed(number)
        number = client.execute("raise EOFError('of a file')")
        self.assertIn("EOFError: of a file", client.error(number))

    def test_sending_on_a_closed_channel(self):
        client = self.start()
        side = client.new_id()
        client.send(DATA, side, dump(5))
        client.send(CLOSE, side)
        self.assertEqual(client.read(), (CLOSE, side, b""))
        number = client.execute(
            """
            side = channel.receive()
            channel.send((side.isclosed(), side.receive()))
            side.send(1)
            """
        )
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        self.assertEqual(client.receive(number), (True, 5))
        self.assertIn("cannot send to <Channel id=1 closed>", client.error(number))

    def test_declared_encodings_do_not_matter(self):
        client = self.start()
        number = client.execute(u"# -*- coding: latin-1 -*-\nchannel.send(u'\xe4')\n")
        self.assertEqual(client.receive(number), u"\xe4")
        client.closed(number)


class Channels(LiveTest):
    def run_checks(self, source, *items):
        """Runs source that raises when something is wrong, after it was sent the items."""
        client = self.start()
        number = client.execute(source)
        for item in items:
            client.item(number, item)
        return client, number

    def test_receive_waits_no_longer_than_told(self):
        client, number = self.run_checks(
            """
            import time
            for timeout in (0, -1, 0.01):
                try:
                    channel.receive(timeout=timeout)
                except channel.TimeoutError as error:
                    assert isinstance(error, EnvironmentError), error
                else:
                    assert False
            try:
                channel.waitclose(timeout=0)
            except channel.TimeoutError:
                pass
            else:
                assert False
            channel.send(1)
            assert channel.receive(timeout=1000) == 5
            """
        )
        self.assertEqual(client.receive(number), 1)
        client.item(number, 5)
        client.closed(number)

    def test_remote_errors_are_raised_once(self):
        client, number = self.run_checks(
            """
            other = channel.gateway.newchannel()
            channel.send(other)
            assert other.receive() == 1
            try:
                other.receive()
            except other.RemoteError as error:
                assert error.formatted == u"went wrong", error
                assert str(error) == "went wrong"
            else:
                assert False
            try:
                other.receive()
            except EOFError:
                pass
            else:
                assert False
            other.waitclose()
            assert other.isclosed() and repr(other) == "<Channel id=2 closed>", repr(other)
            """
        )
        self.assertEqual(client.receive(number), ("channel", 2))
        client.item(2, 1)
        client.send(CLOSE_ERROR, 2, dump(u"went wrong"))
        self.assertEqual(sorted([client.read(), client.read()]), [(CLOSE, number, b""), (CLOSE, 2, b"")])

    def test_channels_over_channels_are_the_same_object(self):
        client = self.start()
        number = client.execute(
            """
            one, two = channel.receive()
            assert one is two and one is not channel
            assert channel.receive() is channel
            one.send(one.receive() + 1)
            channel.send([one])
            """
        )
        side = client.new_id()
        client.item(side, 41)  # before the reference has come
        reference = b"B" + struct.pack(">i", side)
        client.send(DATA, number, reference * 2 + b"@\0\0\0\x02Q")
        client.send(DATA, number, b"B" + struct.pack(">i", number) + b"Q")
        self.assertEqual(client.receive(side), 42)
        self.assertEqual(client.receive(number), [("channel", side)])

    def test_the_end_of_a_channel_that_was_not_referred_to_yet_is_kept(self):
        client = self.start()
        number = client.execute("side = channel.receive(); channel.send(list(side))")
        side = client.new_id()
        client.item(side, 1)
        client.item(side, 2)
        client.send(CLOSE, side)
        self.assertEqual(client.read(), (CLOSE, side, b""))
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        self.assertEqual(client.receive(number), [1, 2])
        client.closed(number)
        number = client.execute("side = channel.receive(); channel.send((side.isclosed(), list(side)))")
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        self.assertEqual(client.receive(number), (True, []))

    def test_a_dropped_channel_is_closed_once(self):
        client = self.start()
        number = client.execute(
            """
            import gc
            other = channel.gateway.newchannel()
            channel.send(other.id)
            channel.receive()
            del other
            gc.collect()
            channel.receive()
            """
        )
        other = client.receive(number)
        client.item(number, None)
        self.assertEqual(client.read(), (CLOSE, other, b""))
        client.item(other, 5)  # crosses the CLOSE, is ignored
        client.send(CLOSE, other)
        client.item(number, None)
        client.closed(number)
        self.assertEqual(client.status()["numchannels"], 0)

    def test_a_dropped_channel_with_a_callback_goes_on_receiving(self):
        client = self.start()
        number = client.execute(
            """
            import gc
            other = channel.gateway.newchannel()
            other.setcallback(channel.send, endmarker="end")
            channel.send(other.id)
            channel.receive()
            del other
            gc.collect()
            channel.receive()
            """
        )
        other = client.receive(number)
        client.item(other, 1)
        self.assertEqual(client.receive(number), 1)
        client.item(number, None)
        self.assertEqual(client.read(), (LAST, other, b""))
        client.item(other, 2)
        self.assertEqual(client.receive(number), 2)
        client.send(CLOSE, other)
        frames = sorted([client.read(), client.read()])
        self.assertEqual(frames, [(DATA, number, dump("end")), (CLOSE, other, b"")])
        client.item(number, None)
        client.closed(number)
        self.assertEqual(client.status()["numchannels"], 0)

    def test_channels_dropped_with_the_lock_held_do_no_harm(self):
        client = self.start()
        number = client.execute(
            """
            import gc, threading
            set_threshold = getattr(gc, "set_threshold", lambda count: None)  # PyPy has none
            set_threshold(1)
            class Holder(object): pass
            def drop(count):
                for _ in range(count):
                    holder = Holder()
                    holder.itself, holder.channel = holder, channel.gateway.newchannel()
            threads = [threading.Thread(target=drop, args=(100,)) for _ in range(3)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            del thread, threads
            set_threshold(700)
            for _ in range(6):  # PyPy takes one for every link
                gc.collect()
            channel.send("done")
            """
        )
        closed = set()
        done = False
        while not (done and len(closed) == 300):
            kind, other, _ = client.read()
            self.assertNotEqual(kind, CLOSE_ERROR)
            done = done or kind == CLOSE and other == number
            if kind == CLOSE and other != number:
                self.assertNotIn(other, closed)
                closed.add(other)
        self.assertEqual(closed, set(range(2, 602, 2)))

    def test_callbacks_get_everything_in_order_then_the_end_marker(self):
        client = self.start()
        number = client.execute(
            """
            import threading
            other = channel.receive()
            got, end, done = [], object(), threading.Event()
            threads = set()
            def callback(item):
                got.append(item)
                threads.add(threading.current_thread().name)
                if item is end:
                    got.append(type(other._getremoteerror()))
                    done.set()
            other.setcallback(callback, endmarker=end)
            for use in (other.receive, lambda: other.setcallback(callback)):
                try:
                    use()
                except EnvironmentError:
                    pass
                else:
                    assert False
            channel.send("set")
            assert done.wait(20)
            assert got[:-2] == list(range(20)) and got[-2] is end, got
            assert got[-1] is channel.RemoteError, got
            assert threads == set(["execnet dispatcher"]), threads
            """
        )
        side = client.new_id()
        for item in range(10):
            client.item(side, item)
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        self.assertEqual(client.receive(number), "set")
        for item in range(10, 20):
            client.item(side, item)
        client.send(CLOSE_ERROR, side, dump(u"error"))
        self.assertEqual(sorted([client.read(), client.read()]), [(CLOSE, number, b""), (CLOSE, side, b"")])

    def test_a_raising_callback_closes_with_the_error_on_both_sides(self):
        client = self.start()
        number = client.execute(
            """
            other = channel.gateway.newchannel()
            got = []
            def callback(item):
                got.append(item)
                if item != "end":
                    raise KeyError(item)
            other.setcallback(callback, endmarker="end")
            channel.send(other)
            try:
                other.waitclose()
            except other.RemoteError as error:
                assert "KeyError: 7" in error.formatted
            else:
                assert False
            while len(got) < 2:
                pass
            channel.send(got)
            """
        )
        _, other = client.receive(number)
        client.item(other, 7)
        client.item(other, 8)
        got = client.read()
        self.assertEqual(got[:2], (CLOSE_ERROR, other))
        self.assertIn('File "<remote exec>", line 7, in callback\n    raise KeyError(item)', load(got[2]))
        client.send(CLOSE, other)
        self.assertEqual(client.receive(number), [7, "end"])

    def test_last_ends_the_receiving_only(self):
        client, number = self.run_checks(
            """
            assert list(channel) == [1, 2]
            channel.waitclose()
            assert not channel.isclosed()
            assert repr(channel) == "<Channel id=1 sendonly>", repr(channel)
            channel.send(3)
            """,
            1,
            2,
        )
        client.send(LAST, number)
        self.assertEqual(client.receive(number), 3)
        client.closed(number)

    def test_close_with_an_error(self):
        client, number = self.run_checks(
            """
            other = channel.gateway.newchannel()
            channel.send(other)
            other.close(ValueError("why"))
            other.close()
            """
        )
        client.receive(number)
        kind, other, payload = client.read()
        self.assertEqual((kind, other, load(payload)), (CLOSE_ERROR, 2, "why"))
        client.closed(number)

    def test_files(self):
        client, number = self.run_checks(
            """
            source = channel.receive()
            reader = source.makefile("r")
            assert reader.readline() == u"ab\\n"
            assert reader.read(3) == u"cde"
            assert list(reader) == [u"f\\n", u"g"]
            assert reader.read() == u""
            other = channel.gateway.newchannel()
            channel.send(other)
            with other.makefile("w", proxyclose=True) as file:
                file.write("x")
                file.writelines(["y", "z"])
            assert other.isclosed()
            try:
                channel.makefile("rw")
            except ValueError:
                pass
            else:
                assert False
            """
        )
        side = client.new_id()
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        for text in (u"a", u"b\nc", u"def\n", u"g"):
            client.item(side, text)
        client.send(CLOSE, side)
        got = [client.read() for _ in range(7)]
        items = [load(payload) for kind, other, payload in got if (kind, other) == (DATA, 2)]
        self.assertEqual(items, ["x", "y", "z"])
        self.assertIn((CLOSE, 2, b""), got)
        self.assertIn((CLOSE, side, b""), got)
        self.assertIn((CLOSE, number, b""), got)

    def test_reconfigure_here_and_from_there(self):
        client = self.start()
        number = client.execute("for item in channel: channel.send(repr(item))")
        py2string, py3string = b"M\0\0\0\x01aQ", b"N\0\0\0\x01aQ"
        seen = []
        for config in ((True, False), (False, True)):
            client.send(RECONFIGURE, number, dump(config))
            for payload in (py2string, py3string):
                client.send(DATA, number, payload)
                seen.append(client.receive(number))
        self.assertEqual(seen, ["'a'", "'a'", "b'a'", "b'a'"] if PY3 else ["'a'", "u'a'", "'a'", "'a'"])
        client.send(CLOSE, number)
        self.assertEqual(client.read(), (CLOSE, number, b""))
        client.send(RECONFIGURE, 0, dump((False, False)))
        number = client.execute(
            "channel.send(repr(channel.receive())); channel.reconfigure(True, True); channel.gateway.reconfigure()"
        )
        client.send(DATA, number, py2string)
        self.assertEqual(client.receive(number), "b'a'" if PY3 else "'a'")
        self.assertEqual(client.read(), (RECONFIGURE, number, dump((True, True))))
        self.assertEqual(client.read(), (RECONFIGURE, 0, dump((True, False))))
        client.closed(number)

    def test_many_threads_send_whole_messages(self):
        client = self.start()
        number = client.execute(
            """
            import threading
            other = channel.gateway.newchannel()
            channel.send(other)
            def send(channel, base):
                for index in range(5):
                    channel.send([base + index] + [None] * 60000)
            threads = [threading.Thread(target=send, args=(c, b)) for c in (channel, other) for b in (0, 100, 200)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            """
        )
        client.receive(number)
        pending, seen = {}, {number: [], 2: []}
        while sum(len(items) for items in seen.values()) < 30:
            kind, flags, channel, payload, _ = client.read_frame()
            self.assertEqual(kind, DATA)
            pending.setdefault(channel, []).append(payload)
            if not flags:
                item = load(b"".join(pending.pop(channel)))
                self.assertEqual(len(item), 60001)
                seen[channel].append(item[0])
        for items in seen.values():
            for base in (0, 100, 200):
                part = [item for item in items if base <= item < base + 100]
                self.assertEqual(part, list(range(base, base + 5)))

    def test_a_big_message_does_not_hold_up_a_small_one(self):
        client = self.start()
        echo = client.execute("for item in channel: channel.send(item)")
        client.item(echo, 1)
        client.receive(echo)
        big = client.execute("channel.send('x' * 60000000)")
        self.assertEqual(client.read_frame()[:3], (DATA, MORE, big))
        client.item(echo, 2)
        frame = client.read_frame()
        while frame[2] == big:
            self.assertEqual(frame[1], MORE, "the whole big message came first")
            frame = client.read_frame()
        self.assertEqual(frame[2], echo)

    def test_an_interrupted_send_is_taken_back_or_whole(self):
        client = self.start()
        number = client.execute(
            """
            channel.send("ready")
            try:
                channel.send("x" * 20000000)
            except KeyboardInterrupt:
                channel.send("interrupted")
            """
        )
        self.assertEqual(client.receive(number), "ready")
        first = client.read_frame()
        self.assertEqual(first[:3], (DATA, MORE, number))
        os.kill(client.process.pid, signal.SIGINT)
        flags = MORE
        while flags == MORE:
            kind, flags, channel, payload, _ = client.read_frame()
            self.assertEqual((kind, channel), (DATA, number))
        self.assertEqual((flags, payload), (ABORT, b""))
        self.assertEqual(client.receive(number), "interrupted")
        client.closed(number)

    def test_execmodel_has_what_programs_use(self):
        client, number = self.run_checks(
            """
            model = channel.gateway.execmodel
            queue = model.queue.Queue()
            model.start(queue.put, (5,))
            assert queue.get(timeout=20) == 5
            model.RLock(), model.Event(), model.get_ident(), model.sleep(0), model.subprocess.Popen, model.socket.socket
            channel.send(model.backend)
            """
        )
        self.assertEqual(client.receive(number), "thread")
        client.closed(number)


class Reading(LiveTest):
    """What the main thread waits for it reads itself, where it has waited for the last item, too: worker's Incoming."""

    SOURCE = """
        def answer(item):
            channel.send((item, incoming._reads_made))

        incoming = channel._connection.incoming
        other = channel.gateway.newchannel()
        channel.send(other)
        for item in channel:
            if item == u"call":
                for call in other:  # on the main thread
                    exec(call)
            answer(item)
    """

    def setUp(self):
        LiveTest.setUp(self)
        self.client = self.start()
        self.number = self.client.execute(self.SOURCE)
        self.other = self.received_channel(self.number)

    def received_channel(self, number):
        """The id of the channel that is the next item, which has to be on that channel."""
        kind, at, payload = self.client.read()
        self.assertEqual((kind, at), (DATA, number))
        return struct.unpack(">i", payload[-5:-1])[0]

    def echo(self):
        """How many reads the main thread has made, at all."""
        self.client.item(self.number, u"echo")
        item, reads = self.client.receive(self.number)
        self.assertEqual(item, u"echo")
        return reads

    def lend(self):
        """Until the main thread has read one item itself, where it does, and then waits for the next one."""
        if worker["Incoming"].LENDS:
            before = self.echo()
            while self.echo() == before:
                pass

    def call(self, *sources):
        """Has the main thread run that, one after the other."""
        self.client.item(self.number, u"call")
        for source in sources:
            self.client.item(self.other, text_type(textwrap.dedent(source)))

    def test_all_else_is_still_heard(self):
        self.lend()
        self.assertEqual(self.client.status()["numexecuting"], 1)
        self.lend()
        beside = self.client.execute("for item in channel: channel.send(item)")
        self.client.item(beside, 1)
        self.assertEqual(self.client.receive(beside), 1)
        self.echo()
        self.client.item(beside, 2)
        self.assertEqual(self.client.receive(beside), 2)
        self.client.send(LAST, beside)
        self.client.closed(beside)
        self.lend()
        self.client.item(self.number, u"x" * 3 * CHUNK)
        self.assertEqual(len(self.client.receive(self.number)[0]), 3 * CHUNK)
        self.lend()
        self.assertEqual(self.client.terminate(), 0)

    def test_several_items_at_once_come_in_order(self):
        for round in range(20):
            self.lend()
            items = [u"%d" % i for i in range(round)]
            self.client.write(b"".join([frame(DATA, self.number, dump(item)) for item in items]))
            self.assertEqual([self.client.receive(self.number)[0] for _ in items], items)

    def test_a_frame_in_pieces(self):
        self.lend()
        data = frame(DATA, self.number, dump(u"in pieces"))
        for at in range(len(data)):
            self.client.write(data[at : at + 1])
            if at % 5 == 0:
                self.client.wait_until_asleep()
        self.assertEqual(self.client.receive(self.number)[0], u"in pieces")
        self.lend()

    def test_other_threads_get_theirs(self):
        self.call("""
            import threading
            third = channel.gateway.newchannel()
            other.send(third)
            def echo():
                for item in third:
                    third.send(item)
            threading.Thread(target=echo).start()
        """)
        third = self.received_channel(self.other)
        for i in range(100):
            self.client.item(third, i)
            self.assertEqual(self.client.receive(third), i)
        self.client.send(CLOSE, third)
        self.assertEqual(self.client.read(), (CLOSE, third, b""))

    def test_what_comes_while_the_main_thread_works_is_read(self):
        self.lend()
        self.call("""
            import threading
            incoming.may_go_on = threading.Event()
            other.send(u"works")
            incoming.may_go_on.wait()
            other.send(u"goes on")
        """)
        self.assertEqual(self.client.receive(self.other), u"works")
        beside = self.client.execute("channel._connection.incoming.may_go_on.set()")
        got = [self.client.read(), self.client.read()]
        self.assertEqual(set([got[0][:2], got[1][:2]]), set([(CLOSE, beside), (DATA, self.other)]))

    def test_a_channel_that_is_closed_beside_it(self):
        self.lend()
        self.call("""
            import threading, time
            third = channel.gateway.newchannel()
            other.send(third)
            def close():
                while not third._state.waiters:  # which is all that tells that the main thread waits
                    time.sleep(0.001)
                third.close()
            for item in third:
                other.send(item)
                if item == 9:
                    threading.Thread(target=close).start()
            other.send(u"ended")
        """)
        third = self.received_channel(self.other)
        for i in range(10):
            self.client.item(third, i)
            self.assertEqual(self.client.receive(self.other), i)
        got = [self.client.read(), self.client.read()]
        self.assertEqual(set([got[0][:2], got[1][:2]]), set([(CLOSE, third), (DATA, self.other)]))

    @unittest.skipUnless(PY3, "no handler runs there while the main thread waits for a lock")
    def test_a_signal_handler_may_receive(self):
        self.call("""
            import signal
            third = channel.gateway.newchannel()
            other.send(third)
            def handle(*_):
                third.send(u"handling")
                third.send(third.receive())
            signal.signal(signal.SIGUSR1, handle)
            for item in other:
                other.send(item)
        """)
        third = self.received_channel(self.other)
        for i in range(30):
            for _ in range(i % 3):
                self.client.item(self.other, u"before")
                self.assertEqual(self.client.receive(self.other), u"before")
            self.client.wait_until_asleep()
            os.kill(self.client.process.pid, signal.SIGUSR1)
            self.assertEqual(self.client.receive(third), u"handling")
            if i % 2:
                self.client.item(self.other, i)
                self.client.item(third, -i)
            else:
                self.client.item(third, -i)
                self.assertEqual(self.client.receive(third), -i)
                self.client.item(self.other, i)
            got = [self.client.read() for _ in range(1 + i % 2)]
            expected = [(self.other, i)] + [(third, -i)] * (i % 2)
            self.assertEqual(sorted((number, load(payload)) for _, number, payload in got), sorted(expected))

    @unittest.skipUnless(PY3, "no handler runs there while the main thread waits for a lock")
    def test_a_signal_handler_may_wait_for_what_a_callback_gets(self):
        self.lend()
        self.call("""
            import signal, threading
            third, there = channel.gateway.newchannel(), threading.Event()
            other.send(third)
            third.setcallback(lambda item: there.set())
            def handle(*_):
                other.send(u"handling")
                there.wait()
            signal.signal(signal.SIGUSR1, handle)
            for item in other:
                other.send(item)
        """)
        third = self.received_channel(self.other)
        for i in range(10):
            self.client.item(self.other, i)
            self.assertEqual(self.client.receive(self.other), i)
        self.client.wait_until_asleep()
        os.kill(self.client.process.pid, signal.SIGUSR1)
        self.assertEqual(self.client.receive(self.other), u"handling")
        self.client.item(third, u"go on")
        self.client.item(self.other, u"after it")
        self.assertEqual(self.client.receive(self.other), u"after it")

    def test_an_item_with_a_channel(self):
        self.lend()
        number = self.client.new_id()
        written = struct.pack(">Bi", worker["CHANNEL"], number)
        self.client.send(DATA, self.number, written + struct.pack(">B", worker["STOP"]))
        self.assertEqual(self.client.read()[2][:5], written)
        self.client.send(CLOSE, number)
        self.assertEqual(self.client.read(), (CLOSE, number, b""))
        self.lend()

    @unittest.skipUnless(worker["Incoming"].LENDS, "there the end of a `with` block may be interrupted")
    def test_nothing_gets_out_of_step_by_interrupts(self):
        self.call("""
            import signal, threading, time
            main, armed, over = threading.get_ident(), threading.Event(), []
            def interrupt():
                delay = 0
                while not over:
                    armed.wait()
                    armed.clear()
                    delay = (delay + 0.000017) % 0.0007
                    time.sleep(delay)  # each time it hits another step of what the main thread does
                    signal.pthread_kill(main, signal.SIGINT)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            threading.Thread(target=interrupt).start()
            interrupts, got, coming = 0, [-1], False
            while got[-1] != 3000:
                item = None
                if not coming:  # never two at once
                    coming = True
                    armed.set()
                try:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
                    item = other.receive()
                    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
                except KeyboardInterrupt:
                    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
                    interrupts += 1
                    coming = False
                if item is not None:
                    got.append(item)
                other.send(item)
            over.append(1)
            armed.set()
            other.send((got[1:], interrupts))
        """)
        sent = 0
        self.client.item(self.other, sent)
        while sent < 3000:
            # None: interrupted. The item may have got lost in it, when receive() was about to return it.
            if self.client.receive(self.other) in (sent, None):
                sent += 1
                self.client.item(self.other, sent)
        got = self.client.receive(self.other)
        while type(got) is not tuple:
            got = self.client.receive(self.other)
        got, interrupts = got
        self.assertEqual(got, sorted(set(got)))
        self.assertGreaterEqual(len(got) + interrupts, 3000)
        self.assertGreater(interrupts, 0)


class ReadingAlone(LiveTest):
    """Where nothing can be lent to the main thread."""

    SOURCE = "for item in channel: channel.send(item)"

    def check(self, before):
        client = self.start()
        number = client.execute(textwrap.dedent(before) + self.SOURCE)
        for i in range(20):
            client.item(number, i)
            self.assertEqual(client.receive(number), i)
        client.send(LAST, number)
        client.closed(number)
        self.assertEqual(client.terminate(), 0)

    def test_without_a_descriptor_left(self):
        self.check("""
            import os, resource
            descriptor = os.dup(2)
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        """)

    def test_where_poll_was_replaced(self):
        self.check("""
            import select
            select.poll = lambda: 1 // 0
        """)


class Windows(LiveTest):
    SOURCE = "for item in channel: channel.send(item)"

    def blocked(self, client):
        """Waits until a sender waits for room."""
        while client.status()["numblocked"] == 0:
            pass

    def test_a_sender_waits_for_credit(self):
        client = self.start(greeting=hello(window=800))
        number = client.execute("for i in range(5): channel.send(u'x' * 294)")
        for _ in range(2):
            self.assertEqual(len(client.receive(number)), 294)
        self.blocked(client)
        self.assertEqual(client.status()["outstanding"], 600)
        client.write(frame(CREDIT, number, credit=600))
        for _ in range(2):
            self.assertEqual(len(client.receive(number)), 294)
        self.blocked(client)
        client.write(frame(CREDIT, number, credit=100))
        self.assertEqual(len(client.receive(number)), 294)
        client.closed(number)

    def test_what_is_taken_is_told_by_eighths(self):
        client = self.start(greeting=hello(window=800))
        number = client.execute("for i in range(4): channel.receive()")
        for _ in range(3):
            client.item(number, u"x" * 54)
        self.assertEqual(client.read_frame(), (CREDIT, 0, number, b"", 120))
        client.item(number, None)
        client.closed(number)

    def test_without_a_window_nothing_is_told(self):
        client = self.start()
        number = client.execute("channel.send(len(channel.receive()))")
        client.item(number, u"x" * 100000)
        self.assertEqual(client.read_frame()[:3], (DATA, 0, number))

    def test_credit_that_crosses_with_a_close_or_is_for_nobody_is_ignored(self):
        client = self.start(greeting=hello(window=800))
        number = client.execute("channel.send(1)")
        self.assertEqual(client.receive(number), 1)
        client.closed(number)
        client.write(frame(CREDIT, number, credit=6) + frame(CREDIT, number + 100, credit=4000000000))
        self.assertEqual(client.status()["numchannels"], 0)
        self.assertEqual(client.terminate(), 0)

    def test_a_window_of_a_channel_is_told_to_the_other_end(self):
        client = self.start()
        source = """
            channel.set_window(1000)
            channel.send((channel.window, channel.outstanding))
            channel.set_window(None)
            channel.send(channel.window)
            """
        number = client.execute(source)
        self.assertEqual(client.read(), (WINDOW, number, dump(1000)))
        self.assertEqual(client.receive(number), (1000, 0))
        self.assertEqual(client.read(), (WINDOW, number, dump(None)))
        self.assertEqual(client.receive(number), None)
        client.closed(number)

    @unittest.skipUnless(PY3, "a signal does not interrupt a lock")
    def test_ctrl_c_ends_the_waiting_and_nothing_was_sent(self):
        client = self.start(greeting=hello(window=800))
        source = """
            channel.send(u"x" * 794)
            try:
                channel.send(u"late")
            except KeyboardInterrupt:
                outstanding = channel.outstanding
            channel.receive().send(outstanding)
            """
        number = client.execute(source)
        self.assertEqual(len(client.receive(number)), 794)
        self.blocked(client)
        client.wait_until_asleep()
        client.process.send_signal(signal.SIGINT)
        while client.status()["numblocked"]:
            pass
        answers = client.new_id()
        client.send(DATA, number, b"B" + struct.pack(">i", answers) + b"Q")
        self.assertEqual(client.receive(answers), 800)

    @unittest.skipUnless(
        sys.version_info >= (3, 10) and sys.implementation.name == "cpython",
        "a signal that comes at the end of a `with` keeps its lock taken",
    )
    def test_sends_interrupted_anywhere_leave_nothing_behind(self):
        client = self.start(greeting=hello(window=800))
        source = """
            import random, signal
            def interrupt(number, frame):
                if sending:
                    raise KeyboardInterrupt
            sending = False
            signal.signal(signal.SIGALRM, interrupt)
            for _ in range(5000):
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2e-4))
                try:
                    sending = True
                    channel.send(b"x" * 94)
                    sending = False
                except KeyboardInterrupt:
                    sending = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.send(None)
            channel.receive()
            """
        number = client.execute(source)
        payload = b""
        while payload != dump(None):
            kind, _, payload = client.read()
            self.assertEqual(kind, DATA)
            client.write(frame(CREDIT, number, credit=len(payload)))
        status = client.status()
        self.assertEqual((status["numblocked"], status["outstanding"]), (0, 0))


@unittest.skipUnless(sys.platform.startswith("linux"), "there is no prctl()")
def without_other_children(test):
    """Runs it in a fork, which has none: a guard waits for all."""

    @functools.wraps(test)
    def run(self):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                test(self)
                status = 0
            except unittest.SkipTest:
                status = 2
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 2:
            self.skipTest("what it is about cannot be had here")
        self.assertEqual(status, 0)

    return run


class Guarding(LiveTest):
    """The worker's own guard."""

    def setUp(self):
        super(Guarding, self).setUp()
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def leave_behind_when(self, end):
        """Has a worker without prctl() leave a process behind, in its group, and waits for the end of that one."""
        with open(os.path.join(self.directory, "ctypes.py"), "w") as module:
            module.write("raise ImportError")
        held = os.path.join(self.directory, "held")
        os.mkfifo(held)
        reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        client = self.start(over_stdio=True, modules=self.directory)
        source = """
            import os, subprocess, time
            held = os.open(%r, os.O_WRONLY)
            process = subprocess.Popen(["sleep", "1000"], stdout=held)
            os.close(held)
            channel.send((os.getpgid(process.pid), os.getpgrp()))
            channel.receive()
            os._exit(7)
            """
        number = client.execute(source % held)
        group, groups = client.receive(number)
        self.assertEqual(group, groups)
        self.assertNotEqual(group, os.getpgrp())
        end(client, number)
        self.assertEqual(select.select([reader], [], [], PATIENCE)[0], [reader])
        self.assertEqual(os.read(reader, 1), b"")
        return client

    def test_without_prctl_what_a_worker_leaves_behind_is_killed(self):
        client = self.leave_behind_when(lambda client, number: client.item(number, None))
        self.assertEqual(client.wait(), 7)

    def test_without_prctl_the_end_of_the_stream_ends_all(self):
        self.leave_behind_when(lambda client, number: client.socket.shutdown(socket.SHUT_RDWR))

    def guard(self, code):
        """A guard of a process that runs `code` in a fork; returns the guard."""
        child = os.fork()
        if child == 0:
            try:
                code()
            finally:
                os._exit(3)
        guard = worker["Guard"].__new__(worker["Guard"])
        guard._child, guard._group, guard._status, guard._signals = child, None, None, []
        return guard

    @without_other_children
    def test_a_signal_does_not_end_the_waiting_for_the_child(self):
        guard = self.guard(lambda: time.sleep(0.3))
        before = signal.signal(signal.SIGALRM, lambda number, frame: None)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        self.assertFalse(guard._collect(0))
        signal.signal(signal.SIGALRM, before)
        self.assertEqual(os.WEXITSTATUS(guard._status), 3)

    @without_other_children
    def test_signals_are_for_a_child_that_is_there(self):
        guard = self.guard(lambda: time.sleep(PATIENCE))
        guard._signals.append(signal.SIGTERM)
        guard._pass_on()
        self.assertFalse(guard._collect(0))
        self.assertEqual(os.WTERMSIG(guard._status), signal.SIGTERM)
        came = []
        before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
        guard._child = os.getpid()  # a stranger has its number now
        guard._signals.append(signal.SIGTERM)
        guard._pass_on()
        signal.signal(signal.SIGTERM, before)
        self.assertEqual(came, [])

    @without_other_children
    def test_it_dumps_no_core_of_its_own_whatever_the_limit(self):
        def crash():
            resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            resource.setrlimit = lambda *_: None  # a core that is piped to a program knows no limit
            os.chdir(self.directory)

        def end_alike():
            crash()
            guard = worker["Guard"].__new__(worker["Guard"])
            guard._status = signal.SIGSEGV
            guard._end_like_child()

        def crash_plainly():
            crash()
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)

        for code, dumps in ((crash_plainly, True), (end_alike, False)):
            guard = self.guard(code)
            self.assertFalse(guard._collect(0))
            if dumps and not os.WCOREDUMP(guard._status):
                self.skipTest("nothing dumps a core here")
            self.assertEqual(os.WTERMSIG(guard._status), signal.SIGSEGV)
            self.assertEqual(os.WCOREDUMP(guard._status), dumps)


class Ending(LiveTest):
    def test_terminate_ends_an_idle_worker(self):
        client = self.start()
        number = client.execute(
            "import atexit; atexit.register(print, 'bye')"
            if PY3
            else "import atexit, os; atexit.register(os.write, 1, 'bye\\n')"
        )
        client.closed(number)
        self.assertEqual(client.terminate(), 0)
        self.assertEqual(client.captured(client.out), "bye\n")
        self.assertEqual(client.captured(client.real_err), "")

    def test_terminate_ends_receiving_code_which_can_still_send(self):
        client = self.start()
        source = "channel.send('ready'); list(channel); channel.send('end')\nchannel.receive()"
        numbers = [client.execute(source), client.execute(source)]
        self.assertEqual(sorted(client.read()[:2] for _ in numbers), [(DATA, number) for number in numbers])
        client.send(TERMINATE, 0)
        got = sorted(client.read() for _ in range(4))
        data = dump("end")
        self.assertEqual(got, [(DATA, number, data) for number in numbers] + [(CLOSE, n, b"") for n in numbers])
        self.assertEqual(client.wait(), 0)

    def test_terminate_interrupts_code_that_goes_on(self):
        client = self.start()
        number = client.execute("channel.send(1)\nimport time\ntime.sleep(1000)")
        client.receive(number)
        client.send(TERMINATE, 0)
        self.assertIn("KeyboardInterrupt", load(client.read()[2]))
        self.assertEqual(client.wait(), 0)

    def test_threads_that_code_has_left_do_not_keep_the_process(self):
        client = self.start()
        number = client.execute(
            """
            import atexit, os, threading
            atexit.register(os.write, 1, b"bye")
            threading.Thread(target=threading.Event().wait).start()
            """
        )
        client.closed(number)
        self.assertEqual(client.terminate(), 0)
        self.assertEqual(client.captured(client.out), "bye")

    def test_the_end_of_the_stream_ends_whatever_runs(self):
        for source in (
            "channel.send(1)\nchannel.receive()",
            "channel.send(1)\nwhile True: pass",
            "import time\nchannel.send(1)\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass",
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nchannel.send(1)\nsignal.pause()",
            "import threading\nthreading.Thread(target=threading.Event().wait).start()\nchannel.send(1)",
            "while True: channel.send(1)",
        ):
            client = self.start()
            number = client.execute(source)
            self.assertEqual(client.receive(number), 1)
            client.socket.shutdown(socket.SHUT_RDWR)
            self.assertIn(client.wait(), (0, 1))

    def test_protocol_errors_end_it_with_a_message(self):
        for data, text in (
            (frame(99, 1), "unknown frame type 99"),
            (frame(DATA, 0, dump(1)), "out of place"),
            (frame(HELLO, 0, dump(1)), "once"),
            (frame(DATA, 1, b"?"), "unknown opcode 63 at byte 0"),
            (frame(EXEC, 1, dump((1, None, 1, None, {}))), "EXEC without"),
            (frame(EXEC, 1, dump(5)), "EXEC without"),
            (frame(EXEC, 2, dump((u"1", None, 1, None, {}))), "not of the coordinator's making"),
            (frame(CLOSE_ERROR, 1, dump(5)), "a string was expected"),
            (frame(RECONFIGURE, 0, dump(5)), "two booleans"),
            (frame(WINDOW, 1, dump(0)), "WINDOW without a number of bytes"),
            (frame(WINDOW, 1, dump(True)), "WINDOW without a number of bytes"),
            (frame(WINDOW, 1, dump(u"8M")), "WINDOW without a number of bytes"),
            (frame(WINDOW, 1, dump(5)) + frame(CREDIT, 1, credit=1), "credit for more bytes than are on their way"),
        ):
            client = self.start()
            client.write(data)
            self.assertIs(client.read(), None)
            self.assertEqual(client.wait(), 1)
            self.assertIn(text, client.captured(client.real_err))

    def test_status_is_answered_while_code_runs(self):
        client = self.start()
        number = client.execute("channel.send(1)\nwhile True: pass")
        client.receive(number)
        self.assertEqual(client.status(), status(1))


if __name__ == "__main__":
    unittest.main()
