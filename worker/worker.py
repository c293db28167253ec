"""The pure worker: the far end of an execnet gateway, in one file that needs nothing but Python.

The coordinator sends this source, compressed, to a bare interpreter (CPython 2.7, 3.6 and later,
PyPy), which runs it and calls serve(). What is said then is in docs/wire_format.md.

Threads:
  main         runs the code of remote_exec when it is free; the last to leave. Where it waits for one
               item after the other, it reads them itself: see Incoming
  receiver     reads the stream, decodes, and never writes: a full stream must not stop the reading
  poster       writes what the receiver and __del__ have to say
  dispatcher   calls the callbacks of all channels, in the order of arrival; started by the first
  exec N       runs code of remote_exec while the main thread is taken
  grace N      refuses code that waits too long for the main thread (main_thread_only)
  open N, ...  see to the processes that are started or forked for other gateways: OpenedProcess

With gevent or eventlet the main thread runs code and callbacks in greenlets instead. It does not write
either, then: the poster does.

One lock, Connection.lock, guards what is known of the channels. It is never held while a thread
waits, writes or runs code that is not ours. Channel.__del__ may run anywhere, also where the lock
is held, and so takes no lock at all.
"""

import errno
import io
import itertools
import os
import struct
import sys
import time

try:
    from _thread import allocate_lock, get_ident, start_new_thread
    from _thread import error as ThreadError
except ImportError:  # Python 2
    from thread import allocate_lock, get_ident, start_new_thread
    from thread import error as ThreadError
try:
    import _signal as signal  # the other imports half of the library
except ImportError:
    import signal
from _collections import deque
from _functools import partial
from _weakref import ref

PY3 = sys.version_info[0] >= 3
PROTOCOL = 1
MAGIC = b"EXECNET\x01"
THIS_FILE = "<execnet worker>"
unicode_type = type(u"")
izip, imap = (zip, map) if PY3 else (itertools.izip, itertools.imap)
now = time.monotonic if PY3 else time.time


class RemoteError(Exception):
    """The other side closed a channel with an error: `formatted` is its text, often a traceback."""

    __module__ = "execnet"

    def __init__(self, formatted):
        Exception.__init__(self, formatted)
        self.formatted = formatted

    def __str__(self):
        return native(self.formatted)

    def __repr__(self):
        return "RemoteError: " + native(self.formatted)


class TimeoutError(TimeoutError if PY3 else IOError):
    """Nothing came within the given number of seconds."""

    __module__ = "execnet"


class DataFormatError(Exception):
    """A value does not fit the dump format, or bytes are not of it."""

    __module__ = "execnet"


class DumpError(DataFormatError):
    """The value cannot be sent; says which part of it and why."""

    __module__ = "execnet"


class LoadError(DataFormatError):
    """The bytes are not a value; `offset` tells where, in bytes."""

    __module__ = "execnet"

    def __init__(self, what, offset):
        DataFormatError.__init__(self, "%s at byte %d" % (what, offset))
        self.offset = offset


class ProtocolError(Exception):
    """What the coordinator sent is not of the protocol; nothing that follows can be trusted."""


def native(text):
    """Text as the interpreter's own `str`: on Python 2 that is UTF-8 bytes."""
    return text if PY3 or not isinstance(text, unicode_type) else text.encode("utf-8")


def portable(value):
    """The text of anything, such that it can be sent."""
    text = value if isinstance(value, (bytes, unicode_type)) else str(value)
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    return text.encode("utf-8", "backslashreplace").decode("utf-8") if PY3 else text


# --- Values -------------------------------------------------------------------------------------

(BUILDTUPLE, BYTES, CHANNEL, FALSE, FLOAT, FROZENSET, INT, LONG, LONGINT, LONGLONG, NEWDICT, NEWLIST,
 NONE, PY2STRING, PY3STRING, SET, SETITEM, STOP, TRUE, UNICODE, COMPLEX, BYTES8, STRING8) = range(64, 87)

MAX_DEPTH = 1000  # levels of containers
MAX_DIGITS = 1000000  # decimal digits of an integer
MAX_INT4 = 0x7FFFFFFF

INTEGERS = (int,) if PY3 else (int, long)  # noqa: F821

op_only = struct.Struct(">B").pack
op_int4 = struct.Struct(">Bi").pack
op_int8 = struct.Struct(">Bq").pack
op_double = struct.Struct(">Bd").pack
op_complex = struct.Struct(">Bdd").pack
get_int4 = struct.Struct(">i").unpack_from
get_int8 = struct.Struct(">q").unpack_from
get_double = struct.Struct(">d").unpack_from
get_complex = struct.Struct(">dd").unpack_from

# Interpreters limit and slow down the conversion of long integers: it is done in pieces of so
# many digits, which is less than the lowest limit that sys.set_int_max_str_digits() can set.
PIECE = 500
PIECE_BASE = 10**PIECE


def format_int(number):
    """The decimal digits of an integer, as bytes. Throws ValueError for more than MAX_DIGITS."""
    bits = number.bit_length()
    if bits < 3 * PIECE:
        return ("%d" % number).encode("ascii")
    if bits > 3.33 * MAX_DIGITS or bits > 3.32 * MAX_DIGITS and abs(number) >= 10**MAX_DIGITS:
        raise ValueError("an integer of more than %d digits" % MAX_DIGITS)
    parts, bases = [abs(number)], [PIECE_BASE]
    while bases[-1] * bases[-1] <= parts[0]:
        bases.append(bases[-1] * bases[-1])
    for base in reversed(bases):
        parts = [part for whole in parts for part in divmod(whole, base)]
    digits = "".join(["%0*d" % (PIECE, part) for part in parts]).lstrip("0")
    return ("-" + digits if number < 0 else digits).encode("ascii")


