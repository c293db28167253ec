"""The worker's own guard."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import functools
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import unittest

from worker_client import PATIENCE, LiveTest, worker


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


if __name__ == "__main__":
    unittest.main()
