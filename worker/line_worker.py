"""A worker for who evaluates one line from its stream and runs that.

That is what a `socketserver.py` of the released execnet does, for `socket=`, and an interpreter that a program starts
with `popen_bootstrapline` on a command line of its own. The coordinator's line is this source with a call of `run` or
of `run_on_stdio` after it (server_line and stdin_line in src/transport/bootstrap.cpp). It has all that the worker
needs, since the buffered reader of the line may swallow what follows it.

`hello` is the coordinator's first frame, `worker` the compressed source of the worker. Both are base64.

Runs on Python 2.7, 3.6 and later, with the standard library only.
"""

import atexit
import binascii
import os
import socket
import sys
import zlib


class Stream(object):
    """A file with some bytes before what is in it."""

    def __init__(self, head, file):
        self.head, self.file, self.fileno = head, file, file.fileno

    def read(self, size):
        head, self.head = self.head[:size], self.head[size:]
        return head + self.file.read(size - len(head)) if len(head) < size else head


def start(hello, worker, stream, *arguments):
    names = {"__name__": "execnet_worker"}
    exec(compile(zlib.decompress(binascii.a2b_base64(worker), 31), "<execnet worker>", "exec"), names)
    names["serve"](Stream(binascii.a2b_base64(hello), stream), *arguments)


def serve(connection, hello, worker):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(None)
    stream = os.fdopen(os.dup(connection.fileno()), "rb")
    connection.close()
    sys.argv[:] = ["-c"]  # as in other workers
    start(hello, worker, stream, os.dup(stream.fileno()), None)


def serve_in_child(*arguments):
    """Ends with _exit: to leave the server's own frames would shut down its socket."""
    status = 1
    try:
        serve(*arguments)
    except SystemExit:
        status = sys.exc_info()[1].code or 0
        sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
    except:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status if isinstance(status, int) else 1)


def run(connection, hello, worker):
    """Serves the connection, in a child where there is fork."""
    if not hasattr(os, "fork"):
        serve(connection, hello, worker)
        return
    child = os.fork()
    if child == 0:
        serve_in_child(connection, hello, worker)
    connection.close()
    try:
        os.waitpid(child, 0)
    except OSError:
        pass  # the server ignores SIGCHLD: it has ended, and the kernel has collected it


def run_on_stdio(hello, worker, *beside):
    """Serves on descriptors 0 and 1; see serve() of the worker for `beside`."""
    start(hello, worker, os.fdopen(os.dup(0), "rb"), os.dup(1), None, beside)
