"""The life of the process, from the first frame to its end."""

import os
import stat
import sys

from .connection import Connection, for_good
from .ending import run_exit_handlers, wait_for_threads
from .errors import LoadError, ProtocolError
from .execution import Executor
from .frames import (
    CHUNK,
    CLOSE,
    CLOSE_ERROR,
    CREDIT,
    DATA,
    EXEC,
    HELLO,
    LAST,
    OPEN,
    PASSED,
    PROBE,
    PROTOCOL,
    RECONFIGURE,
    STATUS,
    TERMINATE,
    WINDOW,
    Inflater,
    read_messages,
)
from .gateway import Gateway
from .greenlets import GREEN, Greenlets
from .guard import fork_under_guard
from .imports import INSTALLED, restore_working_directory
from .sources import format_error
from .standard_streams import names_no_stream, set_standard_streams
from .system import (
    LOST_MOMENT,
    PY3,
    ThreadError,
    close_on_exec,
    complain,
    complaints,
    flush,
    native,
    now,
    portable,
    signal,
    sleep,
    start_thread,
)
from .trace import open_trace
from .values import INTEGERS, dump, load

HELLO_TYPES = {
    "protocol": (int,),
    "id": (str,),
    "execmodel": (str,),
    "chdir": (str, type(None)),
    "nice": (int, type(None)),
    "env": (dict,),
    "dont_write_bytecode": (bool,),
    "stdin": (str,),
    "stdout": (str,),
    "stderr": (str,),
    "grace": INTEGERS,  # milliseconds
    "detached": (str,),
    "window": INTEGERS + (type(None),),
    "deflate": (bool,),
    "debug": INTEGERS,
}
TERMINATE_GRACE = 5.0  # seconds for running code to end, before and after it is interrupted


def read_hello(messages):
    """The coordinator's HELLO. Throws ProtocolError."""
    kind, _, payload = next(messages, (None, None, None))
    if kind != HELLO:
        raise ProtocolError("HELLO was expected, not %s" % ("the end" if kind is None else "type %d" % kind))
    hello = load(payload, None, True, not PY3)  # with `str`, whichever that is
    for key, types in HELLO_TYPES.items():
        if type(hello) is not dict or type(hello.get(key)) not in types:
            raise ProtocolError("HELLO without a proper %r" % key)
    wrong = names_no_stream(hello)
    if wrong is not None:
        raise ProtocolError("HELLO without a proper %r" % wrong)
    return hello


def apply_hello(hello):
    """Makes the process what the specification wants. Returns what is wrong with it, or None."""
    step = "protocol=%d" % hello["protocol"]
    try:
        if hello["protocol"] != PROTOCOL:
            raise ValueError("this worker speaks protocol %d" % PROTOCOL)
        step = "execmodel=%s" % hello["execmodel"]
        if hello["execmodel"] not in ("thread", "main_thread_only") + GREEN:
            raise ValueError("there are thread, main_thread_only, gevent and eventlet")
        if hello["chdir"] is not None:
            step = "chdir=%s" % hello["chdir"]
            path = os.path.expanduser(hello["chdir"])
            try:
                os.makedirs(path)
            except OSError:
                if not os.path.isdir(path):
                    raise
            os.chdir(path)
        if hello["nice"] is not None:
            step = "nice=%d" % hello["nice"]
            os.nice(hello["nice"])
        for name, value in hello["env"].items():
            step = "env:%s=***" % name  # it may be secret
            os.environ[name] = value
        sys.dont_write_bytecode = hello["dont_write_bytecode"] or sys.dont_write_bytecode
        step = "execmodel=%s" % hello["execmodel"]
        if hello["execmodel"] in GREEN:
            with INSTALLED:
                __import__(hello["execmodel"])
    except ImportError as error:
        return "%s: %s: install %s for %s" % (step, error, hello["execmodel"], sys.executable)
    except Exception as error:
        return "%s: %s: %s" % (step, type(error).__name__, error)
    return None


def find_zlib():
    """The module, or None if this Python is built without."""
    try:
        with INSTALLED:
            import zlib
    except ImportError:
        return None
    return zlib


