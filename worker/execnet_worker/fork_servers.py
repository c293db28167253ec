"""Warm interpreters that fork workers for gateways that go through this one. In them runs fork_server.py."""

import errno
import itertools
import os
import struct
import sys
import time

from .imports import INSTALLED
from .locks import acquire_until
from .processes import StderrTail, ancestry, describe_end, kill_tree, proc_is_ours
from .system import LINUX, PY3, allocate_lock, now

FORK, COLLECT, KILL = 1, 2, 3  # what fork_server.py is asked for, and says
READY, FORKED = 1, 2
SYS_PIDFD_OPEN = 434
NO_PIDFDS = (errno.ENOSYS, errno.EPERM, errno.EACCES)  # by an old kernel, a sandbox, a filter
WANT = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)  # of memory; nothing was sent then
fork_servers = {}  # (arguments, environment, directory, whether what is detached is kept) -> ForkServer
fork_servers_lock = allocate_lock()


class ForkError(Exception):
    """Why there is no worker of a fork server, or none any more."""


def fork_server(argv, env, sources, keep_detached):
    """The one that fits, or a new one."""
    if not PY3 or not LINUX:
        raise ForkError("preload needs Python 3, and this is Python %s on %s" % (sys.version.split()[0], sys.platform))
    key = (tuple(argv), tuple(sorted(env.items())), os.getcwd(), keep_detached)
    with fork_servers_lock:
        server = fork_servers.get(key)
        if server is None or server.is_over():
            check_pidfds()
            server = fork_servers[key] = ForkServer(argv, env, sources, keep_detached)
        return server


def pidfd_open(pid):
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    with INSTALLED:  # before 3.9
        import ctypes
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_OPEN, pid, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_open")
    return fd


def check_pidfds():
    """A native proxy does without, since its fork servers tell it of the ends of workers."""
    try:
        os.close(pidfd_open(os.getpid()))
    except EnvironmentError as error:
        if error.errno in NO_PIDFDS:
            raise ForkError("preload behind a pure proxy needs pidfds, and pidfd_open has failed: %s" % error)