def parse_int(text):
    """The integer that bytes spell in decimal. Throws ValueError unless they are -?[0-9]+."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit():
        raise ValueError("an integer must be decimal digits")
    if len(digits) > MAX_DIGITS:
        raise ValueError("an integer of more than %d digits" % MAX_DIGITS)
    first = len(digits) % PIECE
    parts = [int(digits[:first] or b"0")]
    parts += [int(digits[at : at + PIECE]) for at in range(first, len(digits), PIECE)]
    base = PIECE_BASE
    while len(parts) > 1:
        if len(parts) % 2:
            parts.insert(0, 0)
        parts = [high * base + low for high, low in izip(parts[::2], parts[1::2])]
        base *= base
    return -parts[0] if text[:1] == b"-" else parts[0]


def data_writer(op, wide, encode=None):
    """A writer of strings: opcode, length, bytes; `wide` where `op` cannot say so many."""

    def write(append, value):
        data = encode(value) if encode else value
        size = len(data)
        append(op_int4(op, size) if size <= MAX_INT4 else op_int8(wide, size))
        append(data)

    return write


def write_digits(append, value):
    """An integer that four bytes do not hold."""
    digits = format_int(value)
    append(op_int4(LONGINT if type(value) is int else LONGLONG, len(digits)))
    append(digits)


def encode_utf8(text):
    data = text.encode("utf-8")
    return data if PY3 else without_surrogates(data)


def decode_utf8(data):
    return data.decode("utf-8") if PY3 else without_surrogates(data).decode("utf-8")


def without_surrogates(data):
    """Python 2 lets lone surrogates pass as UTF-8, which nobody else does."""
    if b"\xed" in data and any(rest[:1] >= b"\xa0" for rest in data.split(b"\xed")[1:]):
        raise ValueError("a string: lone surrogates are not UTF-8")
    return data


# type -> what makes bytes of such a value; in C, since a call of Python costs more than all else
SCALARS = {
    type(None): {None: op_only(NONE)}.get,
    bool: {True: op_only(TRUE), False: op_only(FALSE)}.get,
    int: partial(op_int4, INT),
    float: partial(op_double, FLOAT),
}
# type -> what appends such a value to the pieces of a dump
WRITERS = {complex: lambda append, value: append(op_complex(COMPLEX, value.real, value.imag))}
if PY3:
    WRITERS[bytes] = data_writer(BYTES, BYTES8)
    WRITERS[str] = data_writer(PY3STRING, STRING8, encode_utf8)
else:
    SCALARS[INTEGERS[-1]] = partial(op_int4, LONG)
    WRITERS[str] = data_writer(PY2STRING, BYTES8)
    WRITERS[unicode_type] = data_writer(UNICODE, STRING8, encode_utf8)

SET_ITEM = op_only(SETITEM)

WORD = PY3STRING if PY3 else PY2STRING
WORD_SIZE = 64  # characters: no word has so many
MANY_WORDS = 256  # so many are remembered while a value is dumped

# Lists of integers or of floats alone are written and read by columns: a byte of all items at a time.
# type -> opcode, format of struct
NUMBERS = {int: (INT, "i"), float: (FLOAT, "d")}
MANY_NUMBERS = 16  # fewer are not worth it


def pack_numbers(code, numbers):
    return struct.pack(">%d%s" % (len(numbers), code), *numbers)


def write_numbers(numbers, op, code):
    """The items of such a list. Throws struct.error if an integer is too large."""
    count = len(numbers)
    data = bytearray(op_int4(INT, 0) + struct.pack(">B" + code, op, 0) + SET_ITEM) * count
    size = len(data) // count
    for start, packed in (1, pack_numbers("i", range(count))), (6, pack_numbers(code, numbers)):
        width = len(packed) // count
        for at in range(width):
            data[start + at :: size] = packed[at::width]
    return bytes(data)


def read_numbers(data, at, count):
    """The items of such a list and where they end, or None if it is another."""
    for op, code in NUMBERS.values():
        width = struct.calcsize(">" + code)
        size = 7 + width
        items = data[at : at + count * size]
        if items[5::size] == op_only(op) * count and items[::size] == op_only(INT) * count:
            if items[size - 1 :: size] == SET_ITEM * count:
                indices, numbers = bytearray(4 * count), bytearray(width * count)
                for i in range(4):
                    indices[i::4] = items[1 + i :: size]
                for i in range(width):
                    numbers[i::width] = items[6 + i :: size]
                if indices == pack_numbers("i", range(count)):
                    return list(struct.unpack(">%d%s" % (count, code), bytes(numbers))), at + len(items)
    return None


# What goes before the items of a container. The SETITEM that ends one item starts the next.
NOTHING = itertools.repeat(b"")
LIST_PREFIXES = [op_int4(INT, 0)] + [SET_ITEM + op_int4(INT, index) for index in range(1, 256)]
DICT_PREFIXES = [b"", b""] + [SET_ITEM, b""] * 127


def open_list(value):
    value = value[:]
    size = len(value)
    if size >= MANY_NUMBERS and type(value[0]) in NUMBERS and len(set(imap(type, value))) == 1:
        try:
            return op_int4(NEWLIST, size), NOTHING, (), write_numbers(value, *NUMBERS[type(value[0])])
        except struct.error:  # one by one, then
            pass
    prefixes = LIST_PREFIXES
    if size > len(prefixes):
        more = (SET_ITEM + op_int4(INT, index) for index in itertools.count(len(prefixes)))
        prefixes = itertools.chain(prefixes, more)
    return op_int4(NEWLIST, size), prefixes, value, SET_ITEM if size else b""


def open_dict(value):
    items = list(itertools.chain.from_iterable(list(value.items())))
    prefixes = DICT_PREFIXES
    if len(items) > len(prefixes):
        prefixes = itertools.chain(prefixes, itertools.cycle((SET_ITEM, b"")))
    return op_only(NEWDICT), prefixes, items, SET_ITEM if items else b""


def open_with(op):
    def open_run(value):
        return b"", NOTHING, tuple(value), op_int4(op, len(value))

    return open_run


# type -> a function that gives what goes before the items, before each, a copy of the items (other
# threads may change the original), and what goes after
CONTAINERS = {
    list: open_list,
    dict: open_dict,
    tuple: open_with(BUILDTUPLE),
    set: open_with(SET),
    frozenset: open_with(FROZENSET),
}


def write_buffer(append, item):
    """What has the buffer protocol goes as the bytes it holds; but no single number, as NumPy has them."""
    try:
        view = None if isinstance(item, bytes) else memoryview(item)
    except TypeError:
        view = None
    if view is None or view.ndim == 0:
        raise ValueError(repr(type(item)))
    WRITERS[bytes](append, view.tobytes())


def dump(value):
    """The bytes of a value, without version byte. Throws DumpError."""
    pieces = []
    append = pieces.append
    scalars, writers = SCALARS, WRITERS
    words = {}  # keys of records, and the like, come again and again
    kind, items, pairs, end = None, (value,), izip(NOTHING, (value,)), op_only(STOP)
    outer = []  # (kind, items, pairs, end) of the containers around
    try:
        while True:
            for prefix, item in pairs:
                append(prefix)
                item_kind = type(item)
                if item_kind is str and len(item) < WORD_SIZE:
                    word = words.get(item)
                    if word is None:
                        word = item.encode("utf-8") if PY3 else item
                        word = op_int4(WORD, len(word)) + word
                        if len(words) < MANY_WORDS:
                            words[item] = word
                    append(word)
                elif item_kind in scalars:
                    try:
                        append(scalars[item_kind](item))
                    except struct.error:
                        write_digits(append, item)
                elif item_kind in writers:
                    writers[item_kind](append, item)
                elif item_kind in CONTAINERS:
                    if len(outer) == MAX_DEPTH:
                        raise ValueError("more than %d levels of nesting" % MAX_DEPTH)
                    outer.append((kind, items, pairs, end))
                    kind = item_kind
                    start, prefixes, items, end = CONTAINERS[kind](item)
                    append(start)
                    pairs = izip(prefixes, items)
                    break
                else:
                    write_buffer(append, item)
            else:
                append(end)
                if not outer:
                    return b"".join(pieces)
                kind, items, pairs, end = outer.pop()
    except (ValueError, struct.error) as error:
        if isinstance(error, UnicodeError):
            what = "a string: lone surrogates are not UTF-8"
        elif isinstance(error, struct.error):
            what = "a container of that many items"
        else:
            what = str(error)
    raise DumpError("can't serialize " + what + dump_path(outer[1:] + [(kind, items, pairs, end)]))


def dump_path(levels):
    """Where in a value its dump stopped, as in " at [3]['status']"; of a long path both ends."""
    steps = []
    for kind, items, pairs, _ in levels:
        if kind is None:
            return ""
        at = len(items) - 1 - sum(1 for _ in pairs)
        if kind is dict:
            steps.append(("[%r]" if at % 2 else "{%r: ...}") % (items[at - at % 2],))
        else:
            steps.append("[%d]" % at if kind in (list, tuple) else "{...}")
    if len(steps) > 16:
        steps[8:-8] = ["..."]
    return " at " + "".join(steps)


def load(data, channel_for, py2str_as_py3str=True, py3str_as_py2str=False):
    """The value of a dump without version byte. Throws LoadError.

    `channel_for` gives the channel of an id; the other two are what Channel.reconfigure() sets.
    """
    size = len(data)
    ops = data if PY3 else bytearray(data)
    int4 = get_int4
    # Beside each item on the stack, how many levels of containers it has. -1: an integer in decimal, no list index.
    stack, levels = [], []
    push, pop, push_level, pop_level = stack.append, stack.pop, levels.append, levels.pop
    spare_items = size // 6  # so many items of lists the bytes can fill

    at = start = 0
    try:
        while True:
            start = at
            op = ops[at]
            at += 1
            if op == SETITEM:
                item = pop()
                level = pop_level()
            else:
                level = 0
                if op == INT:
                    (item,) = int4(data, at)
                    at += 4
                elif op in STRINGS:
                    if op < BYTES8:
                        (length,) = int4(data, at)
                        at += 4
                    else:
                        (length,) = get_int8(data, at)
                        at += 8
                    end = at + length
                    if not at <= end <= size:
                        raise ValueError("bad length %d, %d bytes are there" % (length, size - at))
                    item = data[at:end]
                    at = end
                    if op == PY3STRING or op == STRING8:
                        if not py3str_as_py2str:
                            item = item.decode() if PY3 else decode_utf8(item)
                    elif op == UNICODE:
                        item = decode_utf8(item)
                    elif op == PY2STRING:
                        if PY3 and py2str_as_py3str:
                            item = item.decode("latin-1")
                    elif op == LONGINT or op == LONGLONG:
                        item = parse_int(item)
                        level = -1
                elif op == FLOAT:
                    (item,) = get_double(data, at)
                    at += 8
                elif op == NONE:
                    item = None
                elif op == TRUE:
                    item = True
                elif op == FALSE:
                    item = False
                elif op == NEWDICT:
                    item = {}
                    level = 1
                elif op == NEWLIST:
                    (count,) = int4(data, at)
                    at += 4
                    if not 0 <= count <= spare_items:
                        raise ValueError("a list of %d items is more than the input can fill" % count)
                    spare_items -= count
                    numbers = read_numbers(data, at, count) if count >= MANY_NUMBERS else None
                    item, at = numbers or ([None] * count, at)
                    level = 1
                elif op in RUNS:
                    (count,) = int4(data, at)
                    at += 4
                    base = len(stack) - count
                    if not 0 <= base <= len(stack):
                        raise ValueError("%d items wanted, %d there" % (count, len(stack)))
                    item = RUNS[op](stack[base:])
                    level = check_level(max(levels[base:]) if count else 0)
                    del stack[base:], levels[base:]
                elif op == STOP:
                    break
                elif op == LONG:
                    item = INTEGERS[-1](int4(data, at)[0])
                    at += 4
                elif op == COMPLEX:
                    item = complex(*get_complex(data, at))
                    at += 16
                elif op == CHANNEL:
                    (number,) = int4(data, at)
                    at += 4
                    if number <= 0 or channel_for is None:
                        raise ValueError("bad channel id %d" % number if channel_for else "a channel without a gateway")
                    item = channel_for(number)
                else:
                    raise ValueError("unknown opcode %d" % op)
                # Of most items of lists and dicts SETITEM comes next: these never get on the stack.
                start = at
                if ops[at] != SETITEM:
                    push(item)
                    push_level(level)
                    continue
                at += 1
            key = pop()
            key_level = pop_level()
            target = stack[-1]
            if type(target) is list:
                if key_level < 0 or type(key) not in INTEGERS or not 0 <= key < len(target):
                    raise ValueError("bad list index %r" % (key,))
            elif type(target) is not dict:
                raise ValueError("items can be set in a list or dict only")
            if key_level > level:
                level = key_level
            if level >= levels[-1]:
                levels[-1] = check_level(level)
            target[key] = item
        if len(stack) != 1:
            raise ValueError("the value ends with %d items instead of 1" % len(stack))
    except struct.error:
        raise LoadError("truncated", start)
    except IndexError:
        raise LoadError("truncated" if start >= size else "nothing to work on", start)
    except (ValueError, TypeError) as error:  # TypeError: an unhashable key or set member
        raise LoadError(str(error), start)
    if at != size:
        raise LoadError("%d bytes after the end of the value" % (size - at), at)
    return stack[0]


def check_level(level):
    """The level of what holds something of that level."""
    if level >= MAX_DEPTH:
        raise ValueError("more than %d levels of nesting" % MAX_DEPTH)
    return max(level, 0) + 1


def load_text(payload):
    """A payload that has to be one string."""
    text = load(payload, None)
    if not isinstance(text, unicode_type):
        raise ProtocolError("a string was expected, not %r" % type(text))
    return text


STRINGS = frozenset([BYTES, PY3STRING, PY2STRING, UNICODE, LONGINT, LONGLONG, BYTES8, STRING8])
RUNS = {BUILDTUPLE: tuple, SET: set, FROZENSET: frozenset}


# --- Frames -------------------------------------------------------------------------------------

(HELLO, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST, TERMINATE, STATUS, RECONFIGURE, CREDIT,
 OPEN, WINDOW, RINGS) = range(1, 14)
WITHOUT_PAYLOAD = frozenset([CLOSE, LAST, TERMINATE, STATUS, CREDIT])
HEADER = struct.Struct("<BBHIII")  # type, flags, reserved, channel, length, credit (of CREDIT)
MORE, ABORT = 1, 2
CHUNK = 256 * 1024  # longer payloads are sent in several frames
MAX_LENGTH = 1024 * 1024


def read_messages(stream, unfinished=None):
    """Yields (type, channel id, payload, of CREDIT the credit) until the stream ends. Throws ProtocolError.

    `unfinished` is a dictionary for what has come of messages in several frames: channel id -> (type, payloads).
    """
    chunks = {} if unfinished is None else unfinished
    while True:
        header = stream.read(HEADER.size)
        if len(header) < HEADER.size:
            return
        kind, flags, reserved, channel, length, credit = HEADER.unpack(header)
        if not HELLO <= kind <= WINDOW:
            raise ProtocolError("unknown frame type %d" % kind)
        if flags > ABORT or reserved:
            raise ProtocolError("reserved bits are set: flags %d, reserved %d" % (flags, reserved))
        if length > MAX_LENGTH:
            raise ProtocolError("a frame of %d bytes is over the limit of %d" % (length, MAX_LENGTH))
        if (length or flags == MORE) and (kind in WITHOUT_PAYLOAD or flags == ABORT):
            raise ProtocolError("a frame of type %d and flags %d cannot have a payload" % (kind, flags))
        if (channel == 0) != (kind in (HELLO, TERMINATE)) and kind != RECONFIGURE:
            raise ProtocolError("type %d is out of place on channel %d" % (kind, channel))
        payload = stream.read(length) if length else b""
        if len(payload) < length:
            return
        if flags or channel in chunks:
            first_kind, payloads = chunks.setdefault(channel, (kind, []))
            if kind != first_kind:
                raise ProtocolError("type %d among the chunks of a message of type %d" % (kind, first_kind))
            payloads.append(payload)
            if flags == MORE:
                continue
            del chunks[channel]
            if flags == ABORT:
                continue
            payload = b"".join(payloads)
        yield kind, channel, credit if kind == CREDIT else payload


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

    It takes CPython from 3.10 on, before which an exception can hit between the end of a `with` block and the release
    of its lock, to 3.13, after which it can between the taking of the lock and the block. `stream` is a binary file;
    one without read1(), as of Python 2, is never lent.
    """

    LENDS = (3, 10) <= sys.version_info < (3, 14) and sys.implementation.name == "cpython"
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
        import select  # which the receiver has imported

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


