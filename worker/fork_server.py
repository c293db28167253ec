"""The fork server: a warm interpreter that has imported some modules and forks a worker whenever it is asked to.

The coordinator (src/gateway/fork_server.cpp) sends this source to an interpreter that it has
started for it, which then runs `fork_workers(modules, grace, load)` and, in each worker, `run(serve, leave)`.
Both are called from the one line on the command line, so that a worker has as little below it on its stack as
one that was started fresh. Python 3, standard library only.

For native workers `load` loads the extension, which forks them and talks to the coordinator while the interpreter
rests (src/gateway/fork_requests.cpp): each page that is written to after a fork is copied, and Python writes
to many. For pure ones Python does it, in answer_requests(). tests/vectors/forks.txt keeps the two alike.

Descriptor 0 is a unix stream socket to the coordinator; it becomes 3. Descriptor 4 is the coordinator's stderr. What
comes is REQUEST: what is wanted, and a number. FORK has four descriptors with it: the stream of the
worker, its stderr until it is up, its stdout, and the coordinator's stderr. KILL kills the worker of that
number and collects it, as COLLECT does one that has ended. Each has one ANSWER, in order:
kind, number, value, and the length of a text that follows. A worker that has ended stays a zombie until it
is to be collected: so its pid, which the coordinator has its pidfd of, cannot become another process's. A coordinator
that can have no pidfds sends WATCH, which has no answer in order: when that worker has ended, GONE has its status.

There is one thread. Everything is undone, before the first fork, that importing the modules has done to
the process (not: to the interpreter), as docs/forkserver.md says.
"""

import _signal
import _thread
import atexit
import gc
import os
import stat
import sys
import threading  # workers want it, too, and it has to know the main thread
import time
import warnings

CONTROL, STDERR = 3, 4
STREAM = 3  # in a worker, in the place of CONTROL
FORK, COLLECT, KILL, WATCH = 1, 2, 3, 4
READY, FORKED, REFUSED, ENDED, GONE = 1, 2, 3, 4, 5
REQUEST = "=II"
ANSWER = "=IIiI"
MOST_TEXT = 4096  # bytes
LOOK = 0.05  # seconds between two looks at workers that are to be watched
LOST_MOMENT = 0.1  # seconds, after which a worker whose coordinator is gone interrupts its code


class Process(object):
    """What a program may have changed of its process, as it was before the modules were imported."""

    def __init__(self):
        self.argv = list(sys.argv)
        self.environ = dict(os.environ)
        self.cwd = os.open(".", os.O_RDONLY)
        self.umask = os.umask(0o77)
        os.umask(self.umask)
        self.mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        self.handlers = dict((number, _signal.getsignal(number)) for number in range(1, _signal.NSIG))

    def restore(self):
        sys.argv[:] = self.argv
        if dict(os.environ) != self.environ:
            os.environ.clear()
            os.environ.update(self.environ)
        os.fchdir(self.cwd)
        os.close(self.cwd)
        os.umask(self.umask)
        _signal.set_wakeup_fd(-1)
        for timer in (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF):
            _signal.setitimer(timer, 0)
        for number, handler in self.handlers.items():
            if handler is not None and _signal.getsignal(number) != handler:
                _signal.signal(number, handler)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)


def fork_workers(modules, grace, load=None):
    """Imports the modules, then forks a worker for each request. Returns in the workers only, what load() gave.

    `grace`, in milliseconds, is for workers whose code was interrupted since the coordinator is gone.
    """
    native, its_handlers = None, 0
    take_stream()
    if load is None:
        import _socket  # noqa: F401 - for answer_requests(): while nothing can come from the working directory
        import select  # noqa: F401
        import struct  # noqa: F401
    else:
        before = atexit._ncallbacks()
        native = load()
        its_handlers = atexit._ncallbacks() - before  # they do nothing for a worker
    restore_working_directory()
    process = Process()
    for name in modules:
        preload(name)
    process.restore()
    if native is not None:
        native.prepare_to_fork(atexit._ncallbacks() > its_handlers)
    flush()
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()  # a collection in a worker would write to, and so copy, every page
    own = (
        (_signal.SIGINT, _signal.SIG_IGN),  # Ctrl-C is for the coordinator and the workers
        (_signal.SIGCHLD, _signal.SIG_DFL),  # else the kernel collects the workers
    )
    inherited = [(number, _signal.signal(number, handler)) for number, handler in own]
    os.dup2(STDERR, 2, inheritable=False)
    pids = native.answer_requests(CONTROL, why_not_to_fork) if native is not None else answer_requests()
    if pids is not None:
        end(pids, LOST_MOMENT + grace / 1000)
    become_worker(inherited)
    return native