class ForkServer(object):
    """An interpreter that forks workers for this proxy; src/gateway/fork_server.hpp is the same for a native one.

    One request at a time: who asks reads the answer.
    """

    def __init__(self, argv, env, sources, keep_detached):
        with INSTALLED:
            import select
            import socket
            import subprocess
        self.select, self._socket = select, socket
        self.keep_detached = keep_detached
        self._turn = allocate_lock()  # to ask
        self._lock = allocate_lock()  # guards what follows
        self._awaited = 0  # by so many, until it is ready
        self._numbers = itertools.count(1)
        self._ready = False
        self._how = None  # it ended
        self.control, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    argv, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env
                )
            try:
                self._stderr = StderrTail("fork server", self._process.stderr)
            except Exception:  # for want of a thread
                kill_tree(self._process.pid)
                self._process.wait()
                self._process.stderr.close()
                raise
        except Exception:
            self.control.close()
            raise
        try:
            self.control.sendall(sources)
        except EnvironmentError:
            pass  # it has ended

    def has_started(self, pid):
        """Whether the process of that number, which has a pidfd already, comes from it: as descent.hpp finds it out."""
        line = ancestry(pid, self._process.pid)
        same = line is not None and line == ancestry(pid, self._process.pid)
        return same and self._process.returncode is None  # not collected: its number is nobody else's

    def is_over(self):
        end = self.select.poll()
        end.register(self.control, 0)
        return bool(self._how or end.poll(0))

    def fork(self, stream, state):
        """A worker with that stream, if the channel of that state is still there by then. Throws ForkError."""
        with self._lock:
            number = next(self._numbers)
            self._awaited += 1
        try:
            read, write = os.pipe()
        except EnvironmentError:
            self.give_up()
            raise
        stderr = os.fdopen(read, "rb", 0)
        try:
            descriptors = struct.pack("=4i", stream.fileno(), write, write, write)
            rights = [(self._socket.SOL_SOCKET, self._socket.SCM_RIGHTS, descriptors)]
            kind, value, text = self._ask(FORK, number, rights, wanted=lambda: not state.no_more_items)
            if kind != FORKED:
                raise ForkError("its fork server has not started it: " + text)
            try:
                return ForkedProcess(self, number, value, stderr)
            except Exception:  # for want of a descriptor to watch it by
                self._ask(KILL, number)
                raise
        except Exception as error:
            stderr.close()
            if isinstance(error, ForkError) and self._how:
                raise ForkError(self._stderr.after(str(error)))
            raise
        finally:
            os.close(write)

    def give_up(self):
        """One less waits for it. One that nobody waits for, and that still imports, is ended: it may do so for ever."""
        with self._lock:
            self._awaited -= 1
            if self._awaited or self._ready or self._process.poll() is not None:
                return
        kill_tree(self._process.pid)

    def collect(self, number):
        """How a worker has ended, which it has, as Popen.wait() says it. Throws ForkError."""
        answer = self._ask(COLLECT, number, deadline=now() + 0.5)
        if answer is None:
            raise ForkError("exit status unknown: its fork server does not answer")
        status = answer[1]
        if status < 0:
            raise ForkError("exit status unknown")
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def _ask(self, kind, number, rights=(), wanted=None, deadline=None):
        """Kind, value and text of the answer; None if there is none by the deadline. Throws ForkError."""
        if not acquire_until(self._turn, deadline):
            return None
        try:
            if not self._ready and wanted():
                self._wait_ready()
            if wanted is not None and not wanted():
                raise ForkError("it was given up before it was forked")
            try:
                self.control.sendmsg([struct.pack("=II", kind, number)], rights)
            except EnvironmentError as error:
                if error.errno not in WANT:
                    raise
                raise ForkError("its fork server cannot be asked for it: " + os.strerror(error.errno))
            while True:
                self.control.settimeout(deadline and max(0.001, deadline - now()))
                answer, its_number, value, text = self._read()
                if its_number == number:  # else somebody has not waited for it
                    return answer, value, text
        except self._socket.timeout:
            return None
        except EnvironmentError:
            raise ForkError(self._end())
        finally:
            self._turn.release()

    def _wait_ready(self):
        _, _, _, namespace = self._read()
        if namespace != os.readlink("/proc/self/ns/pid"):
            self._how = "it runs in another PID namespace, where its workers cannot be seen to: leave out preload"
            kill_tree(self._process.pid)
            raise ForkError(self._end())
        self._ready = True
        self._stderr.pass_on()

    def _read(self):
        kind, number, value, length = struct.unpack("=IIiI", self._receive(16))
        return kind, number, value, self._receive(length).decode("utf-8", "replace")

    def _receive(self, size):
        data = b""
        while len(data) < size:
            more = self.control.recv(size - len(data))
            if not more:
                raise EnvironmentError("it is gone")
            data += more
        return data

    def _end(self):
        """How it has ended. It has closed its socket."""
        deadline = now() + 0.5
        while self._process.poll() is None and now() < deadline:
            time.sleep(0.005)
        if self._process.poll() is None:
            kill_tree(self._process.pid, self.keep_detached)
        code = self._process.wait()
        self._how = self._how or "its fork server has ended: " + describe_end(code)
        return self._how


class ForkedProcess(object):
    """A worker of a fork server, with what OpenedProcess uses of a Popen.

    It is a zombie until its fork server collects it: when its pidfd says that it has ended. Its number is a word of the
    fork server's, in which code of others has run: who is no child of that one is nobody to be signalled. Where that
    cannot be found out `pid` is None, and it ends with its stream. Throws ForkError.
    """

    def __init__(self, server, number, pid, stderr):
        self._server, self._number = server, number
        self.pid, self.stderr = pid, stderr
        try:
            self._pidfd = pidfd_open(pid)
        except (EnvironmentError, OverflowError) as error:
            raise ForkError("it cannot be watched: pidfd_open: %s" % error)
        if not proc_is_ours():
            self.pid = None
        elif not server.has_started(pid):
            os.close(self._pidfd)
            raise ForkError("its fork server has named process %d, which it has not started" % pid)

    def wait(self):
        ends = self._server.select.poll()
        ends.register(self._pidfd, self._server.select.POLLIN)
        ends.register(self._server.control, 0)
        if self._pidfd not in dict(ends.poll()):  # its fork server is gone
            if self.pid is not None:
                kill_tree(self.pid, self._server.keep_detached)
            ends.unregister(self._server.control)
            ends.poll()
        os.close(self._pidfd)
        return self._server.collect(self._number)
