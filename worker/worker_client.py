"""What the tests of the pure worker have in common: it, and a coordinator of the simplest kind."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import glob
import io
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
PY3 = sys.version_info[0] >= 3
PATIENCE = 20  # seconds after which a test has failed


def joined():
    """The modules as one source, which a build makes (cmake/JoinWorker.cmake): the newest there is."""
    newest = max(glob.glob(os.path.join(HERE, "execnet_worker", "*.py")), key=os.path.getmtime)
    found = glob.glob(os.path.join(HERE, "..", "build", "*", "worker.py"))
    if not found or os.path.getmtime(newest) > max(map(os.path.getmtime, found)):
        raise RuntimeError("there is no build/*/worker.py, or %s is newer: build, which joins them" % newest)
    return max(found, key=os.path.getmtime)


WORKER_FILE = joined()
with io.open(WORKER_FILE, "rb") as file:
    SOURCE = file.read()
worker = {"__name__": "execnet_worker"}
exec(compile(SOURCE, "worker.py", "exec"), worker)
coordinator = {"__name__": "execnet_worker"}
exec(compile(SOURCE, "worker.py", "exec"), coordinator)
(HELLO, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST, TERMINATE, STATUS, RECONFIGURE, CREDIT, OPEN, WINDOW, RINGS, DEFLATED,
 PROBE, PASSED) = range(1, 17)
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
        u"stdin": u"inherit",
        u"stdout": u"inherit",
        u"stderr": u"inherit",
        u"grace": 1000,
        u"detached": u"kill",
        u"window": None,
        u"deflate": False,
        u"debug": 0,
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


def repr_of(value):
    """A text that is the same for equal values of equal types; sets and dicts have no order."""
    if isinstance(value, (list, tuple)):
        return "%s%s" % (type(value).__name__, [repr_of(item) for item in value])
    if isinstance(value, dict):
        return "dict%s" % sorted((repr_of(key), repr_of(item)) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return "%s%s" % (type(value).__name__, sorted(repr_of(item) for item in value))
    return repr(value).rstrip("L")


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