# --- Channels -----------------------------------------------------------------------------------


class Mailbox(object):
    """A queue for one reader. put() takes no lock and never waits, so that __del__ may call it."""

    def __init__(self, wake):
        self._items = deque()
        self._wake = wake

    def put(self, item):
        self._items.append(item)
        if self._wake.locked():  # else it was let go of, and will be looked at
            release(self._wake)

    def get(self):
        while True:
            try:
                return self._items.popleft()
            except IndexError:
                self._wake.acquire()


def release(lock):
    """Lets go of a lock that stands for "something has happened"; it may have been let go."""
    try:
        lock.release()
    except ThreadError:
        pass


class GreenLock(object):
    """A lock, made taken, for greenlets to wait for. Any thread may release() it."""

    def __init__(self, greenlets):
        import fcntl

        self._wait_readable = greenlets.wait_readable
        self._pipe = os.pipe()
        for descriptor in self._pipe:
            close_on_exec(descriptor)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK)

    def release(self):
        try:
            os.write(self._pipe[1], b"x")
        except EnvironmentError:
            pass  # full: a wake-up is pending

    def locked(self):
        return True  # maybe

    def acquire(self, seconds=None):
        self._wait_readable(self._pipe[0], seconds)
        try:
            return bool(os.read(self._pipe[0], 4096))
        except EnvironmentError:
            return False

    def __del__(self):
        for descriptor in self._pipe:
            os.close(descriptor)


