"""Processes that are started here for others: what they say, how they end, what they leave."""

import os

from .system import allocate_lock, native, portable, signal, start_thread

PIECE_SIZE = 64 * 1024
TAIL = 4096  # bytes of a process's stderr that are kept for error messages
GUARD = b"execnet-guard"  # the name of a guard's process


class StderrTail(object):
    """What a process says on its stderr: the last of it is kept, and all is passed on once it serves. One thread."""

    def __init__(self, name, pipe):
        self._pipe = pipe
        self._lock = allocate_lock()
        self._tail = self._unsaid = b""
        self._serves = False
        self._thread = start_thread(name, self._copy)

    def _copy(self):
        while True:
            said = os.read(self._pipe.fileno(), TAIL)
            if not said:
                return self._pipe.close()
            with self._lock:
                self._tail = (self._tail + said)[-4 * TAIL :]
                self._unsaid = (self._unsaid + said)[-PIECE_SIZE:]
            if self._serves:
                self._pass_on()

    def pass_on(self):
        if not self._serves:
            self._serves = True
            self._pass_on()

    def _pass_on(self):
        with self._lock:
            try:
                os.write(2, self._unsaid)
            except EnvironmentError:
                pass  # nobody is there to read it
            self._unsaid = b""

    def after(self, how):
        """How the process has ended, and the last that it has said."""
        self._thread.join(0.1)
        crash = self._tail.rfind(b"Fatal Python error: ")  # what follows is shown, else the end
        said = self._tail[max(0, crash - 512) :][:TAIL] if crash >= 0 else self._tail[-TAIL:]
        return (how + "\n" + native(portable(said))).rstrip("\r\n")


def describe_end(code):
    if code == 0 and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        return "exit status unknown"  # the kernel has collected it; Popen takes that for 0
    return "exit status %d" % code if code >= 0 else "killed by " + signal_name(-code)


def signal_name(number):
    for name in dir(signal):
        if name.startswith("SIG") and name[3] != "_" and getattr(signal, name) == number:
            return name
    return "signal %d" % number


def parent_and_start(pid):
    """Of a process: number and start together are its own. Throws EnvironmentError where there is none, or no /proc."""
    with open("/proc/%d/stat" % pid, "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    return int(fields[1]), fields[19]


def ancestry(pid, ancestor):
    """What parent_and_start() says of a process and those above it, up to that one; None if it is not there."""
    line = []
    try:
        while pid > 1 and len(line) < 64:
            line.append((pid, parent_and_start(pid)))
            if pid == ancestor:
                return line
            pid = line[-1][1][0]
    except EnvironmentError:
        pass  # it has just ended
    return None


def proc_is_ours():
    """Whether the numbers in /proc are those of this process's PID namespace.

    Its own entry has a number for each namespace from that of /proc down to its own.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            words = dict((line.split(b":")[0], line.split()[1:]) for line in status.read().splitlines() if b":" in line)
    except EnvironmentError:
        return False  # there is none, or no entry for us in it
    own = [str(os.getpid()).encode("ascii")]
    return words.get(b"Pid") == own == words.get(b"NSpid", own)


def children_of_all():
    """The process table: parent -> list of children; empty without a /proc that has our numbers."""
    children = {}
    for name in os.listdir("/proc") if proc_is_ours() else ():
        if name.isdigit():
            try:
                parent, _ = parent_and_start(int(name))
            except EnvironmentError:
                continue  # it has just ended
            children.setdefault(parent, []).append(int(name))
    return children


def is_detached(pid, sessions):
    """Whether a process is in none of these sessions, and no guard. False if nobody tells: then it is killed."""
    try:
        if os.getsid(pid) in sessions:
            return False
        with open("/proc/%d/comm" % pid, "rb") as name:
            return name.read().strip() != GUARD
    except EnvironmentError:
        return False


def kill_tree(pid, keep_detached=False):
    """The process, and what /proc shows to be under it; without that, the process itself.

    What is detached, and to be kept, is in another session than this process and that one.
    """
    try:
        children = children_of_all()
        sessions = (os.getsid(0), os.getsid(pid))
    except EnvironmentError:
        children = {}  # no descriptor is left, or it has just ended
    doomed = [pid]
    for one in doomed:
        doomed += [
            child for child in children.get(one, []) if not (keep_detached and is_detached(child, sessions))
        ]
    for one in doomed:
        try:
            os.kill(one, signal.SIGKILL)
        except EnvironmentError:
            pass  # it has just ended
