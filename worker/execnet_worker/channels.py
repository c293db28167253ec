"""Channels, as the code that runs here sees them, and what is known of each."""

from _collections import deque

from .errors import RemoteError, TimeoutError
from .frames import RECONFIGURE, WINDOW
from .locks import acquire_until, deadline_after, release
from .system import allocate_lock, get_ident
from .values import CHANNEL, WRITERS, dump, op_int4

NO_ENDMARKER = object()
UNBOUNDED = 1 << 64  # no window


class ChannelState(object):
    """What this end knows of a channel; guarded by Connection.lock, but for send_lock.

    How a window works is told in docs/wire_format.md. Bytes are counted without one, too: it may come later.
    """

    def __init__(self, number, window=UNBOUNDED):
        self.id = number
        self.items = deque()  # (item, size of its payload), arrived and not yet received
        self.errors = []  # RemoteErrors that nobody was told yet
        self.waiters = []  # locks of the threads that wait for a change; the Incoming for the one that reads
        self.send_lock = allocate_lock()  # one message after the other
        self.closed = False  # this end sends nothing more, or only its CLOSE
        self.last_sent = False
        self.peer_closed = False  # the other end's CLOSE has come
        self.no_more_items = False  # nothing will be added to items
        self.executing = False  # code of remote_exec runs with it
        self.callback = None
        self.endmarker = NO_ENDMARKER  # again when the callback got it
        self.strconfig = None  # None: as the gateway
        self.window = window  # bytes of items that may be on their way in each direction
        self.windows = [UNBOUNDED, UNBOUNDED]  # what this end and the other have set; the smaller holds
        self.sent = 0  # bytes, ever, of items sent; guarded by send_lock
        self.credited = 0  # of them, those that the other side has taken
        self.consumed = 0  # bytes of items that the code has taken, to be told as credit
        self.senders = []  # turns of who waits for room, in the order in which they came: (caller, size, object())
        self.relay = None  # the OpenedProcess that it is the stream of
        self.handle = None  # weak reference to the program's Channel
        self.handles = 0  # how many there have been

    def outstanding(self):
        return self.sent - self.credited

    def may_send(self, turn):
        """Whether there is room, for the first. A signal handler that sends is who it has interrupted."""
        on_the_way = self.outstanding()
        has_room = on_the_way + turn[1] <= self.window or on_the_way < self.share()
        return has_room and turn in self.senders and self.senders[0][0] == turn[0]

    def blocked(self):
        """How many wait for room."""
        return len(self.senders) - (bool(self.senders) and self.may_send(self.senders[0]))

    def end_turn(self, turn):
        if turn in self.senders:
            self.senders.remove(turn)
        if self.senders:
            self.changed()

    def share(self):
        """So many bytes are told at once, and do not keep the next item back."""
        return max(self.window // 8, 1)

    def changed(self):
        for waiter in self.waiters:
            release(waiter)
        del self.waiters[:]


class Channel(object):
    """One end of a two-way stream of values between the two sides of a gateway."""

    RemoteError = RemoteError
    TimeoutError = TimeoutError

    def __init__(self, connection, state):
        self._connection = connection
        self._state = state
        self._handle = state.handles
        self.id = state.id

    @property
    def gateway(self):
        return self._connection.gateway

    def __repr__(self):
        state = self._state
        condition = "closed" if state.closed else "sendonly" if state.no_more_items else "open"
        return "<Channel id=%d %s>" % (self.id, condition)

    def __del__(self):
        try:
            state = self._state
            if state.handles == self._handle:
                state.handle = None  # it may still answer, for another thread
            if not state.closed:
                self._connection.posts.put((state, None, self._handle))
        except Exception:
            pass  # half made, or the interpreter is coming down

    def send(self, item, timeout=None):
        """Sends a value; returns when the operating system has it. Throws DumpError, OSError.

        Waits while the window is full, at most `timeout` seconds: TimeoutError, and nothing was sent.
        """
        connection, state, payload = self._connection, self._state, dump(item)
        deadline = deadline_after(timeout)
        if state.window == UNBOUNDED:
            connection.call(connection.send_item, state, payload)
            return
        turn, sent = (connection.caller(), len(payload), object()), False
        try:
            with connection.lock:
                state.senders.append(turn)
            while not sent:
                self._wait_for_room(turn, deadline)
                sent = connection.call(connection.send_item, state, payload, turn)
        finally:
            with connection.lock:
                state.end_turn(turn)

    def _wait_for_room(self, turn, deadline):
        state, connection = self._state, self._connection
        while True:
            with connection.lock:
                connection.check_open(state)
                if state.may_send(turn):
                    return
                if connection.error is not None:
                    raise IOError("cannot send to %r: its window is full, and this worker is told to end" % self)
                waiter = self._new_waiter()
            self._wait(waiter, deadline, "the window of %r was not free in time")

    def set_window(self, bytes):
        """Sets how many bytes of items may be on their way in each direction, at both ends; None: any number."""
        if bytes is not None and bytes < 1:
            raise ValueError("a window is a number of bytes from 1 on, or None for no window")
        connection, state = self._connection, self._state
        connection.call(connection.send, state, WINDOW, dump(bytes))
        with connection.lock:
            connection.use_window(state, 0, bytes)

    @property
    def window(self):
        """The window of each direction, in bytes; None if there is none."""
        return None if self._state.window == UNBOUNDED else self._state.window

    @property
    def outstanding(self):
        """Bytes sent here and not yet received at the other side; None without a window."""
        with self._connection.lock:
            return None if self._state.window == UNBOUNDED else self._state.outstanding()

    def receive(self, timeout=None, views=False):
        """The next value from the other side; waits for it, at most `timeout` seconds.

        `views` allows for memoryviews where a native worker has them; there are none here.
        Throws TimeoutError; EOFError when the other side has closed; RemoteError, once, when it
        closed with an error.
        """
        state, connection = self._state, self._connection
        incoming = connection.incoming
        deadline = deadline_after(timeout)
        reads = timeout is None and connection.greenlets is None and get_ident() == incoming.main
        while True:
            with connection.lock:
                if state.callback is not None:
                    raise IOError("cannot receive(), %r has a callback" % self)
                if state.items:
                    return connection.take_item(state)
                if state.no_more_items:
                    break
                may_read = reads and incoming.lent
                if may_read and incoming not in state.waiters:
                    state.waiters.append(incoming)
                elif not may_read:
                    waiter = self._new_waiter()
                    if reads:
                        incoming.awaited = state
            if may_read:
                incoming.read_item(state, state.strconfig or connection.strconfig)
            elif reads:
                self._sleep(waiter, deadline, "")
            else:
                self._wait(waiter, deadline, "nothing came for %r in time")
        raise self._getremoteerror() or EOFError("%r has ended" % self)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.receive()
        except EOFError:
            raise StopIteration

    next = __next__

    def setcallback(self, callback, endmarker=NO_ENDMARKER):
        """Has callback(item) called for every item, on a thread of its own, instead of receive().

        If an end marker is given, callback(endmarker) is the last call. A callback that raises
        closes the channel with that error.
        """
        state, connection = self._state, self._connection
        with connection.lock:
            if state.callback is not None:
                raise IOError("%r has a callback already" % self)
            connection.start_dispatcher()  # first: where there is no thread to be had, nothing has changed
            state.callback, state.endmarker = callback, endmarker
            connection.schedule(state, len(state.items) + state.no_more_items)

    def close(self, error=None):
        """Closes both directions; with an error the other side gets it as RemoteError."""
        if self._state.executing:
            raise IOError("cannot explicitly close channel within remote_exec")
        self._connection.call(self._connection.close, self._state, error)

    def isclosed(self):
        """Whether this end can no longer send."""
        return self._state.closed

    def waitclose(self, timeout=None):
        """Waits until the other side will send no more. Throws RemoteError, TimeoutError."""
        deadline = deadline_after(timeout)
        while True:
            with self._connection.lock:
                if self._state.no_more_items:
                    break
                waiter = self._new_waiter()
            self._wait(waiter, deadline, "%r was not closed in time")
        error = self._getremoteerror()
        if error is not None:
            raise error

    def makefile(self, mode="w", proxyclose=False, encoding=None):
        """A file whose writes send, or whose reads receive, strings; closes the channel if told.

        With an encoding the items are bytes, and the file is one of text.
        """
        if mode not in ("r", "w"):
            raise ValueError("mode %r is neither 'r' nor 'w'" % (mode,))
        if encoding is not None:
            u"".encode(encoding)  # refuses what is no encoding of text, too, as codecs do not
        return (ChannelReader if mode == "r" else ChannelWriter)(self, proxyclose, encoding)

    def reconfigure(self, py2str_as_py3str=True, py3str_as_py2str=False):
        """How strings between Python 2 and 3 are loaded on this channel, at both ends."""
        self._state.strconfig = config = (bool(py2str_as_py3str), bool(py3str_as_py2str))
        self._connection.call(self._connection.send, self._state, RECONFIGURE, dump(config))

    def _getremoteerror(self):
        try:
            return self._state.errors.pop(0)
        except IndexError:
            return self._connection.error

    def _new_waiter(self):
        waiter = self._connection.new_waiter()
        self._state.waiters.append(waiter)
        return waiter

    def _wait(self, waiter, deadline, late):
        incoming = self._connection.incoming
        waits = incoming.waits
        try:
            waits.append(None)
            incoming.recall()
            self._sleep(waiter, deadline, late)
        finally:
            waits.pop()

    def _sleep(self, waiter, deadline, late):
        woken = False
        try:
            woken = acquire_until(waiter, deadline)
            if not woken:
                raise TimeoutError(late % self)
        finally:
            if not woken:
                with self._connection.lock:
                    if waiter in self._state.waiters:
                        self._state.waiters.remove(waiter)


WRITERS[Channel] = lambda append, channel: append(op_int4(CHANNEL, channel.id))


class ChannelFile(object):
    """What the two kinds of files over a channel share."""

    def __init__(self, channel, proxyclose, encoding):
        self.channel = channel
        self._proxyclose = proxyclose
        self._codec = None if encoding is None else self._codec_of(encoding)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def isatty(self):
        return False

    def flush(self):
        pass

    def close(self):
        if self._proxyclose:
            self.channel.close()


class ChannelWriter(ChannelFile):
    def _codec_of(self, encoding):
        import codecs

        return codecs.getincrementalencoder(encoding)()

    def write(self, data):
        if self._codec is not None:
            if not isinstance(data, type(u"")):
                raise TypeError("a file with an encoding takes text, not %s" % type(data).__name__)
            data = self._codec.encode(data)
        self.channel.send(data)

    def writelines(self, lines):
        for line in lines:
            self.write(line)


class ChannelReader(ChannelFile):
    _buffer = ""  # becomes bytes or text, as the items are

    def _codec_of(self, encoding):
        import codecs

        return codecs.getincrementaldecoder(encoding)()

    def _more(self):
        try:
            item = self.channel.receive()
        except EOFError:
            if self._codec is not None:
                self._codec.decode(b"", True)  # raises for a character that is not complete
            return False
        if self._codec is not None:
            is_text = isinstance(item, type(u""))
            item = self._codec.decode(b"" if is_text else item, is_text) + (item if is_text else u"")
        self._buffer = self._buffer + item if self._buffer else item
        return True

    def _take(self, size):
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def read(self, size=-1):
        """So many bytes or characters, all for a negative size; less only at the end."""
        while (size < 0 or len(self._buffer) < size) and self._more():
            pass
        return self._take(len(self._buffer) if size < 0 else size)

    def readline(self):
        while True:
            newline = self._buffer.find(b"\n" if isinstance(self._buffer, bytes) else "\n")
            if newline >= 0 or not self._more():
                return self._take(newline + 1 or len(self._buffer))

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    next = __next__
