"""The stream with all its channels: who writes, what is called when something comes."""

import errno
import io
import itertools
import os
import sys
from _weakref import ref

from .channels import NO_ENDMARKER, UNBOUNDED, Channel, ChannelState
from .deflating import Deflating
from .errors import ProtocolError, RemoteError
from .frames import ABORT, CHUNK, CLOSE, CLOSE_ERROR, CREDIT, DATA, HEADER, HELLO, LAST, MAGIC, MORE, PASSED
from .incoming import Incoming
from .locks import GreenLock, Mailbox, taken_lock
from .sources import format_error
from .system import (
    ThreadError,
    allocate_lock,
    complain,
    get_ident,
    imap,
    native,
    now,
    portable,
    printable,
    start_thread,
)
from .values import INTEGERS, dump, load, load_text

NO_THREAD = "cannot start a thread: %s: raise the limit of threads and processes (`ulimit -u`, or pids.max)"


def for_good(body):
    """Runs what the worker is of no use without. If it fails, for want of memory, say, the process says so and ends."""
    try:
        body()
    except BaseException:
        try:
            complain(native(format_error(sys.exc_info(), {})))
        finally:
            os._exit(1)


class Connection(object):
    """This end of the stream: what goes out, and the channels."""

    def __init__(self, stream, write_fd):
        self.lock = allocate_lock()
        # For the poster: (state, type, payload); (state, CREDIT, credit); (state, None, number of the
        # handle that is gone); (None, None, function).
        self.posts = Mailbox(taken_lock())
        self.greenlets = None  # of the main thread, if it has some
        self.strconfig = (True, False)
        self.window = UNBOUNDED  # of channels for which none is set
        self.error = None  # EOFError once nothing more comes
        self.lost = False  # the coordinator is gone, and has not told this worker to end
        self.gateway = None
        self.trace = None  # a Trace, if somebody debugs
        self.deflating = None  # what compresses, if that is agreed on
        self.pending_calls = 0  # of callbacks
        self.on_call_done = None  # called by the dispatcher after each
        self.sources = {}  # file name -> (first line, source) of what was executed, for tracebacks
        self.incoming = Incoming(stream, self.lock)
        self.stream_fd = stream.fileno()
        self._write_fd = write_fd
        # Holds any frame whole and keeps what an interrupted write has left for the next one, so
        # that no exception of a signal handler can cut a frame. Twice as large as a frame: what fills
        # the buffer is not only buffered, and then its rest can get lost (seen on 3.13).
        self._out = io.open(write_fd, "wb", buffering=2 * (HEADER.size + CHUNK), closefd=False)
        # Plain locks in `with` statements only: where a signal handler raises, they are released. A
        # message of one frame is written with both held. A chunk is written with the second only, so
        # that somebody else can take _turn meanwhile and is next: a long message waits for _turn
        # before each chunk.
        self._turn, self._out_lock = allocate_lock(), allocate_lock()
        self._gone = None  # why nothing can be sent any more
        self._states = {}
        self._new_ids = itertools.count(2, 2)
        # Ids of the other side's making that are over: all below _over_below, and those in _over.
        self._over, self._over_below = set(), 1
        self._calls = Mailbox(taken_lock())
        self._dispatching = False

    def use(self, greenlets):
        """Has the main thread wait in greenlets. To be called before it waits for anything."""
        self.greenlets = greenlets
        self._calls = Mailbox(GreenLock(greenlets))

    def new_waiter(self):
        """What the calling thread can wait for, until another one releases it."""
        return GreenLock(self.greenlets) if self.greenlets and self.greenlets.here() else taken_lock()

    def caller(self):
        """The greenlet that runs, or else the thread."""
        return self.greenlets.current() if self.greenlets and self.greenlets.here() else get_ident()

    def call(self, function, *args):
        """Calls something that writes: in a greenlet, which must not block its thread, through the poster."""
        if self.greenlets is None or not self.greenlets.here():
            return function(*args)
        done, results, errors = self.new_waiter(), [], []

        def post():
            try:
                results.append(function(*args))
            except BaseException:
                errors.append(sys.exc_info()[1])
            done.release()

        self.posts.put((None, None, post))
        done.acquire()
        if errors:
            raise errors[0]
        return results[0]

    # Writing

    def write(self, kind, number, payload=b"", credit=0, begun=None):
        """Writes a message; waits while the stream is full. Messages of one channel: one at a time.

        `begun` is a list that gets an item when it is too late to take the message back.
        """
        size, begun = len(payload), [] if begun is None else begun
        if size <= (CHUNK if self.deflating is None else self.deflating.chunk()):
            with self._turn, self._out_lock:
                self._put(HEADER.pack(kind, 0, 0, number, size, credit) + payload, begun)
            return
        try:
            at = 0
            while at < size:
                end = at + (CHUNK if self.deflating is None else self.deflating.chunk())
                chunk, at, more = payload[at:end], end, end < size
                with self._turn:
                    pass
                with self._out_lock:
                    self._put(HEADER.pack(kind, more * MORE, 0, number, len(chunk), 0) + chunk, [] if more else begun)
        except BaseException:
            if not begun:
                with self._turn, self._out_lock:
                    self._put(HEADER.pack(kind, ABORT, 0, number, 0, 0), [])
            raise

    def _put(self, frame, begun):
        # Called with _out_lock held.
        if self._gone is not None:
            raise IOError(self._gone)
        if self.deflating is not None:
            frame = self.deflating.pack(frame, self.trace)
        elif self.trace is not None:
            self.trace.sends(frame)
        try:
            begun.extend(imap(self._out.write, (frame,)))  # no signal handler comes between the two
            self._out.flush()
            if self.deflating is not None:
                self.deflating.written()
        except EnvironmentError as error:
            if error.errno is None:  # not the system's, but raised by a signal handler
                raise
            self._gone = "cannot send, the coordinator is gone: %s" % error
            raise IOError(self._gone)

    def say_hello(self, hello):
        payload = dump(hello)
        with self._out_lock:
            self._put(MAGIC + HEADER.pack(HELLO, 0, 0, 0, len(payload), 0) + payload, [])

    def send(self, state, kind, payload):
        """Writes a message of an open channel. Throws OSError when it is closed."""
        with state.send_lock:
            self.check_open(state)
            self.write(kind, state.id, payload)

    def check_open(self, state):
        if state.closed:
            raise IOError("cannot send to <Channel id=%d closed>" % state.id)

    def send_item(self, state, payload, turn=None):
        """The same for an item, which counts if the other side will get it.

        With a window it is here that it gets its room, for the other side counts in the order of sending. False,
        and nothing was sent: there is none for this turn after all, a signal handler's item took it.
        """
        begun = []
        with state.send_lock:
            self.check_open(state)
            before = state.sent
            try:
                if turn is None:
                    state.sent = before + len(payload)
                else:
                    with self.lock:
                        if not state.may_send(turn):
                            return False
                        state.sent = before + len(payload)
                        state.end_turn(turn)
                self.write(DATA, state.id, payload, 0, begun)
            except BaseException:
                if not begun:
                    state.sent = before
                    with self.lock:
                        state.changed()
                raise
        return True

    def run_poster(self):
        while True:
            state, kind, payload = self.posts.get()
            try:
                if state is None:
                    payload()
                elif kind is None:
                    self._drop(state, payload)
                elif kind == CREDIT:
                    with state.send_lock:
                        if not state.closed:
                            self.write(CREDIT, state.id, b"", payload)
                else:
                    with state.send_lock:
                        self.write(kind, state.id, payload)
            except EnvironmentError:
                pass  # the receiver finds out, too
            del state, payload

    # The life of a channel

    def newchannel(self):
        state = ChannelState(next(self._new_ids), self.window)
        with self.lock:
            self._states[state.id] = state
            state.no_more_items = self.error is not None
            return self.handle(state)

    def channel_for(self, number):
        """The program's Channel for an id that came in a value."""
        with self.lock:
            return self.handle(self.state_for(number) or self._finished_state(number))

    def handle(self, state):
        """The program's Channel for a state. With the lock held."""
        channel = state.handle and state.handle()
        if channel is None:
            state.handles += 1
            channel = Channel(self, state)
            state.handle = ref(channel)
            self._settle(state)
        return channel

    def state_for(self, number):
        """The channel that a frame is about; None if it is over. With the lock held."""
        state = self._states.get(number)
        if state is None and number % 2 and number >= self._over_below and number not in self._over:
            state = self._states[number] = ChannelState(number, self.window)
        return state

    def _finished_state(self, number):
        state = ChannelState(number)
        state.closed = state.peer_closed = state.no_more_items = True
        return state

    def close(self, state, error=None):
        """Sends this end's CLOSE, or CLOSE_ERROR with the error's text, unless it was sent."""
        with self.lock:
            if state.closed:
                return
            self._close_receiving(state)
            state.closed = True
            self._settle(state)
        payload = b"" if error is None else dump(portable(error))
        try:
            with state.send_lock:
                self.write(CLOSE if error is None else CLOSE_ERROR, state.id, payload)
        except EnvironmentError:
            pass  # then the other side needs not be told

    def _drop(self, state, handle):
        """The program has let go of a handle; a channel with a callback goes on receiving."""
        with self.lock:
            if state.handles != handle or state.closed or state.last_sent and not state.no_more_items:
                return
            listening = state.callback is not None and not state.no_more_items
            state.last_sent = listening
            if not listening:
                state.items.clear()
                self._close_receiving(state)
                state.closed = True
                self._settle(state)
        with state.send_lock:
            self.write(LAST if listening else CLOSE, state.id)

    def _close_receiving(self, state):
        if not state.no_more_items:
            state.no_more_items = True
            if state.callback is not None:
                self.schedule(state, 1)
            if state.relay is not None:
                state.relay.on_channel_end()

    def _settle(self, state):
        """Wakes who waits for the state, and forgets it when it is over. With the lock held."""
        state.changed()
        # One with items stays until it is referred to: its reference may still come.
        over = state.closed and state.peer_closed and (state.handles or not (state.items or state.errors))
        if over and self._states.pop(state.id, None) and state.id % 2:
            self._over.add(state.id)
            while self._over_below in self._over:
                self._over.remove(self._over_below)
                self._over_below += 2

    def on_data(self, number, payload):
        state = self._states.get(number)
        if state is None:
            with self.lock:
                state = self.state_for(number)
        strconfig = self.strconfig if state is None else state.strconfig or self.strconfig
        entry = (load(payload, self.channel_for, *strconfig), len(payload))
        if state is None:
            return
        with self.lock:
            if state.relay is not None and type(entry[0]) in INTEGERS:
                state.relay.on_consumed(entry[0])
            elif not state.no_more_items:
                state.items.append(entry)
                if state.callback is not None:
                    self.schedule(state, 1)
                if state.waiters:
                    state.changed()
                if self.incoming.awaited is state:
                    self.incoming.on_item_awaited()

    def take_item(self, state):
        """The first of the items that have arrived, for the code. With the lock held."""
        item, size = state.items.popleft()
        state.consumed += size
        if state.window != UNBOUNDED:
            self._tell_consumed(state)
        return item

    def _tell_consumed(self, state):
        # With the lock held. Nobody is told who will send no more: it may not know the channel any longer.
        while state.consumed >= state.share() and not (state.closed or state.no_more_items):
            credit = min(state.consumed, 0xFFFFFFFF)
            state.consumed -= credit
            self.posts.put((state, CREDIT, credit))

    def on_credit(self, number, credit):
        with self.lock:
            state = self._states.get(number)
            if state is None or state.closed:
                return  # it has crossed with our CLOSE
            if credit > state.outstanding():
                raise ProtocolError("credit for more bytes than are on their way on channel %d" % number)
            state.credited += credit
            if state.senders:
                state.changed()

    def deflate(self, zlib):
        """From now on what is written is compressed where that pays."""
        self.deflating = Deflating(zlib)

    def on_probe(self, _, number):
        self.posts.put((None, None, lambda: self.write(PASSED, 0, b"", number)))

    def on_passed(self, _, number):
        if self.deflating is None:
            raise ProtocolError("PASSED came, and there are no probes")
        self.deflating.pace.passed(number, now())

    def on_window(self, number, payload):
        window = load(payload, None)
        if window is not None and (type(window) not in INTEGERS or window < 1):
            raise ProtocolError("WINDOW without a number of bytes")
        with self.lock:
            state = self.state_for(number)
            if state is not None and state.relay is None:
                self.use_window(state, 1, window)

    def use_window(self, state, end, window):
        """One of the ends (0: this one) has set the window of a channel. With the lock held."""
        state.windows[end] = UNBOUNDED if window is None else window
        state.window = min(state.windows)
        state.changed()
        self._tell_consumed(state)

    def flows(self):
        """(senders that wait for room, bytes on their way in the windows there are)."""
        with self.lock:
            states = list(self._states.values())
            flowing = [state.outstanding() for state in states if state.window != UNBOUNDED and not state.closed]
            return sum(state.blocked() for state in states), sum(flowing)

    def on_close(self, number, payload=None):
        error = None if payload is None else RemoteError(printable(load_text(payload)))
        with self.lock:
            state = self.state_for(number)
            if state is None:
                return
            answer = not state.closed
            if answer and error is not None:
                state.errors.append(error)
            state.closed = state.peer_closed = True
            self._close_receiving(state)
            self._settle(state)
        if answer:
            self.posts.put((state, CLOSE, b""))

    def on_last(self, number, _):
        with self.lock:
            state = self.state_for(number)
            if state is not None:
                self._close_receiving(state)
                self._settle(state)
                if state.handles and state.handle is None:
                    self.posts.put((state, None, state.handles))

    def on_reconfigure(self, number, payload):
        config = load(payload, None)
        if type(config) is not tuple or [type(flag) for flag in config] != [bool, bool]:
            raise ProtocolError("RECONFIGURE without two booleans")
        if number == 0:
            self.strconfig = config
        else:
            with self.lock:
                state = self.state_for(number)
                if state is not None:
                    state.strconfig = config

    def answer(self, number, payload):
        """Posts a DATA frame and a CLOSE on a channel that nobody else uses."""
        with self.lock:
            state = self.state_for(number)
            if state is None:
                raise ProtocolError("channel id %d was used before" % number)
            state.handles, state.closed, state.no_more_items = 1, True, True
        self.posts.put((state, DATA, payload))
        self.posts.put((state, CLOSE, b""))

    def open_channels(self):
        with self.lock:
            return sum(1 for state in self._states.values() if not state.closed)

    def finish(self):
        """Nothing more comes: ends the receiving of all channels. They can still send."""
        with self.lock:
            self.error = EOFError("the gateway has ended")
            for state in list(self._states.values()):
                self._close_receiving(state)
                state.changed()

    def break_off(self):
        """Sends nothing any more: after what has gone wrong, no channel is to look as if it had ended in good order."""
        self._gone = "cannot send, the connection has failed"

    def leave_in_child(self):
        """In a forked child: this end belongs to the parent alone."""
        self._gone = "cannot send from a forked child of the worker"
        self.incoming.leave_in_child()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (self.stream_fd, self._write_fd):
            os.dup2(null, descriptor, False)
        os.close(null)

    # Callbacks

    def schedule(self, state, count):
        """Has the dispatcher look at a state so many times. With the lock held."""
        self.pending_calls += count
        for _ in range(count):
            self._calls.put(state)

    def start_dispatcher(self):
        """Throws OSError if there is no thread for it. With the lock held."""
        if self._dispatching:
            return
        if self.greenlets and self.greenlets.here():
            self.greenlets.spawn(self._run_dispatcher)
        else:
            try:
                start_thread("dispatcher", for_good, self._run_dispatcher)
            except ThreadError as error:
                raise IOError(errno.EAGAIN, NO_THREAD % error)
        self._dispatching = True

    def _run_dispatcher(self):
        while True:
            self._call_back(self._calls.get())
            with self.lock:
                self.pending_calls -= 1
            self.on_call_done()

    def _call_back(self, state):
        with self.lock:
            if state.items:
                item = self.take_item(state)
            elif state.no_more_items and state.endmarker is not NO_ENDMARKER:
                item, state.endmarker = state.endmarker, NO_ENDMARKER
            else:
                return
        try:
            state.callback(item)
        except:  # noqa: E722 - anything, classic classes included
            error = format_error(sys.exc_info(), self.sources)
            with self.lock:
                state.items.clear()
                if not state.closed:
                    state.errors.append(RemoteError(error))
            if state.closed:
                complain("callback of channel %d: %s" % (state.id, native(error)))
            self.call(self.close, state, error)
