"""Gateways that go through this worker: each is a process here, joined to a channel."""

import os
import time

from .errors import ProtocolError, RemoteError
from .fork_servers import ForkError, fork_server
from .frames import DATA
from .imports import INSTALLED
from .locks import release
from .processes import PIECE_SIZE, StderrTail, describe_end, kill_tree
from .system import PY3, allocate_lock, close_on_exec, native, now, portable, start_thread
from .values import dump

RELAY_WINDOW = 1024 * 1024  # bytes that may be under way on a channel in one direction
MOST_SOURCES = 128 * 1024  # bytes that a fork server reads first, which a socket takes at once


class OpenedProcess(object):
    """A process started as a proxy, or forked for one: its stream is joined to the channel of its OPEN frame.

    Four threads: one waits for its end, the others copy its input, its output and its stderr.
    """

    def __init__(self, connection, channel, argv, env, sources):
        self._connection, self._channel, self._state = connection, channel, channel._state
        self._argv, self._env, self._sources = argv, env, sources
        self._process = self._server = None
        self._ended = False
        self._on_the_way = 0  # bytes of its output that were sent and not consumed; guarded by the connection's lock
        self._look = allocate_lock()  # let go of when that has changed

    def run(self):
        with INSTALLED:
            import socket
        self._stream, theirs = socket.socketpair()
        close_on_exec(self._stream.fileno())
        try:
            self._process = self._start(theirs)
        except Exception as error:
            number = getattr(error, "errno", None)
            why = os.strerror(number) if number else error
            if not isinstance(error, ForkError):
                why = "cannot start '%s': %s" % (native(portable(self._argv[0])), why)
            self._ended = True
            self._stream.close()
            self._channel.close(str(why))
            return
        finally:
            theirs.close()
        name = "relay %d" % self._state.id
        self._stderr = StderrTail(name, self._process.stderr)
        output = start_thread(name, self._copy_output)
        start_thread(name, self._copy_input)
        with self._connection.lock:
            if self._state.no_more_items:
                self.on_channel_end()
        try:
            how = describe_end(self._process.wait())
        except ForkError as error:
            how = str(error)
        self._ended = True
        self._shut_down()  # what others may hold open is not the process
        output.join()
        self._stream.close()
        self._channel.close(self._stderr.after(how))

    def _start(self, theirs):
        with INSTALLED:
            import subprocess
        env = dict(os.environb if PY3 else os.environ)
        env.update(self._env)
        if self._sources is not None:
            self._server = fork_server(self._argv, env, self._sources)
            return self._server.fork(theirs, self._state)
        return subprocess.Popen(
            self._argv, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=env, close_fds=True
        )

    def on_consumed(self, count):
        self._on_the_way -= count
        release(self._look)

    def on_channel_end(self):
        """The coordinator has ended the stream, or is gone."""
        release(self._look)
        start_thread("end %d" % self._state.id, self._end_within, 0.3)

    def _end_within(self, seconds):
        deadline = now() + seconds
        while not self._ended and now() < deadline:
            time.sleep(0.01)
        if self._ended:
            return
        if self._process is not None:
            if self._process.pid is not None:
                kill_tree(self._process.pid)
        elif self._server is not None:
            self._server.give_up()
            self._channel.close("it was given up before it was forked")

    def _shut_down(self):
        try:
            self._stream.shutdown(2)
        except EnvironmentError:
            pass  # its other end is closed

    def _copy_input(self):
        consumed = 0
        try:
            for data in self._channel:
                self._stream.sendall(data)
                consumed += len(data)
                if consumed >= RELAY_WINDOW // 4:
                    self._connection.send(self._state, DATA, dump(consumed))
                    consumed = 0
        except (EnvironmentError, RemoteError):
            pass  # one of the two sides has ended, which others see
        if self._state.no_more_items:
            self._shut_down()

    def _copy_output(self):
        state, lock = self._state, self._connection.lock
        while True:
            while self._on_the_way >= RELAY_WINDOW and not state.no_more_items:
                self._look.acquire()
            try:
                data = self._stream.recv(min(PIECE_SIZE, max(1, RELAY_WINDOW - self._on_the_way)))
            except EnvironmentError:
                data = b""
            if not data:
                break
            if not state.no_more_items:
                with lock:
                    self._on_the_way += len(data)
                try:
                    self._connection.send(state, DATA, dump(data))
                except EnvironmentError:
                    pass  # the coordinator is gone
            self._stderr.pass_on()
        self._end_within(2)


def check_open(request):
    """Throws ProtocolError unless it is what OPEN has to carry for a pure worker."""
    if type(request) is tuple and len(request) == 4:
        argv, env, stdio, sources = request
        if type(argv) is list and argv and type(env) is dict and stdio is True:
            words = argv + list(env) + list(env.values()) + ([] if sources is None else [sources])
            if all(isinstance(word, bytes) for word in words) and len(sources or b"") <= MOST_SOURCES:
                return
    raise ProtocolError("OPEN without (argv, env, True, sources)")
