"""The worker's own guard."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import errno
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
        return worker["Guard"](child, None, None)

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
            guard = worker["Guard"](None, None, None)
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

    def run_guard(self, refuse):
        """Has a guard see to a process, and to an orphan of it in a session of its own, while `refuse()` has changed
        what calls come to. Returns the guard's status, when all of them are gone, and what it has said."""
        said, complaint = os.pipe()
        held, hold = os.pipe()
        stream, end = os.pipe()
        guard = os.fork()
        if guard == 0:
            try:
                os.close(held)
                os.close(end)
                worker["prctl"](worker["PR_SET_CHILD_SUBREAPER"], 1)
                ready, say = os.pipe()
                child = os.fork()
                if child == 0:
                    middle = os.fork()
                    if middle == 0:
                        if os.fork() == 0:
                            os.setsid()
                            os.write(say, b"x")
                            time.sleep(1000)
                        os._exit(0)
                    os.waitpid(middle, 0)
                    time.sleep(1000)
                os.read(ready, 1)
                alive, keep = os.pipe()
                os.dup2(complaint, 2)
                refuse()
                worker["Guard"](child, None, None).run({stream: 0.3}, keep)
            finally:
                os._exit(99)
        os.close(hold)
        os.close(stream)
        os.close(complaint)
        self.addCleanup(os.close, held)
        self.addCleanup(os.close, said)
        os.close(end)
        self.assertEqual(select.select([held], [], [], PATIENCE)[0], [held], "something is left")
        self.assertEqual(os.read(held, 1), b"")
        return os.waitpid(guard, 0)[1], os.read(said, 1000)

    @unittest.skipUnless(sys.platform.startswith("linux"), "there is no prctl()")
    def test_whatever_fails_in_a_guard_it_kills_all_and_ends(self):
        def fails(number, *names):
            def fail(*_):
                raise OSError(number, os.strerror(number))

            def refuse():
                for name in names:
                    setattr(os, name, fail)

            return refuse

        class NoPoll(object):
            def __init__(self, number):
                self.register = lambda *_: None
                self.number = number

            def poll(self, *_):
                raise select.error(self.number, os.strerror(self.number))

        def no_poll(number):
            return lambda: setattr(select, "poll", lambda: NoPoll(number))

        def no_proc():
            worker["proc_is_ours"] = lambda: False

        for refuse in (
            [lambda: None, no_proc]
            + [no_poll(number) for number in (errno.EPERM, errno.EINVAL, errno.EINTR, errno.ENOSYS)]
            + [fails(number, "waitpid") for number in (errno.EPERM, errno.EINTR, errno.ENOSYS)]
            + [fails(errno.EMFILE, "pipe"), fails(errno.EPERM, "read"), fails(errno.EMFILE, "listdir")]
        ):
            self.assertIn(self.run_guard(refuse)[0], (signal.SIGKILL, 1 << 8))
        complaint = self.run_guard(fails(errno.EMFILE, "pipe"))[1]
        self.assertIn(b"what guards it cannot watch: [Errno 24] Too many open files", complaint)

    @unittest.skipUnless(sys.platform.startswith("linux"), "there are no PID namespaces")
    def test_strangers_with_numbers_of_another_namespace_survive(self):
        self.assertEqual(in_strange_namespace(strangers_survive), "")


def in_strange_namespace(code):
    """What it returns in the first process of a new PID namespace, whose /proc is that of this one."""
    result, say = os.pipe()
    outer = os.fork()
    if outer == 0:
        try:
            import ctypes

            library = ctypes.CDLL(None, use_errno=True)
            CLONE_NEWPID = 0x20000000
            if library.unshare(CLONE_NEWPID) != 0:
                os.write(say, ("skipped: no PID namespace: " + os.strerror(ctypes.get_errno())).encode())
                os._exit(0)
            inner = os.fork()
            if inner:
                os.waitpid(inner, 0)
                os._exit(0)
            os.write(say, code().encode())
        except BaseException:
            os.write(say, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(say)
    said = b""
    for piece in iter(lambda: os.read(result, 4096), b""):
        said += piece
    os.close(result)
    os.waitpid(outer, 0)
    said = said.decode()
    if said.startswith("skipped: "):
        raise unittest.SkipTest(said)
    return said


def strangers_survive():
    """A guard whose number is there that of our parent, of which we are a child: what has our number is no child of
    the guard."""
    with open("/proc/self/status") as status:
        there = dict(line.split(":", 1) for line in status)
    guard_number, stranger_number = int(there["PPid"]), int(there["Pid"])
    go, say = os.pipe()
    guard = fork_as(guard_number)
    if guard == 0:
        child = os.fork()
        if child == 0:
            while True:
                signal.pause()
        os.read(go, 1)
        worker["Guard"](child, None, None)._kill_all()
        os._exit(0)
    stranger = fork_as(stranger_number)
    if stranger == 0:
        while True:
            signal.pause()
    if (guard, stranger) != (guard_number, stranger_number):
        return "skipped: numbers of processes cannot be chosen"
    os.write(say, b"x")
    os.waitpid(guard, 0)
    return "" if os.waitpid(stranger, os.WNOHANG) == (0, 0) else "a stranger was killed"


def fork_as(number):
    try:
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(number - 1))
    except EnvironmentError:
        pass  # then it has another one
    return os.fork()


if __name__ == "__main__":
    unittest.main()
