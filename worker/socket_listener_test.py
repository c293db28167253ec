"""Tests of the listener for `socket//installvia=`, by pytest or on its own: python worker/socket_listener_test.py

They run under every interpreter that a worker runs under, 2.7 and 3.6 included.
"""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import errno
import os
import socket
import subprocess
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
LINUX = sys.platform.startswith("linux")
PATIENCE = 20  # seconds after which a test has failed
TOKEN = b"0123456789abcdef0123456789abcdef"
STARTED = [b"sh", b"-c", b"echo started; exec cat 2>&-"]

with open(os.path.join(HERE, "socket_listener.py"), "rb") as file:
    SOURCE = file.read()


class FakeChannel(object):
    """Keeps what is sent, and knows when something has been."""

    def __init__(self):
        self.sent, self.closed = [], False
        self._changed = threading.Condition()

    def send(self, item):
        with self._changed:
            self.sent.append(item)
            self._changed.notify()

    def isclosed(self):
        return self.closed

    def receive(self):
        with self._changed:
            if not self.sent:
                self._changed.wait(PATIENCE)
            return self.sent.pop(0)


# Keeps some connections open and closes the oldest.
NEIGHBOUR = """
import collections, socket, struct, sys
latest = collections.deque()
while True:
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.connect_ex(("127.0.0.1", int(sys.argv[1])))
    latest.append(connection)
    if len(latest) > 100:
        latest.popleft().close()
"""


class Listening(unittest.TestCase):
    """A listener in a thread, and a coordinator's socket that has its address already."""

    def setUp(self):
        watchdog = threading.Timer(60, os._exit, (3,))  # nothing here may wait for ever
        watchdog.daemon = True
        watchdog.start()
        self.addCleanup(watchdog.cancel)
        self.listener = {"__name__": "socket_listener"}
        exec(compile(SOURCE, "socket_listener.py", "exec"), self.listener)
        self.channel = FakeChannel()

    def without_filter(self):
        """As where there is none."""
        self.listener["ATTACH_FILTER"] = 9999

    def listen(self, host=u"127.0.0.1", seconds=PATIENCE):
        self.own = self.bound(host)
        self.thread = threading.Thread(target=self._run, args=(seconds,))
        self.thread.daemon = True
        self.error = None
        self.thread.start()
        port, self.place = self.channel.receive()
        self.address = host, port

    def _run(self, seconds):
        try:
            self.listener["listen"](self.channel, self.address_of(self.own), TOKEN, STARTED, {b"A": b"b"}, seconds)
        except Exception:
            self.error = sys.exc_info()[1]
        finally:
            self.channel.send(None)

    @staticmethod
    def address_of(stream):
        return stream.getsockname()[:2]

    def bound(self, host, port=0):
        stream = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.addCleanup(stream.close)
        stream.settimeout(PATIENCE)
        stream.bind((host, port))
        return stream

    def start(self):
        """Connects as the coordinator does."""
        self.own.connect(self.address)
        self.own.sendall(TOKEN)
        pid = self.channel.receive()
        self.assertIsInstance(pid, int, self.error)
        self.assertEqual(self.own.recv(100), b"started\n")
        self.own.sendall(b"hello")
        self.assertEqual(self.own.recv(100), b"hello")

    def is_refused(self, text):
        self.assertIsNone(self.channel.receive())
        self.assertIn(text, str(self.error))

    def is_kept_out(self, stream):
        """Its connection is not made, or closed before anything is said."""
        stream.settimeout(0.3)
        try:
            stream.connect(self.address)
            self.assertEqual(stream.recv(1), b"")
        except socket.timeout:
            return "waits"
        except EnvironmentError as error:
            self.assertEqual(error.errno, errno.ECONNRESET)
        return "closed"


class Starting(Listening):
    def test_who_has_the_address_and_the_token_is_served(self):
        self.listen()
        self.assertEqual(self.place, self.listener["place"]())
        self.start()

    def start_over_ipv6(self):
        try:
            self.bound("::1")
        except EnvironmentError:
            self.skipTest("there is no IPv6")
        self.listen(u"::1")
        outcome = self.is_kept_out(self.bound("::1"))
        self.start()
        return outcome

    def test_so_it_is_where_there_is_only_ipv6(self):
        self.assertEqual(self.start_over_ipv6(), "waits" if LINUX else "closed")

    def test_and_there_is_no_filter(self):
        self.without_filter()
        self.assertEqual(self.start_over_ipv6(), "closed")

    def test_a_token_is_taken_in_pieces(self):
        self.listen()
        self.own.connect(self.address)
        self.own.sendall(TOKEN[:5])
        self.own.sendall(TOKEN[5:])
        self.assertIsInstance(self.channel.receive(), int)

    def test_another_token_starts_nothing(self):
        self.listen()
        self.own.connect(self.address)
        self.own.sendall(TOKEN[:-1] + b"x")
        self.is_refused("has not said the token")

    def test_half_a_token_starts_nothing(self):
        self.listen()
        self.own.connect(self.address)
        self.own.sendall(TOKEN[:5])
        self.own.shutdown(socket.SHUT_WR)
        self.is_refused("has not said the token")

    def test_it_ends_when_nobody_comes(self):
        self.listen(seconds=0.3)
        self.is_refused("nobody has said the token within 0.3 seconds")

    def test_it_ends_when_nobody_speaks(self):
        self.listen(seconds=0.5)
        self.own.connect(self.address)
        self.is_refused("nobody has said the token within 0.5 seconds")

    def test_it_ends_when_nobody_wants_the_worker(self):
        self.listen()
        self.channel.closed = True
        self.is_refused("nobody")


class Neighbours(Listening):
    @unittest.skipUnless(LINUX, "there is no filter")
    def test_the_kernel_keeps_out_who_has_another_port_or_another_host(self):
        self.listen()
        self.assertEqual(self.is_kept_out(self.bound("127.0.0.1")), "waits")
        self.assertEqual(self.is_kept_out(self.bound("127.0.0.2", self.address_of(self.own)[1])), "waits")
        self.start()

    def test_without_the_kernel_he_is_closed(self):
        self.without_filter()
        self.listen()
        self.assertEqual(self.is_kept_out(self.bound("127.0.0.1")), "closed")
        if LINUX:
            self.assertEqual(self.is_kept_out(self.bound("127.0.0.2", self.address_of(self.own)[1])), "closed")
        self.start()

    def start_among_neighbours(self):
        self.listen()
        for _ in range(4):
            neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(self.address[1])])
            self.addCleanup(neighbour.wait)
            self.addCleanup(neighbour.kill)
        time.sleep(0.3)  # they have filled the queue by then, if they can
        self.start()

    def test_those_who_connect_without_end_hold_nobody_up(self):
        self.start_among_neighbours()

    def test_nor_do_they_where_the_kernel_does_not_keep_them_out(self):
        self.without_filter()
        self.start_among_neighbours()


if __name__ == "__main__":
    unittest.main()