def acquire_until(lock, deadline):
    """Waits for a lock until now() is `deadline` (None: for ever); False if that came first."""
    if isinstance(lock, GreenLock):
        return lock.acquire(deadline and max(0, deadline - now()))
    if deadline is None:
        return lock.acquire()
    if PY3:
        return lock.acquire(True, min(max(0, deadline - now()), 1000000))
    delay = 0.0005
    while not lock.acquire(False):
        left = deadline - now()
        if left <= 0:
            return False
        delay = min(delay * 2, left, 0.05)
        time.sleep(delay)
    return True


def taken_lock():
    lock = allocate_lock()
    lock.acquire()
    return lock


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
        if state.window == UNBOUNDED:
            connection.call(connection.send_item, state, payload)
            return
        deadline = None if timeout is None else now() + timeout
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
        deadline = None if timeout is None else now() + timeout
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
            state.callback, state.endmarker = callback, endmarker
            connection.schedule(state, len(state.items) + state.no_more_items)
        connection.start_dispatcher()

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
        deadline = None if timeout is None else now() + timeout
        while True:
            with self._connection.lock:
                if self._state.no_more_items:
                    break
                waiter = self._new_waiter()
            self._wait(waiter, deadline, "%r was not closed in time")
        error = self._getremoteerror()
        if error is not None:
            raise error

    def makefile(self, mode="w", proxyclose=False):
        """A file whose writes send, or whose reads receive, strings; closes the channel if told."""
        if mode not in ("r", "w"):
            raise ValueError("mode %r is neither 'r' nor 'w'" % (mode,))
        return (ChannelReader if mode == "r" else ChannelWriter)(self, proxyclose)

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

    def __init__(self, channel, proxyclose):
        self.channel = channel
        self._proxyclose = proxyclose

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
    def write(self, data):
        self.channel.send(data)

    def writelines(self, lines):
        for line in lines:
            self.channel.send(line)


