"""What remote_exec runs, and on which thread."""

import os
import sys
import time
from _collections import deque

from .channels import UNBOUNDED
from .errors import ProtocolError
from .imports import INSTALLED
from .locks import release
from .proxy import OpenedProcess, check_open
from .sources import check_exec, compile_source, format_error
from .system import ThreadError, complain, flush, native, portable, signal, start_thread
from .values import load

# Begins the file name of code that the library sends, and not the program. It imports at its top.
OWN = "<execnet "


class Task(object):
    """One remote_exec."""

    def __init__(self, channel, state, request):
        self.channel, self.state = channel, state
        self.source, self.filename, self.first_line, self.function, self.kwargs = request
        self.in_main = False
        self.started = False
        self.done = False
        self.error = u"KeyboardInterrupt"  # if one hits where we are not prepared for it


class Executor(object):
    """Runs what remote_exec sends: in the main thread, else in threads of their own."""

    def __init__(self, connection, execmodel):
        self.execmodel = execmodel
        self.refusing = False  # what has not begun
        self.ending = False  # no call of a callback is added any more, either
        self._connection = connection
        self._main_only = execmodel == "main_thread_only"
        self._executing = 0  # tasks, for the status
        self._unfinished = 0  # tasks and opened processes whose CLOSE is not written yet
        self._main_load = 0  # of them, those for the main thread
        self._tasks = deque()  # for the main thread; it takes away the first when all is done
        self._wake = connection.new_waiter()
        self._running = {}  # greenlet -> its task
        self._pid = os.getpid()
        connection.on_call_done = self._on_call_done

    def wake(self):
        """Has the main thread look around."""
        release(self._wake)

    def _on_call_done(self):
        if self.ending:
            self.wake()

    def on_exec(self, number, payload):
        connection = self._connection
        if number % 2 == 0:
            raise ProtocolError("EXEC for channel %d, which is not of the coordinator's making" % number)
        request = load(payload, connection.channel_for)
        check_exec(request)
        channel = connection.channel_for(number)
        with connection.lock:
            state = connection.state_for(number)
            if state is None or state.executing:
                raise ProtocolError("channel id %d was used before" % number)
            state.executing = True
            task = Task(channel, state, request)
            waits = self._main_load > 0 and not connection.greenlets
            task.in_main = self._main_only or not waits
            self._executing += 1
            self._unfinished += 1
            if task.in_main:
                self._main_load += 1
                self._tasks.append(task)
        self.wake()
        try:
            if not task.in_main:
                start_thread("exec %d" % number, self._run, task)
            elif waits:
                start_thread("grace %d" % number, self._refuse_late, task)
        except ThreadError as error:  # the system has no more threads
            self._refuse(task, portable(error))

    def on_open(self, number, payload):
        connection = self._connection
        request = load(payload, None)
        check_open(request)
        channel = connection.channel_for(number)
        opened = OpenedProcess(connection, channel, request)
        with connection.lock:
            channel._state.relay, channel._state.window = opened, UNBOUNDED  # it has its own
            self._unfinished += 1
        try:
            start_thread("open %d" % number, self._run_opened, opened)
        except ThreadError as error:  # the system has no more threads
            opened.refuse(error)
            self._finish_opened()

    def _run_opened(self, opened):
        opened.run()
        self._finish_opened()

    def _finish_opened(self):
        with self._connection.lock:
            self._unfinished -= 1
        self.wake()

    def status(self):
        blocked, outstanding = self._connection.flows()
        return {
            u"numblocked": blocked,
            u"outstanding": outstanding,
            u"numchannels": self._connection.open_channels(),
            u"numexecuting": self._executing,
            u"execmodel": portable(self.execmodel),
        }

    def run_main(self, sigint):
        """What the main thread does until the end. `sigint` is the handler SIGINT shall have."""
        while True:
            try:
                if sigint is not None:
                    signal.signal(signal.SIGINT, sigint)
                    sigint = None
                elif self._tasks and self._connection.greenlets:
                    self._connection.greenlets.spawn(self._run_in_greenlet, self._tasks.popleft())
                elif self._tasks:
                    self._run(self._tasks[0])
                    self._tasks.popleft()
                elif self.ending and not self._unfinished and not self._connection.pending_calls:
                    return
                else:
                    self._connection.incoming.recall()
                    self._wake.acquire()
            except KeyboardInterrupt:
                # Between tasks; what was begun is looked at again. Or of the tasks in greenlets.
                for greenlet in list(self._running):
                    self._connection.greenlets.kill(greenlet, KeyboardInterrupt)

    def wait_for(self, call):
        """Has another thread call something, and sleeps until it has: where no signal ends a wait, wake() does."""
        done = []

        def run():
            try:
                call()
            finally:
                done.append(True)
                self.wake()

        try:
            start_thread("last", run)
        except ThreadError:  # the system has no more threads
            run()
        while not done:
            self._wake.acquire()

    def _run_in_greenlet(self, task):
        greenlet = self._connection.greenlets.current()
        self._running[greenlet] = task
        try:
            self._run(task)
        except KeyboardInterrupt:
            self._finish(task)
        finally:
            del self._running[greenlet]

    def _refuse_late(self, task):
        time.sleep(1)
        self._refuse(task, u"concurrent remote_exec would cause deadlock for main_thread_only execmodel")

    def _refuse(self, task, error):
        with self._connection.lock:
            if task.started:
                return
            task.started = True
        task.error = error
        self._finish(task)

    def _run(self, task):
        with self._connection.lock:
            begin = not task.started
            task.started = True
            if begin and self.refusing:
                begin, task.error = False, u"the worker was told to end before this could run"
        if begin:
            task.error = self._execute(task)
            if os.getpid() != self._pid:  # a forked child has come back from the code
                if task.error is not None:
                    complain(native(task.error))
                os._exit(0 if task.error is None else 1)
        self._finish(task)

    def _execute(self, task):
        """Runs the code; returns the text of what it raised, if anything."""
        filename = native(task.filename or u"<remote exec>")
        namespace = {"channel": task.channel, "__name__": "__channelexec__"}
        code_of = (task.first_line, native(task.source))
        self._connection.sources[filename] = code_of
        try:
            code = compile_source(code_of, filename)
            if filename.startswith(OWN):
                with INSTALLED:
                    exec(code, namespace)
            else:
                exec(code, namespace)
            if task.function is not None:
                kwargs = dict((native(name), value) for name, value in task.kwargs.items())
                namespace[native(task.function)](task.channel, **kwargs)
            return None
        except:  # noqa: E722 - anything, classic classes included
            error = sys.exc_info()
            if error[0] is EOFError and task.state.no_more_items:
                return None  # its channel, or the gateway, has ended
            return format_error(error, {filename: code_of})
        finally:
            flush(sys.stdout)

    def _finish(self, task):
        with self._connection.lock:
            if task.state.executing:
                task.state.executing = False
                self._executing -= 1
                self._main_load -= task.in_main
        # From here on the main thread counts as free: who gets the CLOSE may at once send an EXEC.
        self._connection.call(self._connection.close, task.state, task.error)
        with self._connection.lock:
            if not task.done:
                task.done = True
                self._unfinished -= 1
        task.channel = None
        self.wake()
