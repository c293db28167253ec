"""What sees to it that nothing of a worker stays, where no program of ours runs."""

import errno
import os
import time

from .processes import GUARD, children_of_all, is_detached
from .system import LINUX, now, signal

MOMENT = 0.3  # seconds for a worker whose stream has ended, and for what a worker leaves behind, to end by itself
MOST_INTERRUPTIONS = 1000  # one after the other; more are an error that is there to stay
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 4, 15, 36
POLLRDHUP = 0x2000 if LINUX else 0


def prctl(option, value):
    """Whether this is a Linux whose C library can be called, and agrees."""
    if not LINUX:
        return False
    try:
        import ctypes

        return ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0
    except Exception:
        return False


def fork_under_guard(stream_fd, grace, keep_detached):
    """Returns in a child of a child, as the worker. The two processes above see to it that nothing of it stays.

    When the stream ends, everything has so many seconds more. If what is detached is kept, they leave alone what is in
    a session of its own by the time that the worker ends.

    Where no program of ours runs, that is over ssh, behind a pure proxy and at a socket server. It is what
    guard/guard.cpp is elsewhere: both adopt what the worker leaves behind, either notices when the other one is killed,
    and when the stream ends so do all, even if the worker is in C code and keeps the interpreter's lock.

    Children are found in /proc. Where there is none, or one of another PID namespace, whose numbers are those of
    strangers here, the kernel is asked about each number that there may be.

    Where nothing can be adopted, for want of prctl(), the worker and what it starts are a process group of their own,
    to which the keyboard's signals do not come, and are killed as one; what leaves the group stays. Its number is the
    inner guard's, which is not in it: so it cannot be a stranger's as long as that one is there.
    """
    if not hasattr(os, "fork"):
        return
    sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, the kernel collects our children
    session = os.getsid(0) if keep_detached else None
    above = None  # a pipe that ends with the process above
    for inner in (False, True):
        guard, outside, adopts = os.getpid(), os.getpgrp(), prctl(PR_SET_CHILD_SUBREAPER, 1)
        if not adopts:
            set_group(0)
        alive, keep = os.pipe()
        child = os.fork()
        if child:
            # Out of the worker's group, to survive `kill -9 -GROUP`, and of its session: guard.cpp tells why.
            if adopts:
                leave_session()
            else:
                set_group(outside if inner else 0)
            group = None if adopts else guard if inner else child
            prctl(PR_SET_NAME, GUARD)
            ends = {stream_fd: MOMENT + grace}
            if inner:
                ends[above] = MOMENT
            else:
                ends[stream_fd] += MOMENT  # the inner one comes first: it knows the worker's own session
            Guard(child, group, session).run(ends, keep)
        os.close(keep)
        if above is not None:
            os.close(above)
        above = alive
    os.close(above)
    signal.signal(signal.SIGCHLD, sigchld)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)


def close_if_open(fd):
    try:
        os.close(fd)
    except EnvironmentError:
        pass


def highest_number():
    """Of processes."""
    try:
        with open("/proc/sys/kernel/pid_max") as limit:
            return int(limit.read())
    except EnvironmentError:
        return 4 * 1024 * 1024


def leave_session():
    try:
        os.setsid()
    except EnvironmentError:
        pass  # leads it, or its group


def set_group(number):
    try:
        os.setpgid(0, number)
    except EnvironmentError:
        pass  # leads a session