class ChannelReader(ChannelFile):
    _buffer = ""  # becomes bytes or text, as the items are

    def _more(self):
        try:
            item = self.channel.receive()
        except EOFError:
            return False
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
            newline = self._buffer.find(b"\n" if isinstance(self._buffer, bytes) else u"\n")
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
        self.gateway = None
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
        if size <= CHUNK:
            with self._turn, self._out_lock:
                self._put(HEADER.pack(kind, 0, 0, number, size, credit) + payload, begun)
            return
        try:
            for at in range(0, size, CHUNK):
                chunk, more = payload[at : at + CHUNK], at + CHUNK < size
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
        try:
            begun.extend(imap(self._out.write, (frame,)))  # no signal handler comes between the two
            self._out.flush()
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
        # One that was never referred to stays: its reference may still come.
        if state.closed and state.peer_closed and state.handles and self._states.pop(state.id, None) and state.id % 2:
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
        error = None if payload is None else RemoteError(load_text(payload))
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
        with self.lock:
            started, self._dispatching = self._dispatching, True
        if not started and self.greenlets and self.greenlets.here():
            self.greenlets.spawn(self._run_dispatcher)
        elif not started:
            start_thread("dispatcher", self._run_dispatcher)

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


# --- Execution ----------------------------------------------------------------------------------


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
        self.ending = False
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
        opened = OpenedProcess(connection, channel, request[0], request[1], request[3])
        with connection.lock:
            channel._state.relay, channel._state.window = opened, UNBOUNDED  # it has its own
            self._unfinished += 1
        start_thread("open %d" % number, self._run_opened, opened)

    def _run_opened(self, opened):
        opened.run()
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
            if begin and self.ending:
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
            exec(compile_source(code_of, filename), namespace)
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


# --- Proxy --------------------------------------------------------------------------------------

RELAY_WINDOW = 1024 * 1024  # bytes that may be under way on a channel in one direction
PIECE_SIZE = 64 * 1024
TAIL = 4096  # bytes of a process's stderr that are kept for error messages
MOST_SOURCES = 128 * 1024  # bytes that a fork server reads first, which a socket takes at once


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


def describe_end(code):
    return "exit status %d" % code if code >= 0 else "killed by " + signal_name(-code)


def signal_name(number):
    for name in dir(signal):
        if name.startswith("SIG") and name[3] != "_" and getattr(signal, name) == number:
            return name
    return "signal %d" % number


def children_of_all():
    """The process table: parent -> list of children; empty without /proc."""
    children = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as stat:
                    parent = int(stat.read().rpartition(b")")[2].split()[1])
            except EnvironmentError:
                continue  # it has just ended
            children.setdefault(parent, []).append(int(name))
    return children


def kill_tree(pid):
    children = children_of_all()
    doomed = [pid]
    for one in doomed:
        doomed += children.get(one, [])
    for one in doomed:
        try:
            os.kill(one, signal.SIGKILL)
        except EnvironmentError:
            pass  # it has just ended


# --- The fork servers of a proxy ------------------------------------------------------------------

FORK, COLLECT = 1, 2  # what fork_server.py is asked for, and says
READY, FORKED = 1, 2
SYS_PIDFD_OPEN = 434
fork_servers = {}  # (arguments, environment, directory) -> ForkServer
fork_servers_lock = allocate_lock()


class ForkError(Exception):
    """Why there is no worker of a fork server, or none any more."""


def fork_server(argv, env, sources):
    """The one that fits, or a new one."""
    if not PY3 or not LINUX:
        raise ForkError("preload needs Python 3, and this is Python %s on %s" % (sys.version.split()[0], sys.platform))
    key = (tuple(argv), tuple(sorted(env.items())), os.getcwd())
    with fork_servers_lock:
        server = fork_servers.get(key)
        if server is None or server.is_over():
            server = fork_servers[key] = ForkServer(argv, env, sources)
        return server


def pidfd_open(pid):
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    import ctypes  # before 3.9

    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_OPEN, pid, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_open")
    return fd


class ForkServer(object):
    """An interpreter that forks workers for this proxy; src/core/fork_server.hpp is the same for a native one.

    One request at a time: who asks reads the answer.
    """

    def __init__(self, argv, env, sources):
        import socket
        import subprocess

        self.control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                argv, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env
            )
        self._stderr = StderrTail("fork server", self._process.stderr)
        self._turn = allocate_lock()  # to ask
        self._lock = allocate_lock()  # guards what follows
        self._awaited = 0  # by so many, until it is ready
        self._numbers = itertools.count(1)
        self._ready = False
        self._how = None  # it ended
        try:
            self.control.sendall(sources)
        except EnvironmentError:
            pass  # it has ended

    def is_over(self):
        import select

        end = select.poll()
        end.register(self.control, 0)
        return bool(self._how or end.poll(0))

    def fork(self, stream, state):
        """A worker with that stream, if the channel of that state is still there by then. Throws ForkError."""
        import socket

        with self._lock:
            number = next(self._numbers)
            self._awaited += 1
        read, write = os.pipe()
        try:
            descriptors = struct.pack("=4i", stream.fileno(), write, write, write)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            kind, value, text = self._ask(FORK, number, rights, wanted=lambda: not state.no_more_items)
            if kind != FORKED:
                raise ForkError("its fork server has not started it: " + text)
            return ForkedProcess(self, number, value, os.fdopen(read, "rb", 0))
        except ForkError as error:
            os.close(read)
            raise ForkError(self._stderr.after(str(error)) if self._how else str(error))
        finally:
            os.close(write)

    def give_up(self):
        """One less waits for it. One that nobody waits for, and that still imports, is ended: it may do so for ever."""
        with self._lock:
            self._awaited -= 1
            if self._awaited or self._ready or self._process.poll() is not None:
                return
        kill_tree(self._process.pid)

    def collect(self, number):
        """How a worker has ended, which it has, as Popen.wait() says it. Throws ForkError."""
        answer = self._ask(COLLECT, number, deadline=now() + 0.5)
        if answer is None:
            raise ForkError("exit status unknown: its fork server does not answer")
        status = answer[1]
        if status < 0:
            raise ForkError("exit status unknown")
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def _ask(self, kind, number, rights=(), wanted=None, deadline=None):
        """Kind, value and text of the answer; None if there is none by the deadline. Throws ForkError."""
        import socket

        if not acquire_until(self._turn, deadline):
            return None
        try:
            if not self._ready and wanted():
                self._wait_ready()
            if wanted is not None and not wanted():
                raise ForkError("it was given up before it was forked")
            self.control.sendmsg([struct.pack("=II", kind, number)], rights)
            while True:
                self.control.settimeout(deadline and max(0.001, deadline - now()))
                answer, its_number, value, text = self._read()
                if its_number == number:  # else somebody has not waited for it
                    return answer, value, text
        except socket.timeout:
            return None
        except EnvironmentError:
            raise ForkError(self._end())
        finally:
            self._turn.release()

    def _wait_ready(self):
        _, _, _, namespace = self._read()
        if namespace != os.readlink("/proc/self/ns/pid"):
            self._how = "it runs in another PID namespace, where its workers cannot be seen to: leave out preload"
            kill_tree(self._process.pid)
            raise ForkError(self._end())
        self._ready = True
        self._stderr.pass_on()

    def _read(self):
        kind, number, value, length = struct.unpack("=IIiI", self._receive(16))
        return kind, number, value, self._receive(length).decode("utf-8", "replace")

    def _receive(self, size):
        data = b""
        while len(data) < size:
            more = self.control.recv(size - len(data))
            if not more:
                raise EnvironmentError("it is gone")
            data += more
        return data

    def _end(self):
        """How it has ended. It has closed its socket."""
        deadline = now() + 0.5
        while self._process.poll() is None and now() < deadline:
            time.sleep(0.005)
        if self._process.poll() is None:
            kill_tree(self._process.pid)
        code = self._process.wait()
        self._how = self._how or "its fork server has ended: " + describe_end(code)
        return self._how


