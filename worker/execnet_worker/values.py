"""Values as bytes and back: the dump format of docs/wire_format.md, on Python 2 and 3."""

import itertools
import struct

from .errors import DumpError, LoadError, ProtocolError
from .system import PY3, imap, izip, partial, unicode_type

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


IN_PLACE = object  # the "container" around what goes in place of another value

# name of a type -> what makes its value from that of a type of the same name
BUILTINS = {
    "NoneType": lambda item: None,
    "bool": bool,
    "bytes": lambda item: b"".join((item,)),
    "complex": lambda item: complex(item.real, item.imag),
    "dict": lambda item: dict(item.items()),
    "float": float,
    "frozenset": frozenset,
    "int": lambda item: int(item.__index__()),
    "list": list,
    "long": lambda item: INTEGERS[-1](item.__index__()),
    "set": set,
    "str": lambda item: "".join((item,)),
    "tuple": tuple,
}
if not PY3:
    BUILTINS["unicode"] = lambda item: u"".join((item,))


def builtin_named_as_type_of(item):
    """numpy.bool_ of NumPy 2 is named "bool": the builtin value that its name says, in a tuple; () if there is none."""
    make = BUILTINS.get(type(item).__name__)
    try:
        return (make(item),) if make else ()
    except (TypeError, AttributeError):
        return ()


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
                    builtin = builtin_named_as_type_of(item)
                    if builtin:  # goes in its place
                        outer.append((kind, items, pairs, end))
                        kind, items, pairs, end = IN_PLACE, builtin, izip(NOTHING, builtin), b""
                        break
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
        if kind is IN_PLACE:
            continue
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