def introduce(features):
    """The HELLO of this worker."""
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = ""  # it was removed
    return {
        u"protocol": PROTOCOL,
        u"implementation": u"pure",
        u"version_info": tuple(portable(part) if isinstance(part, str) else part for part in sys.version_info),
        u"executable": portable(sys.executable or ""),
        u"platform": portable(sys.platform),
        u"cwd": portable(cwd),
        u"pid": os.getpid(),
        u"features": features,
    }


def report_crashes():
    """Has fatal signals tell where they came from, on what is the stderr now, whatever becomes of descriptor 2."""
    try:
        with INSTALLED:
            import faulthandler
    except ImportError:  # Python 2
        complaints.append(os.dup(2))
        close_on_exec(complaints[0])
        return
    if not faulthandler.is_enabled():
        complaints.append(os.dup(2))  # not inherited
        faulthandler.enable(complaints[0], all_threads=False)


def came_along(stream_fd, beside):
    """Whether there are more than the standard descriptors.

    A native coordinator or proxy has given them (src/transport/transport.hpp), and each program in between has passed
    them on. It is on this machine then, and a program of ours guards this process.
    """
    if stream_fd in beside:
        return False
    try:
        ours, other = [os.fstat(number) for number in (stream_fd,) + beside][:2]
    except EnvironmentError:
        return False
    return stat.S_ISSOCK(ours.st_mode) and (ours.st_dev, ours.st_ino) == (other.st_dev, other.st_ino)


def serve(stream, write_fd, stderr_fd, beside=()):
    """The main thread's life, from the first frame to the end of the process.

    `stream` is a binary file positioned after this source; frames are written to `write_fd`.
    `stderr_fd`, if any, is the stderr to take over once all is well; without one, the stream is what
    was on descriptors 0 and 1, or a connection that somebody else has made. `beside` are three numbers where there may
    be more: the same stream, and the coordinator's stderr and stdout.
    """
    # Until the main thread is ready to be interrupted.
    sigint = signal.signal(signal.SIGINT, signal.SIG_IGN)
    has_stdout = True
    if stderr_fd is None:
        if beside and came_along(stream.fileno(), beside):
            os.close(write_fd)
            os.close(beside[0])
            write_fd = stream.fileno()
            stderr_fd, stdout_fd = beside[1:]
        else:
            stdout_fd = os.dup(2)
            has_stdout = False
        # The code that runs here must not get at the stream.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(stdout_fd, 1)
        os.close(stdout_fd)
    close_on_exec(stream.fileno())
    close_on_exec(write_fd)
    if stderr_fd is not None:
        close_on_exec(stderr_fd)
    connection = Connection(stream, write_fd)
    messages = read_messages(connection.incoming, connection.incoming.unfinished)
    try:
        hello = read_hello(messages)
    except (ProtocolError, LoadError) as error:
        complain(error)
        sys.exit(1)
    grace = hello["grace"] / 1000.0
    if stderr_fd is None:  # before anything else runs here, and there is anything to be guarded
        fork_under_guard(stream.fileno(), grace, hello["detached"] == "keep")
    wrong = apply_hello(hello)
    if hello["stdout"] == "callback" and not has_stdout:
        wrong = "a function for stdout: what stands before this interpreter passes on no more than standard input and "
        wrong += "output, and what is printed goes to stderr"
    if wrong is not None:
        connection.say_hello({u"protocol": PROTOCOL, u"error": portable(wrong)})
        sys.exit(1)
    report_crashes()
    if stderr_fd is not None:
        flush(sys.stderr)
        os.dup2(stderr_fd, 2)
        os.close(stderr_fd)
    set_standard_streams(hello)
    if hello["window"] is not None:
        connection.window = hello["window"]
    connection.trace = open_trace(hello["debug"], hello["id"])
    if connection.trace is not None:
        connection.incoming.LENDS = False  # the main thread reads past the trace
    zlib = find_zlib() if hello["deflate"] else None
    incoming, inflater = connection.incoming, zlib and Inflater(zlib)
    messages = read_messages(incoming, incoming.unfinished, connection.trace, inflater)
    connection.say_hello(introduce([u"deflate"] if zlib else []))
    if zlib:
        connection.deflate(zlib)

    # Here, so that it knows the main thread, and after HELLO, which others wait for. At the end the code may have taken
    # all descriptors: what is imported then has to be there.
    with INSTALLED:
        import select
        import threading

        if hello["execmodel"] in GREEN:
            connection.use(Greenlets(hello["execmodel"]))
    connection.gateway = Gateway(connection, hello["id"], hello["execmodel"])
    executor = Executor(connection, hello["execmodel"])
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=connection.leave_in_child)
    restore_working_directory()
    outcome = []
    try:
        if (3,) < sys.version_info < (3, 10):
            # A thread ends by pthread_exit() there, which loads a library: later there may be no descriptor for it.
            start_thread("first", int)
        start_thread("poster", for_good, connection.run_poster)
        start_thread("receiver", receive_all, messages, connection, executor, select.select, grace, outcome)
    except ThreadError as error:
        complain(error)
        os._exit(1)  # nobody would tell the poster to end
    executor.run_main(sigint)
    status, orderly = outcome[0]
    flush(sys.stdout)
    flush(sys.stderr)
    main = threading.current_thread()
    if PY3 and orderly and all(thread.daemon for thread in threading.enumerate() if thread is not main):
        sys.exit(status)
    # Without a coordinator the interpreter would come down while the receiver is about to end the process: the two have
    # been seen to lock up. Python 2 empties all modules, `True` and `len` included, under the feet of the threads that
    # are still there. And one that was waited for in vain would be waited for again.
    wait_for_threads(threading, executor, not orderly)
    run_exit_handlers()
    flush(sys.stdout)
    flush(sys.stderr)
    os._exit(status)


