"""Gateways that go through this worker: each is a process here, joined to a channel."""

import os
import time

from .errors import ProtocolError, RemoteError
from .fork_servers import ForkError, fork_server
from .frames import DATA
from .imports import INSTALLED
from .locks import release
from .processes import PIECE_SIZE, StderrTail, describe_end, kill_tree
from .system import LOST_MOMENT, PY3, ThreadError, allocate_lock, close_on_exec, native, now, portable, start_thread
from .values import INTEGERS, dump

RELAY_WINDOW = 1024 * 1024  # bytes that may be under way on a channel in one direction
MOST_SOURCES = 128 * 1024  # bytes that a fork server reads first, which a socket takes at once


class OpenedProcess(object):
    """A process started as a proxy, or forked for one: its stream is joined to the channel of its OPEN frame.

    Four threads: one waits for its end, the others copy its input, its output and its stderr.
    """

    def __init__(self, connection, channel, request):
        self._connection, self._channel, self._state = connection, channel, channel._state
        self._argv, self._env, _, _, self._sources, grace, self._keep_detached = request
        self._grace = grace / 1000.0
        self._process = self._server = None
        self._stream = self._stderr = self._output = None
        self._ended = False
        self._on_the_way = 0  # bytes of its output that were sent and not consumed; guarded by the connection's lock
        self._look = allocate_lock()  # let go of when that has changed

    def run(self):
        """Whatever fails, the channel is closed, with why, and nothing of the process is left."""
        try:
            self._begin()
        except Exception as error:
            how = self._give_up(error)
        else:
            how = self._wait()
        self._channel.close(how)

    def refuse(self, error):
        """In place of run(), for want of a thread to run it."""
        self._ended = True
        self._channel.close(self._cannot_start(error))

    def _begin(self):
        with INSTALLED:
            import socket

        self._stream, theirs = socket.socketpair()
        try:
            close_on_exec(self._stream.fileno())
            self._process = self._start(theirs)
        finally:
            theirs.close()
        name = "relay %d" % self._state.id
        self._stderr = StderrTail(name, self._process.stderr)
        self._output = start_thread(name, self._copy_output)
        start_thread(name, self._copy_input)
        with self._connection.lock:
            if self._state.no_more_items:
                self.on_channel_end()

    def _wait(self):
        """How it has ended, when it has."""
        try:
            how = describe_end(self._process.wait())
        except ForkError as error:
            how = str(error)
        self._ended = True
        self._shut_down()  # what others may hold open is not the process
        self._output.join()
        self._stream.close()
        return self._stderr.after(how)

    def _give_up(self, error):
        """Ends what there is, and returns why."""
        self._ended = True
        if self._process is not None:
            kill_tree(self._process.pid, self._keep_detached)
            try:
                self._process.wait()
            except (ForkError, EnvironmentError):
                pass  # there is nobody, then
            if self._stderr is None:
                self._process.stderr.close()
        if self._stream is not None:
            self._shut_down()
            if self._output is not None:
                self._output.join()
            self._stream.close()
        return str(error) if isinstance(error, ForkError) else self._cannot_start(error)

    def _cannot_start(self, error):
        number = getattr(error, "errno", None)
        why = os.strerror(number) if number else portable(error)
        return "cannot start '%s': %s" % (native(portable(self._argv[0])), native(why))

    def _start(self, theirs):
        with INSTALLED:
            import subprocess
        env = dict(os.environb if PY3 else os.environ)
        env.update(self._env)
        if self._sources is not None:
            self._server = fork_server(self._argv, env, self._sources, self._keep_detached)
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
        try:
            # Without a coordinator its code is interrupted, and has its time after that.
            seconds = LOST_MOMENT + self._grace if self._connection.lost else 0.3
            start_thread("end %d" % self._state.id, self._end_within, seconds)
        except ThreadError:  # then without a moment to end by itself
            self._end()

    def _end_within(self, seconds):
        deadline = now() + seconds
        while not self._ended and now() < deadline:
            time.sleep(0.01)
        if not self._ended:
            self._end()
            if self._process is None:
                self._channel.close("it was given up before it was forked")

    def _end(self):
        if self._process is not None:
            if self._process.pid is not None:
                kill_tree(self._process.pid, self._keep_detached)
        elif self._server is not None:
            self._server.give_up()

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
    if type(request) is tuple and len(request) == 7:
        argv, env, stdio, beside, sources, grace, keep_detached = request
        ending = type(beside) is bool and type(grace) in INTEGERS and type(keep_detached) is bool
        if type(argv) is list and argv and type(env) is dict and stdio is True and ending:
            words = argv + list(env) + list(env.values()) + ([] if sources is None else [sources])
            if all(isinstance(word, bytes) for word in words) and len(sources or b"") <= MOST_SOURCES:
                return
    raise ProtocolError("OPEN without (argv, env, True, beside, sources, grace, keeps detached)")