class ForkedProcess(object):
    """A worker of a fork server, with what OpenedProcess uses of a Popen.

    It is a zombie until its fork server collects it: when its pidfd says that it has ended.
    """

    def __init__(self, server, number, pid, stderr):
        self._server, self._number = server, number
        self.pid, self.stderr = pid, stderr
        self._pidfd = pidfd_open(pid)

    def wait(self):
        import select

        ends = select.poll()
        ends.register(self._pidfd, select.POLLIN)
        ends.register(self._server.control, 0)
        if self._pidfd not in dict(ends.poll()):  # its fork server is gone
            kill_tree(self.pid)
            ends.unregister(self._server.control)
            ends.poll()
        os.close(self._pidfd)
        return self._server.collect(self._number)


# --- The guard ----------------------------------------------------------------------------------

MOMENT = 0.3  # seconds for a worker whose stream has ended, and for what a worker leaves behind, to end by itself
LINUX = sys.platform.startswith("linux")
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
POLLRDHUP = 0x2000 if LINUX else 0


def prctl(option, value):
    """Whether this is a Linux whose C library can be called, and agrees."""
    if not LINUX:
        return False
    try:
        import ctypes

        return ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0
    except Exception:
        return False


def fork_under_guard(stream_fd):
    """Returns in a child of a child, as the worker. The two processes above see to it that nothing of it stays.

    Where no program of ours runs, that is over ssh, behind a pure proxy and at a socket server. It is what
    guard/guard.cpp is elsewhere: both adopt what the worker leaves behind, either notices when the other one is killed,
    and when the stream ends so do all, even if the worker is in C code and keeps the interpreter's lock.

    Where nothing can be adopted, for want of prctl(), the worker and what it starts are a process group of their own,
    to which the keyboard's signals do not come, and are killed as one; what leaves the group stays. Its number is the
    inner guard's, which is not in it: so it cannot be a stranger's as long as that one is there.
    """
    if not hasattr(os, "fork"):
        return
    above = None  # a pipe that ends with the process above
    for inner in (False, True):
        guard, outside, adopts = os.getpid(), os.getpgrp(), prctl(PR_SET_CHILD_SUBREAPER, 1)
        if not adopts:
            set_group(0)
        alive, keep = os.pipe()
        child = os.fork()
        if child:
            try:
                # Out of the worker's group, to survive `kill -9 -GROUP`, and of its session: guard.cpp tells why.
                if adopts:
                    leave_session()
                else:
                    set_group(outside if inner else 0)
                group = None if adopts else guard if inner else child
                Guard(child, [fd for fd in (stream_fd, above) if fd is not None], keep, group).run()
            finally:
                os._exit(1)
        os.close(keep)
        if above is not None:
            os.close(above)
        above = alive
    os.close(above)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)


def leave_session():
    try:
        os.setsid()
    except EnvironmentError:
        pass  # leads it, or its group


def set_group(number):
    try:
        os.setpgid(0, number)
    except EnvironmentError:
        pass  # leads a session


class Guard(object):
    """One of the two; `group` is the number of the worker's process group where that is killed, else None."""

    def __init__(self, child, ends, keep, group):
        import select

        self._child, self._group = child, group
        self._status = None
        self._signals = []  # that came, to be passed on
        for fd in range(256):
            if fd not in ends and fd != keep:
                try:
                    os.close(fd)  # nobody is to wait for the end of what we hold
                except EnvironmentError:
                    pass
        self._wakeup, wakeup = os.pipe()
        import fcntl

        fcntl.fcntl(wakeup, fcntl.F_SETFL, os.O_NONBLOCK)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: self._signals.append(number))
        self._error = select.error
        self._poll = select.poll()
        self._poll.register(self._wakeup, select.POLLIN)
        for fd in ends:
            self._poll.register(fd, POLLRDHUP)

    def run(self):
        deadline = None
        ended = False  # the stream, or the process above
        while self._collect(os.WNOHANG) or self._group_is_left():
            self._pass_on()
            if deadline is None and (ended or self._status is not None):
                deadline = now() + MOMENT
            left = None if deadline is None else deadline - now()
            if left is not None and left <= 0:
                self._sweep()
                break
            if self._status is not None and self._group is not None:
                left = min(left, 0.02)  # nobody tells when the group is empty
            try:
                ready = self._poll.poll(None if left is None else int(left * 1000) + 1)
            except (EnvironmentError, self._error):
                ready = ()  # a signal
            for fd, _ in ready:
                if fd == self._wakeup:
                    os.read(fd, 512)
                else:
                    self._poll.unregister(fd)
                    ended = True
        self._end_like_child()

    def _pass_on(self):
        while self._signals:
            number = self._signals.pop(0)
            if self._status is None:
                os.kill(self._child, number)

    def _collect(self, options):
        """Whether there are children left."""
        while True:
            try:
                pid, status = os.waitpid(-1, options)
            except EnvironmentError as error:
                if error.errno != errno.EINTR:
                    return False
                continue
            if pid == 0:
                return True
            if pid == self._child:
                self._status = status
            options = os.WNOHANG

    def _group_is_left(self):
        try:
            if self._group == os.getpid():
                os.killpg(self._group, 0)
                return True
        except EnvironmentError:
            pass
        return False

    def _sweep(self):
        while True:
            killed = 0
            for kill, target in self._targets():
                try:
                    kill(target, signal.SIGKILL)
                    killed += 1
                except EnvironmentError:
                    pass  # it has just ended, or runs as somebody else
            if not killed or not self._collect(0):
                return

    def _targets(self):
        """What to kill: none of them has been collected, so that no number is a stranger's."""
        child = [(os.kill, self._child)] if self._status is None else []
        if self._group is None:
            return [(os.kill, pid) for pid in children_of_all().get(os.getpid(), ())] or child
        return [(os.killpg, self._group)] + child if child or self._group == os.getpid() else []

    def _end_like_child(self):
        status = self._status
        if status is None:
            os._exit(1)
        if os.WIFEXITED(status):
            os._exit(os.WEXITSTATUS(status))
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # there is one of the child's already
        prctl(PR_SET_DUMPABLE, 0)  # a core that is piped to a program knows no limit: core(5)
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(128 + number)