def take_stream():
    """Moves the socket from descriptor 0 to CONTROL, unless it is there as well: then STDERR came along.

    Who has started this, or what stands before the interpreter, may pass on no more than the standard descriptors.
    """
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        sys.exit("preload needs the coordinator's socket as its standard input, and here a program relays that")
    try:
        came_along = os.path.sameopenfile(0, CONTROL) and os.fstat(STDERR) is not None
    except OSError:
        came_along = False
    if not came_along:
        for number in (CONTROL, STDERR):
            if is_of_this_interpreter(number):
                sys.exit(
                    "preload needs descriptor %d, and code at the start of Python, sitecustomize say, has taken it"
                    % number
                )
        os.dup2(0, CONTROL)
        os.dup2(2, STDERR)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def is_of_this_interpreter(descriptor):
    """Not those which it was started with: these are inheritable."""
    try:
        return not os.get_inheritable(descriptor)
    except OSError:
        return False


def restore_working_directory():
    """As imports.py of the worker does it."""
    only_at_start = os.environ.get("PYTHONSAFEPATH") == "execnet"
    if only_at_start:
        del os.environ["PYTHONSAFEPATH"]
    if not sys.flags.isolated and (only_at_start or not getattr(sys.flags, "safe_path", False)):
        sys.path.insert(0, "")


