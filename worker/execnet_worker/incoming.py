"""The bytes that come, and who reads them."""

import itertools
import os
import sys
from _collections import deque

from .errors import LoadError
from .frames import DATA, HEADER
from .locks import release, taken_lock
from .system import ThreadError, allocate_lock, get_ident, imap, partial, signal
from .values import load


def handles_signals():
    """Whether handlers of the program's own may run on the main thread."""
    handlers = map(signal.getsignal, range(1, signal.NSIG))
    return any(callable(handler) and handler is not signal.default_int_handler for handler in handlers)


class Incoming(object):
    """The bytes that come, for the receiver; and who reads them.

    To read in one thread what another one waits for costs a switch of threads for each item, with all that two threads
    of Python take to pass on the interpreter. So when the main thread has waited for an item and got it, the receiver
    lends it the reading. If it comes back for the next item within TICK, it reads that itself, up to a frame that is
    something else: that is the receiver's again. If it does not come, the receiver goes on reading.

    KeyboardInterrupt can hit the main thread between any two steps of Python, so it changes nothing here but by calls
    into C that do all or nothing. While it is in there it holds the lock `_inside`, in a `with` statement, so that it
    can be told for sure. All other threads see no such exceptions. Handlers of the program may do worse, as wait for
    what somebody has to read: where there are some, nothing is lent.

    It takes CPython from 3.10 on. Before that an exception can hit between the end of a `with` block and the release
    of its lock. `stream` is a binary file; one without read1(), as of Python 2, is never lent.
    """

    LENDS = sys.version_info >= (3, 10) and sys.implementation.name == "cpython"
    SIZE = 65536  # bytes that are read at once
    TICK = 0.002  # seconds

    def __init__(self, stream, lock):
        self._stream = stream
        self._lock = lock  # Connection.lock
        self._data, self._at = b"", 0  # read, and how much of it was taken
        self._read_some = getattr(stream, "read1", None)  # all that is buffered, or else one read of the system
        self._more_buffered = True  # the stream may hold bytes that it has read already
        self._after_large = False
        self.unfinished = {}  # of read_messages()
        self._messages = 0  # in what was read last
        self._chunks = deque()  # what the main thread has read
        self._permit = {}  # to read once: {None: size}
        self._take_permit = partial(self._permit.pop, None, 0)
        self.main = get_ident()  # the main thread
        self._poll = None  # select.poll, once something was lent
        self._descriptor = self._interrupts = None  # of the stream; a pipe to end the main thread's poll()
        self.lent = False  # guarded by the lock, as are:
        self.awaited = None  # the ChannelState of which the main thread waits for an item, while the receiver reads
        self._due = False  # to be lent, when what was read is done
        self._unwanted = False  # the main thread is to hand it back
        self._reads_made = 0  # by the main thread
        self._inside = allocate_lock()  # held by the main thread while it reads, and by nobody else
        self.waits = deque()  # one for each wait of a thread for what others read
        self._look = taken_lock()  # let go of when the receiver is to look after what it has lent
        self._receiver_sleeps = False  # until the main thread lets go of that

    # For the receiver

    def read(self, size):
        """So many bytes; fewer only at the end of the stream."""
        end = self._at + size
        if end <= len(self._data):
            data, self._at = self._data[self._at : end], end
            return data
        if self._read_some is None:
            return self._stream.read(size)
        # One piece alone is not copied by join().
        pieces, missing = [self._data[self._at :]] if self._at < len(self._data) else [], end - len(self._data)
        self._data, self._at, self._messages = b"", 0, 0
        while missing > 0:
            if self._chunks:
                chunk = self._chunks.popleft()
            elif missing >= self.SIZE or self._after_large:
                # So that of large frames one after the other nothing is copied together, the header comes alone.
                self._after_large, self._more_buffered = missing >= self.SIZE, True
                chunk = self._stream.read(missing)
            else:
                chunk, self._more_buffered = self._read_some(self.SIZE), False
            if not chunk:
                break
            pieces.append(chunk[:missing])
            if len(chunk) > missing:
                self._data, self._at = chunk, missing
            missing -= len(chunk)
        return b"".join(pieces)

    def put_back(self, data):
        """These bytes come next."""
        self._data, self._at = data + self._data[self._at :], 0

    def on_item_awaited(self):
        """An item has come for the main thread. With the lock held."""
        self.awaited, self._due = None, self.LENDS

    def lend(self):
        """Between two messages: lends the reading, if that makes sense, until it is the receiver's again."""
        self._messages += 1
        if not self._due:
            return
        self._due = False
        if self._messages > 1 or handles_signals() or self._poll is None and not self._prepare():
            return  # many at once: the next ones will hardly come alone
        with self._lock:
            at_rest = self._at == len(self._data) and not (self._more_buffered or self._chunks or self.unfinished)
            if not at_rest or self.waits or self._inside.locked():
                return
            self._look.acquire(False)
            self.lent, self._unwanted, seen = True, False, self._reads_made
        while self.lent:
            self._look.acquire(True, self.TICK)
            with self._lock:
                self._receiver_sleeps = True  # first, for the main thread looks at it when it has left
                if not self._inside.locked():
                    self._receiver_sleeps = False
                    if seen == self._reads_made:
                        self._take_back()
                elif handles_signals():
                    self._unwanted = True
                    self.release()
                seen = self._reads_made
            if self._receiver_sleeps and self.lent:
                self._look.acquire()
            self._receiver_sleeps = False

    def _prepare(self):
        import select  # which serve() has imported

        if type(getattr(select, "poll", None)) is not type(len):
            return False  # there is none, or the code has replaced it
        try:
            self._interrupts = os.pipe()  # not inherited
        except EnvironmentError:
            return False
        os.set_blocking(self._interrupts[1], False)
        poll = select.poll()
        self._descriptor = self._stream.fileno()
        for descriptor in (self._descriptor, self._interrupts[0]):
            poll.register(descriptor, select.POLLIN)
        self._poll = poll.poll
        return True

    def _take_back(self):
        # With the lock held.
        self.lent = False
        self._permit.clear()

    # For the main thread

    def read_item(self, state, strconfig):
        """Waits for an item of the channel and reads it; if something else comes, others read it.

        For the main thread, to which it was lent. The state's `waiters` have this object among them.
        """
        if self._unwanted or self._chunks or self._inside.locked():
            # Chunks are left when it was interrupted; the lock is taken in a handler that was set meanwhile.
            self.recall()
            return
        try:
            with self._inside:
                self._read_item(state, strconfig)
        finally:
            # Nothing of Python lies between, where one more interrupt could hit.
            if self._receiver_sleeps:
                try:
                    self._look.release()
                except ThreadError:
                    pass
            if self.waits:
                self.recall()

    def _read_item(self, state, strconfig):
        if not self.lent or self not in state.waiters or self._chunks:
            return
        ready = self._poll()
        if len(ready) != 1 or ready[0][0] != self._descriptor:
            os.read(self._interrupts[0], 4096)
            return
        with self._lock:
            if not self.lent:
                return
            self._permit[None] = self.SIZE
            self._reads_made += 1
        try:
            # All in one; and nothing, if it was handed back meanwhile.
            self._chunks.extend(itertools.islice(imap(self._read_some, iter(self._take_permit, 0)), 1))
        except EnvironmentError:
            pass  # the receiver finds that, too
        chunks = tuple(self._chunks)
        entry = self._item_alone(chunks, state, strconfig)
        if entry is None or not self._take_item(chunks, state, entry):
            self.recall()

    def _item_alone(self, chunks, state, strconfig):
        """The entry of what was read, if that is one item of the channel and nothing else, and without channels."""
        if len(chunks) != 1 or len(chunks[0]) < HEADER.size:
            return None
        chunk = chunks[0]
        kind, flags, reserved, number, length, _ = HEADER.unpack_from(chunk)
        if (kind, flags, reserved, number, length) != (DATA, 0, 0, state.id, len(chunk) - HEADER.size):
            return None
        try:
            return load(chunk[HEADER.size :], None, *strconfig), length
        except LoadError:
            return None  # the receiver finds that, too

    def _take_item(self, chunks, state, entry):
        with self._lock:
            if not self.lent or tuple(self._chunks) != chunks:
                return False
            if state.items or state.no_more_items or state.callback or state.relay:
                return False
            if self in state.waiters:
                state.waiters.remove(self)
            state.changed()
            # All in one: the bytes go, the item comes.
            entries = imap({chunks[0]: entry}.get, iter(self._chunks.popleft, None))
            state.items.extend(itertools.islice(entries, 1))
            return True

    # For all threads

    def recall(self):
        """Has the receiver read again, now. For another thread than the main one: unless that is reading."""
        if self.lent:
            with self._lock:
                if self.lent and (get_ident() == self.main or not self._inside.locked()):
                    self._take_back()
                    release(self._look)

    def release(self):
        """As one of a channel's `waiters`: has the main thread look around, if it reads. With the lock held."""
        if self._inside.locked():
            try:
                os.write(self._interrupts[1], b"x")
            except EnvironmentError:
                pass  # full: it is told already

    def leave_in_child(self):
        self.lent = False