def check_exec(request):
    """Throws ProtocolError unless it is what EXEC has to carry."""
    if type(request) is tuple and len(request) == 5:
        source, filename, first_line, function, kwargs = request
        texts = [text for text in (source, filename, function) if text is not None]
        good = all(isinstance(text, (str, unicode_type)) for text in texts) and source is not None
        if good and type(first_line) is int and type(kwargs) is dict:
            return
    raise ProtocolError("EXEC without (source, filename, first line, function, kwargs)")


def compile_source(code_of, filename):
    first_line, source = code_of
    if not PY3:  # it is UTF-8, whatever encoding its file had
        lines = source.split("\n", 2)
        for index, line in enumerate(lines[:2]):
            if line.lstrip().startswith("#"):
                lines[index] = line.replace("coding", "encoded", 1)
        source = "\n".join(lines)
    padded = "\n" * (first_line - 1) + source
    return compile(padded if PY3 else b"\xef\xbb\xbf" + padded, filename, "exec", 0, True)


def format_error(error, sources):
    """The traceback of sys.exc_info() as text, without the frames of this file.

    `sources` (file name -> (first line, source)) are shown where the files are not, or not the same.
    """
    import linecache
    import traceback

    saved = {}
    try:
        trace = error[2]
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if name in sources and name not in saved:
                first_line, source = sources[name]
                lines = linecache.getlines(name)[: max(0, first_line - 1)]
                lines += ["\n"] * (first_line - 1 - len(lines))
                lines += [line + "\n" for line in source.split("\n")]
                lines += linecache.getlines(name)[len(lines) :]
                saved[name] = linecache.cache.get(name)
                linecache.cache[name] = (1, None, lines, name)
            trace = trace.tb_next
        if not PY3:
            frames = [frame for frame in traceback.extract_tb(error[2]) if frame[0] != THIS_FILE]
            parts = ["Traceback (most recent call last):\n"] + traceback.format_list(frames)
            return portable("".join(parts + traceback.format_exception_only(*error[:2])))
        report = traceback.TracebackException(*error)
        reports = [report]
        while reports:
            one = reports.pop()
            one.stack[:] = [frame for frame in one.stack if frame.filename != THIS_FILE]
            reports += [other for other in (one.__cause__, one.__context__) if other is not None]
            reports += getattr(one, "exceptions", None) or []
        return portable("".join(report.format()))
    except Exception as failure:
        return portable("%s (its traceback cannot be shown: %r)" % (error[0], failure))
    finally:
        for name, entry in saved.items():
            if entry is None:
                linecache.cache.pop(name, None)
            else:
                linecache.cache[name] = entry


def start_thread(name, target, *args):
    import threading  # was imported by the main thread

    thread = threading.Thread(target=target, name="execnet " + name, args=args)
    thread.daemon = True
    thread.start()
    return thread


def flush(file):
    try:
        file.flush()
    except Exception:
        pass  # None, closed, or replaced by something that is no file


def complain(text):
    try:
        sys.stderr.write("execnet worker: %s\n" % text)
    except Exception:
        pass


GREEN = ("gevent", "eventlet")


class Greenlets(object):
    """The greenlets of the main thread."""

    def __init__(self, execmodel):
        from greenlet import getcurrent

        package = __import__(execmodel)
        self._main = get_ident()
        self.current, self.spawn, self.kill = getcurrent, package.spawn, package.kill
        self.late = type("Late", (Exception,), {})
        if execmodel == "gevent":
            from gevent.socket import wait_read

            self._wait = lambda fd, seconds: wait_read(fd, seconds, self.late())
        else:
            from eventlet.hubs import trampoline

            __import__("eventlet.green.threading")  # in a greenlet, on 3.13, it could not be

            self._wait = lambda fd, seconds: trampoline(fd, True, timeout=seconds, timeout_exc=self.late)

    def here(self):
        return get_ident() == self._main

    def wait_readable(self, fd, seconds):
        """Runs other greenlets until the descriptor is readable, or for so many seconds."""
        try:
            self._wait(fd, seconds)
        except self.late:
            pass


class ExecModel(object):
    """What programs look for at gateway.execmodel: the modules and functions of its model."""

    def __init__(self, backend):
        self.backend = backend
        self.fdopen = os.fdopen
        self.get_ident, self.start, source = get_ident, self._start_thread, time
        if backend in GREEN:
            source = __import__(backend)
            current = __import__("greenlet").getcurrent
            self.get_ident = lambda: id(current())
            self.start = lambda function, args=(): source.spawn(function, *args)
        self.sleep = source.sleep

    def __repr__(self):
        return "<ExecModel %r>" % self.backend

    def __getattr__(self, name):
        gevent, eventlet = self.backend == "gevent", self.backend == "eventlet"
        modules = {
            "queue": "queue" if gevent or PY3 and not eventlet else "Queue",
            "Lock": "threading",
            "RLock": "lock" if gevent else "threading",
            "Event": "event" if gevent else "threading",
        }
        if name not in modules and name not in ("subprocess", "socket"):
            raise AttributeError(name)
        module = ("gevent." if gevent else "eventlet.green." if eventlet else "") + modules.get(name, name)
        __import__(module)
        found = sys.modules[module]
        return getattr(found, name) if name in ("Lock", "RLock", "Event") else found

    def _start_thread(self, function, args=()):
        start_new_thread(function, args)


class Gateway(object):
    """The gateway as the code that runs here sees it: `channel.gateway`."""

    def __init__(self, connection, gateway_id, execmodel):
        self._connection = connection
        self.id = gateway_id
        self.execmodel = ExecModel(execmodel)

    def __repr__(self):
        return "<WorkerGateway id=%r>" % self.id

    def newchannel(self):
        """A channel nobody uses yet, to be sent over another one."""
        return self._connection.newchannel()

    def reconfigure(self, py2str_as_py3str=True, py3str_as_py2str=False):
        """How strings between Python 2 and 3 are loaded, at both ends, where a channel says nothing."""
        config = (bool(py2str_as_py3str), bool(py3str_as_py2str))
        self._connection.strconfig = config
        self._connection.call(self._connection.write, RECONFIGURE, 0, dump(config))