def answer_requests():
    """Until there are no more requests: returns the pids of the workers there are; or, in a worker, None."""
    import _socket
    import select
    import struct

    request = struct.Struct(REQUEST)

    def receive():
        data, descriptors = b"", ()
        while len(data) < request.size:
            while watched and not select.select([CONTROL], [], [], LOOK)[0]:
                tell_of_ends()
            more, ancillary, _, _ = control.recvmsg(request.size - len(data), _socket.CMSG_SPACE(4 * 4))
            if not more:
                return None
            data += more
            for _, _, passed in ancillary:
                descriptors = struct.unpack("=%di" % (len(passed) // 4), passed)
        return request.unpack(data) + (descriptors,)

    def say(kind, number=0, value=0, text=""):
        encoded = text.encode("utf-8", "replace")[:MOST_TEXT]
        control.sendall(struct.pack(ANSWER, kind, number, value, len(encoded)) + encoded)

    def tell_of_ends():
        for number in sorted(watched):
            ended, status = poll(workers.get(number, 0))
            if ended:
                watched.discard(number)
                if workers.pop(number, None) is not None:
                    say(GONE, number, status)

    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, CONTROL)
    workers = {}  # number of the request -> pid, until it is collected
    watched = set()  # of these numbers
    try:
        say(READY, text=pid_namespace())
        for wanted, number, descriptors in iter(receive, None):
            if wanted == WATCH:
                watched.add(number)
                continue
            if wanted != FORK:
                say(ENDED, number, collect(workers.pop(number, 0), wanted == KILL))
                continue
            # The kernel drops those for which it finds no room in this process.
            refusal = why_not_to_fork() if len(descriptors) == 4 else "it has no descriptors left"
            try:
                pid = -1 if refusal else fork()
            except OSError as error:
                refusal, pid = "it cannot fork: %s" % error, -1
            if pid == 0:
                control.detach()
                take_descriptors(descriptors)
                return None
            for descriptor in descriptors:
                os.close(descriptor)
            if refusal:
                say(REFUSED, number, text=refusal)
            elif pid < 0:  # code of the modules has put something else in the place of os.fork
                say(REFUSED, number, text="os.fork() has given %d" % pid)
            else:
                workers[number] = pid
                say(FORKED, number, pid)
    except OSError:
        pass  # the coordinator is gone
    return list(workers.values())


def fork():
    """os.fork() without its warning of threads that libraries have started. Where warnings are errors, Python 3.15
    raises that one in the parent, when the child is there already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def take_descriptors(descriptors):
    try:
        for index, number in enumerate((STREAM, 2, 1, STDERR)):
            os.dup2(descriptors[index], number)
            os.close(descriptors[index])
    except OSError as error:
        for its_stderr in (descriptors[1], 2):  # what it is before, and after it was taken
            try:
                os.write(its_stderr, ("execnet worker: %s\n" % error).encode("utf-8"))
                break
            except OSError:
                pass
        os._exit(1)


def preload(name):
    try:
        __import__(name.encode("utf-8", "surrogateescape").decode("utf-8"))
    except BaseException:  # SystemExit, too
        sys.path[:] = [entry for entry in sys.path if entry != ""]
        import traceback

        kind, error, trace = sys.exc_info()
        traceback.print_exception(kind, error, trace.tb_next)
        sys.stderr.write("execnet: the fork server cannot import %s, which preload= names\n" % name)
        flush()
        os._exit(1)


def pid_namespace():
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def why_not_to_fork():
    """Threads of Python, if there are any: what they hold would stay locked in the worker."""
    main = threading.main_thread()
    names = [repr(thread.name) for thread in threading.enumerate() if thread is not main]
    # The first knows of threads of C code that has called Python, the second of such as run no Python right now.
    # Neither knows of one of _thread that has not begun; one of threading has when start() returns.
    nameless = max(len(sys._current_frames()) - 1, _thread._count()) - len(names)
    if nameless > 0:
        names.append("%d without a name" % nameless)
    if not names:
        return None
    return (
        "it cannot fork while threads run in it: %s; modules that preload= names have started them: leave those "
        "out, or have them start threads when they are needed and not when they are imported"
    ) % ", ".join(names)


def poll(pid):
    """Whether a worker has ended, and its status as waitpid() has it: -1 if that is not known.

    A number that is no child's, since the modules have made it up, counts as one that has ended.
    """
    try:
        found, status = os.waitpid(pid, os.WNOHANG) if pid > 0 else (1, -1)
        return found != 0, status
    except OSError:
        return True, -1


def collect(pid, kill):
    """The status of a worker, which is forgotten; -1 if it has not ended, or that is not known."""
    ended, status = poll(pid)
    if ended or not kill:
        return status if ended else -1
    os.kill(pid, _signal.SIGKILL)
    try:
        return os.waitpid(pid, 0)[1]
    except OSError:
        return -1


def become_worker(handlers):
    for number, handler in handlers:
        _signal.signal(number, handler)  # signal.signal would copy 30 more pages, for its enums
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed()
    if "multiprocessing.process" in sys.modules:
        multiprocessing = sys.modules["multiprocessing.process"]
        multiprocessing.current_process().authkey = os.urandom(32)


def run(serve, leave):
    """The life of a worker: serve(stream, stderr), then what an interpreter does at its end, and leave(status).

    But it is not taken down: that would write to every page that is shared with the others.
    """
    status = 0
    try:
        serve(STREAM, STDERR)
    except SystemExit as error:
        status = error.code
        if status is not None and not isinstance(status, int):
            sys.stderr.write("%s\n" % (status,))
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    try:
        threading._shutdown()
    except BaseException:  # KeyboardInterrupt: it has taken too long
        sys.excepthook(*sys.exc_info())
    try:
        atexit._run_exitfuncs()
    except BaseException:
        pass  # it was printed
    flush()
    leave(status or 0)


def flush():
    for file in (sys.stdout, sys.stderr):
        try:
            file.flush()
        except Exception:
            pass  # None, closed, or replaced by something that is no file


def end(pids, seconds):
    """The coordinator is gone. Workers see the end of their streams and end within that time, or are killed."""
    deadline = time.monotonic() + seconds
    while pids and time.monotonic() < deadline:
        pids = [pid for pid in pids if not poll(pid)[0]]
        time.sleep(0.01 if pids else 0)
    for pid in pids:
        if not poll(pid)[0]:
            os.kill(pid, _signal.SIGKILL)
    os._exit(0)  # what the modules have registered for the end of the process is for the workers