def receive_all(messages, connection, executor, select, grace, outcome):
    """The receiver: takes in all messages, then sees to it that the process ends."""
    handlers = {
        EXEC: executor.on_exec,
        OPEN: executor.on_open,
        DATA: connection.on_data,
        CLOSE: lambda number, payload: connection.on_close(number),
        CLOSE_ERROR: connection.on_close,
        LAST: connection.on_last,
        STATUS: lambda number, payload: connection.answer(number, dump(executor.status())),
        RECONFIGURE: connection.on_reconfigure,
        CREDIT: connection.on_credit,
        WINDOW: connection.on_window,
        PROBE: connection.on_probe,
        PASSED: connection.on_passed,
    }
    told, status, cause = False, 0, "the coordinator is gone"
    try:
        for kind, number, payload in messages:
            if kind == TERMINATE:
                told = True
                break
            if kind not in handlers:
                raise ProtocolError("HELLO comes first, and once")
            handlers[kind](number, payload)
            connection.incoming.lend()
    except EnvironmentError:
        pass  # the stream broke: the coordinator is gone
    except (ProtocolError, LoadError) as error:
        complain(error)
        status, cause = 1, error
    except BaseException:
        complain(native(format_error(sys.exc_info(), {})))
        status, cause = 1, sys.exc_info()[1]
    if status:
        connection.break_off()
    if connection.trace is not None and not told:
        connection.trace.note("%s" % cause)
    outcome.append((status, told))
    executor.refusing = True
    connection.lost = not told
    try:
        connection.finish()  # then only ending: the calls with end markers are waited for
    except Exception:
        complain(native(format_error(sys.exc_info(), {})))
    executor.ending = True
    executor.wake()
    # The process ends under this thread's feet, unless code does not want to.
    lost = wait_for_end(connection.stream_fd, select, TERMINATE_GRACE) if told else sleep(LOST_MOMENT)
    os.kill(os.getpid(), signal.SIGINT)  # comes to the main thread, and interrupts its system calls
    executor.wake()
    if not told:
        sleep(grace)
    elif lost:
        sleep(LOST_MOMENT)
    else:
        wait_for_end(connection.stream_fd, select, TERMINATE_GRACE)
    os._exit(1)


def wait_for_end(descriptor, select, seconds):
    """Waits for so many seconds, or LOST_MOMENT after the end of the stream. Returns whether that has come.

    Who has told the worker to end has set a time, which may be over then.
    """
    deadline = now() + seconds
    while now() < deadline:
        try:
            if select([descriptor], [], [], max(0, deadline - now()))[0] and not os.read(descriptor, CHUNK):
                sleep(LOST_MOMENT)
                return True
        except Exception:  # of Python 2 it is no EnvironmentError
            sleep(LOST_MOMENT)
    return False