# --- The life of the process --------------------------------------------------------------------

HELLO_TYPES = {
    "protocol": (int,),
    "id": (str,),
    "execmodel": (str,),
    "chdir": (str, type(None)),
    "nice": (int, type(None)),
    "env": (dict,),
    "dont_write_bytecode": (bool,),
    "stdout": (str,),
    "window": INTEGERS + (type(None),),
}
TERMINATE_GRACE = 5.0  # seconds for running code to end, before and after it is interrupted
LOST_GRACE = 0.1  # the same, when the coordinator is gone


def read_hello(messages):
    """The coordinator's HELLO. Throws ProtocolError."""
    kind, _, payload = next(messages, (None, None, None))
    if kind != HELLO:
        raise ProtocolError("HELLO was expected, not %s" % ("the end" if kind is None else "type %d" % kind))
    hello = load(payload, None, True, not PY3)  # with `str`, whichever that is
    for key, types in HELLO_TYPES.items():
        if type(hello) is not dict or type(hello.get(key)) not in types:
            raise ProtocolError("HELLO without a proper %r" % key)
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
            step = "env:%s=%s" % (name, value)
            os.environ[name] = value
        if hello["stdout"] == "null":
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.close(null)
        sys.dont_write_bytecode = hello["dont_write_bytecode"] or sys.dont_write_bytecode
        step = "execmodel=%s" % hello["execmodel"]
        if hello["execmodel"] in GREEN:
            __import__(hello["execmodel"])
    except ImportError as error:
        return "%s: %s: install %s for %s" % (step, error, hello["execmodel"], sys.executable)
    except Exception as error:
        return "%s: %s: %s" % (step, type(error).__name__, error)
    return None


def introduce():
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
        u"features": [],
    }


def close_on_exec(descriptor):
    if PY3:
        os.set_inheritable(descriptor, False)
    else:
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)


def report_crashes():
    """Has fatal signals tell where they came from, on what is the stderr now, whatever becomes of descriptor 2."""
    try:
        import faulthandler
    except ImportError:
        return  # Python 2
    if not faulthandler.is_enabled():
        report = os.dup(2)  # not inherited
        faulthandler.enable(report, all_threads=False)


def serve(stream, write_fd, stderr_fd):
    """The main thread's life, from the first frame to the end of the process.

    `stream` is a binary file positioned after this source; frames are written to `write_fd`.
    `stderr_fd`, if any, is the stderr to take over once all is well; without one, the stream is what
    was on descriptors 0 and 1.
    """
    # Until the main thread is ready to be interrupted.
    sigint = signal.signal(signal.SIGINT, signal.SIG_IGN)
    if stderr_fd is None:
        fork_under_guard(stream.fileno())
    close_on_exec(stream.fileno())
    close_on_exec(write_fd)
    if stderr_fd is None:  # the code that runs here must not get at the stream
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
    else:
        close_on_exec(stderr_fd)
    connection = Connection(stream, write_fd)
    messages = read_messages(connection.incoming, connection.incoming.unfinished)
    try:
        hello = read_hello(messages)
    except (ProtocolError, LoadError) as error:
        complain(error)
        sys.exit(1)
    wrong = apply_hello(hello)
    if wrong is not None:
        connection.say_hello({u"protocol": PROTOCOL, u"error": portable(wrong)})
        sys.exit(1)
    report_crashes()
    if stderr_fd is not None:
        flush(sys.stderr)
        os.dup2(stderr_fd, 2)
        os.close(stderr_fd)
    if hello["window"] is not None:
        connection.window = hello["window"]
    connection.say_hello(introduce())

    import threading  # here, so that it knows the main thread, and after HELLO, which others wait for

    if hello["execmodel"] in GREEN:
        connection.use(Greenlets(hello["execmodel"]))
    connection.gateway = Gateway(connection, hello["id"], hello["execmodel"])
    executor = Executor(connection, hello["execmodel"])
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=connection.leave_in_child)
    start_thread("poster", connection.run_poster)
    outcome = []
    start_thread("receiver", receive_all, messages, connection, executor, outcome)
    executor.run_main(sigint)
    status, orderly = outcome[0]
    flush(sys.stdout)
    flush(sys.stderr)
    main = threading.current_thread()
    if orderly and all(thread.daemon for thread in threading.enumerate() if thread is not main):
        sys.exit(status)
    # The interpreter would wait for the threads that the code has left, or, without a coordinator,
    # come down while the receiver is about to end the process: the two have been seen to lock up.
    import atexit

    atexit._run_exitfuncs()
    flush(sys.stdout)
    flush(sys.stderr)
    os._exit(status)


def receive_all(messages, connection, executor, outcome):
    """The receiver: takes in all messages, then sees to it that the process ends."""
    import select  # now: at the end the code may have taken all descriptors

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
    }
    grace, status = LOST_GRACE, 0
    try:
        for kind, number, payload in messages:
            if kind == TERMINATE:
                grace = TERMINATE_GRACE
                break
            if kind not in handlers:
                raise ProtocolError("HELLO comes first, and once")
            handlers[kind](number, payload)
            connection.incoming.lend()
    except EnvironmentError:
        pass  # the stream broke: the coordinator is gone
    except (ProtocolError, LoadError) as error:
        complain(error)
        status = 1
    except BaseException:
        complain(native(format_error(sys.exc_info(), {})))
        status = 1
    outcome.append((status, grace == TERMINATE_GRACE))
    executor.ending = True
    connection.finish()
    executor.wake()
    # The process ends under this thread's feet, unless code does not want to.
    grace = wait_for_end(connection.stream_fd, select, grace)
    os.kill(os.getpid(), signal.SIGINT)  # comes to the main thread, and interrupts its system calls
    wait_for_end(connection.stream_fd, select, grace)
    os._exit(1)


def wait_for_end(descriptor, select, grace):
    """Waits for so many seconds, or LOST_GRACE after the end of the stream. Returns the time to wait next."""
    deadline = now() + grace
    while grace != LOST_GRACE and now() < deadline:
        try:
            if select.select([descriptor], [], [], max(0, deadline - now()))[0] and not os.read(descriptor, CHUNK):
                grace, deadline = LOST_GRACE, now() + LOST_GRACE
        except (select.error, EnvironmentError):
            time.sleep(LOST_GRACE)
    time.sleep(max(0, deadline - now()))
    return grace
