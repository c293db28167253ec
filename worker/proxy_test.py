"""Processes that are started for gateways that go through the worker, and fork servers."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import sys
import textwrap
import unittest

from worker_client import CLOSE, CLOSE_ERROR, DATA, LAST, OPEN, PY3, LiveTest, dump, load, worker


def opening(argv, env, sources=None):
    return [word.encode("ascii") for word in argv], env, True, True, sources, 1000, False


class Proxies(LiveTest):
    def setUp(self):
        LiveTest.setUp(self)
        self.client = self.start()

    def open(self, *argv):
        number = self.client.new_id()
        self.client.send(OPEN, number, dump(opening(argv, {b"COLOUR": b"red"})))
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
        self.client.send(OPEN, number, dump(opening(argv, {}, b"sources")))
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

    def break_worker(self, source):
        """Runs that in the worker, up to where `broken()` is called, which lasts until mend()."""
        source = "def broken():\n    channel.send(None)\n    channel.receive()\n" + textwrap.dedent(source)
        self.broken = self.client.execute(source)
        self.assertIs(self.client.receive(self.broken), None)

    def mend(self):
        self.client.item(self.broken, None)
        self.client.closed(self.broken)

    def assert_lives_on(self):
        number = self.client.execute("""
            import os
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                channel.send("a child")
            except OSError:
                channel.send("no child")
            """)
        self.assertEqual(self.client.receive(number), "no child")
        self.client.closed(number)
        number = self.open("sh", "-c", "exit 3")
        self.assertEqual(self.client.error(number), "exit status 3")

    def test_an_open_that_gets_no_thread_is_answered(self):
        for threads in range(12):  # of an OPEN: itself, its stderr, output, input; at its end one more; and others'
            self.break_worker("""
                import threading
                try:
                    from _thread import error
                except ImportError:
                    from thread import error
                start, left = threading.Thread.start, [%d]
                def start_some(thread):
                    left[0] -= 1
                    if left[0] < 0:
                        raise error("can't start new thread")
                    start(thread)
                threading.Thread.start = start_some
                broken()
                threading.Thread.start = start
                """ % threads)
            number = self.open("sh", "-c", "echo up; exec sleep 1000")
            got = self.client.read()
            if got[0] == DATA:  # and even then there may be no thread for its input
                self.client.send(LAST, number)
                got = self.client.read()
            self.assertEqual(got[:2], (CLOSE_ERROR, number))
            self.client.send(CLOSE, number)
            error = load(got[2])
            if error != "killed by SIGKILL":
                self.assertEqual(error, "cannot start 'sh': can't start new thread")
            self.assertTrue(threads > 0 or error != "killed by SIGKILL")
            self.mend()
            self.assert_lives_on()
        self.assertEqual(error, "killed by SIGKILL")

    def test_an_open_that_gets_no_descriptor_is_answered(self):
        for descriptors in range(9):
            self.break_worker("""
                import os, resource, socket, subprocess
                limits = resource.getrlimit(resource.RLIMIT_NOFILE)
                taken = [os.dup(1)]
                resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 50, limits[1]))
                try:
                    while True:
                        taken.append(os.dup(1))
                except OSError:
                    pass
                for _ in range(%d):
                    os.close(taken.pop())
                broken()
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                while taken:
                    os.close(taken.pop())
                """ % descriptors)
            number = self.open("sh", "-c", "exit 3")
            error = self.client.error(number)
            if error != "exit status 3":
                self.assertEqual(error, "cannot start 'sh': Too many open files")
            self.mend()
            self.assert_lives_on()
        self.assertEqual(error, "exit status 3")

    def test_what_is_not_of_the_form_ends_the_worker(self):
        too_much = b"x" * (worker["MOST_SOURCES"] + 1)
        for request in (
            (),
            ([], {}, True, True, None, 0, False),
            ([b"true"], {}, False, True, None, 0, False),
            ([b"true"], {}, True, None, None, 0, False),
            ([b"true"], {}, True, True, None),
            ([b"true"], {}, True, True, None, 0.5, False),
            ([b"true"], {}, True, True, None, 0, None),
            ([b"true"], {}, True, True, too_much, 0, False),
        ):
            client = self.start()
            client.send(OPEN, client.new_id(), dump(request))
            self.assertIs(client.read(), None)
            self.assertIn("OPEN without", client.captured(client.err))


if __name__ == "__main__":
    unittest.main()