class Guard(object):
    """One of the two; `group` is the number of the worker's process group where that is killed, else None. `session` is
    that in which the worker was started, if what is in another one is kept, else None.

    A guard that cannot watch guards nobody: whatever fails in it, for want of memory or since a filter of system calls
    refuses it, it kills all that it guards, and ends. It tries nothing again without an end.
    """

    def __init__(self, child, group, session):
        self._child, self._group, self._session = child, group, session
        self._status = None
        self._signals = []  # that came, to be passed on

    def run(self, ends, keep):
        """Watches until the child ends, or so many seconds after one of the descriptors `ends` does. `keep` stays open.
        Does not return."""
        try:
            try:
                self._watch(ends, *self._equip(ends, keep))
            except EnvironmentError as error:
                os.write(2, ("execnet worker: what guards it cannot watch: %s\n" % error).encode("utf-8"))
                raise
            finally:
                self._kill_all()
        except BaseException:
            pass
        try:
            self._end_like_child()
        finally:
            os._exit(1)

    def _equip(self, ends, keep):
        """A poll object, and the descriptor in it that says that there is a signal."""
        import fcntl
        import select

        for fd in range(256):
            if fd not in ends and fd not in (2, keep):
                close_if_open(fd)  # nobody is to wait for the end of what we hold
        wakeup, wake = os.pipe()
        fcntl.fcntl(wakeup, fcntl.F_SETFL, os.O_NONBLOCK)
        fcntl.fcntl(wake, fcntl.F_SETFL, os.O_NONBLOCK)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: self._signals.append(number))
        self._error = select.error
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        for fd in ends:
            poll.register(fd, POLLRDHUP)
        close_if_open(2)  # it was for a complaint
        return poll, wakeup

    def _watch(self, ends, poll, wakeup):
        """Until it is time to kill all that is left."""
        deadline = float("inf")
        interruptions = 0
        while self._collect(os.WNOHANG) or self._group_is_left():
            self._pass_on()
            if self._status is not None:
                deadline = min(deadline, now() + MOMENT)
            left = deadline - now()
            if left <= 0:
                return
            if self._status is not None and self._group is not None:
                left = min(left, 0.02)  # nobody tells when the group is empty
            try:
                ready = poll.poll(None if left == float("inf") else int(left * 1000) + 1)
            except (EnvironmentError, self._error) as error:
                interruptions += 1
                if error.args[0] != errno.EINTR or interruptions > MOST_INTERRUPTIONS:
                    return
                ready = ()  # a signal
            else:
                interruptions = 0
            for fd, _ in ready:
                if fd == wakeup:
                    os.read(fd, 512)
                else:
                    poll.unregister(fd)
                    deadline = min(deadline, now() + ends[fd])

    def _pass_on(self):
        while self._signals:
            number = self._signals.pop(0)
            if self._status is None:
                os.kill(self._child, number)

    def _collect(self, options):
        """Whether there are children left. Raises EnvironmentError if that cannot be known."""
        interruptions = 0
        while True:
            try:
                pid, status = os.waitpid(-1, options)
            except EnvironmentError as error:
                interruptions += 1
                if error.errno == errno.ECHILD:
                    return False
                if error.errno != errno.EINTR or interruptions > MOST_INTERRUPTIONS:
                    raise
                continue
            if pid == 0:
                return True
            if pid == self._child:
                self._status = status
            options = os.WNOHANG

    def _group_is_left(self):
        try:
            if self._group == os.getpid():
                os.killpg(self._group, 0)
                return True
        except EnvironmentError:
            pass
        return False

    def _kill_all(self):
        """Again and again: who dies leaves his children to us. Gives up when nothing has come of it for a second."""
        fruitless = 0
        while fruitless < 100:
            killed = 0
            for kill, target in self._targets():
                try:
                    kill(target, signal.SIGKILL)
                    killed += 1
                except EnvironmentError:
                    pass  # it has just ended, or runs as somebody else
            try:
                if not killed or not self._collect(0):
                    return
            except EnvironmentError:
                fruitless += 1
                time.sleep(0.01)

    def _targets(self):
        """What to kill: none of them has been collected, so that no number is a stranger's."""
        child = [(os.kill, self._child)] if self._status is None else []
        if self._group is None:
            return [(os.kill, pid) for pid in self._children() if not self._is_kept(pid)] or child
        return [(os.killpg, self._group)] + child if child or self._group == os.getpid() else []

    def _is_kept(self, pid):
        """Not one that is in a session of the worker: where it was started, or one that it has made for itself."""
        return self._session is not None and pid != self._child and is_detached(pid, (self._session, self._child))

    def _children(self):
        """Their numbers, from /proc; where that shows none, by asking about all numbers that there may be."""
        try:
            listed = children_of_all().get(os.getpid(), ())
        except EnvironmentError:  # for want of a descriptor, say
            listed = ()
        try:
            if listed or not self._collect(os.WNOHANG):
                return listed
            recent = range(os.getpid(), os.getpid() + 65536)
            return [pid for pid in recent if self._is_child(pid)] or [
                pid for pid in range(1, highest_number() + 1) if self._is_child(pid)
            ]
        except EnvironmentError:  # the kernel refuses to say
            return listed

    def _is_child(self, pid):
        """Whether it is one that has not been collected. Raises EnvironmentError if that cannot be known."""
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except EnvironmentError as error:
            if error.errno != errno.ECHILD:
                raise
            return False
        if ended == self._child:
            self._status = status
        return ended == 0

    def _end_like_child(self):
        status = self._status
        if status is None:
            os._exit(1)  # it was killed, which nobody could see
        if os.WIFEXITED(status):
            os._exit(os.WEXITSTATUS(status))
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # there is one of the child's already
        prctl(PR_SET_DUMPABLE, 0)  # a core that is piped to a program knows no limit: core(5)
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(128 + number)
