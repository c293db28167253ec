"""Names that programs import from here. They live in the package itself."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, ClassVar

from execnet import _core
from execnet._core import (
    NO_ENDMARKER_WANTED,
    Channel,
    DataFormatError,
    DumpError,
    LoadError,
    RemoteError,
    TimeoutError,
    dump,
    dumps,
    load,
    loads,
)
from execnet._core import Gateway as BaseGateway
from execnet._execmodel import ExecModel, get_execmodel
from execnet._file import ChannelFile, ChannelFileRead, ChannelFileWrite
from execnet._pool import Reply, WorkerPool
from execnet._streams import Reader

__all__ = [
    "DUMPFORMAT_VERSION",
    "MAIN_THREAD_ONLY_DEADLOCK_TEXT",
    "NO_ENDMARKER_WANTED",
    "BaseGateway",
    "Channel",
    "ChannelFile",
    "ChannelFileRead",
    "ChannelFileWrite",
    "DataFormatError",
    "DumpError",
    "ExecModel",
    "LoadError",
    "RemoteError",
    "Reply",
    "TimeoutError",
    "Unserializer",
    "WorkerPool",
    "_Serializer",
    "dump",
    "dumps",
    "dumps_internal",
    "get_execmodel",
    "load",
    "loads",
    "loads_internal",
    "opcode",
]

DUMPFORMAT_VERSION = b"\x02"
MAIN_THREAD_ONLY_DEADLOCK_TEXT = "concurrent remote_exec would cause deadlock for main_thread_only execmodel"


class opcode:
    """The opcodes of the dump format; see docs/wire_format.md."""

    BUILDTUPLE = b"@"
    BYTES = b"A"
    CHANNEL = b"B"
    FALSE = b"C"
    FLOAT = b"D"
    FROZENSET = b"E"
    INT = b"F"
    LONG = b"G"
    LONGINT = b"H"
    LONGLONG = b"I"
    NEWDICT = b"J"
    NEWLIST = b"K"
    NONE = b"L"
    PY2STRING = b"M"
    PY3STRING = b"N"
    SET = b"O"
    SETITEM = b"P"
    STOP = b"Q"
    TRUE = b"R"
    UNICODE = b"S"
    COMPLEX = b"T"


class _Versioned:
    """A file that adds the version byte which the dump in it lacks."""

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._begun = False

    def read(self, size: int, /) -> bytes:
        if self._begun:
            return self._stream.read(size)
        self._begun = True
        return DUMPFORMAT_VERSION


class Unserializer:
    """Loads values from a binary file, one for each load().

    `strconfig` is (py2str_as_py3str, py3str_as_py2str), as for loads(); without one, strings of
    Python 2 become str, as on a channel. Of a channel or gateway given in between nothing is used.
    """

    num2func: ClassVar[dict[bytes, str]] = {
        value: f"load_{name.lower()}" for name, value in vars(opcode).items() if isinstance(value, bytes)
    }
    """The opcodes and what each loads, as names for messages. Nothing is called by it."""

    def __init__(
        self, stream: Reader, channel_or_gateway: object = None, strconfig: tuple[bool, bool] | None = None
    ) -> None:
        self.stream = stream
        self.py2str_as_py3str, self.py3str_as_py2str = strconfig or (True, False)

    def load(self, versioned: bool = False) -> Any:
        """The next value; `versioned` if a version byte comes before it. Raises LoadError."""
        stream = self.stream if versioned else _Versioned(self.stream)
        return _core.load(stream, self.py2str_as_py3str, self.py3str_as_py2str)


class _Serializer:
    """Dumps values, to a function or as bytes."""

    def __init__(self, write: Callable[[bytes], object] | None = None) -> None:
        self._write = write

    def save(self, obj: object, versioned: bool = False) -> bytes | None:
        """The bytes of a value, or None if they were written. Raises DumpError, and then has written nothing."""
        data = dumps(obj)
        data = data if versioned else data[1:]
        if self._write is None:
            return data
        self._write(data)
        return None


def dumps_internal(obj: object) -> bytes:
    """The bytes of a value without version byte. Raises DumpError."""
    return dumps(obj)[1:]


def loads_internal(bytestring: bytes, channelfactory: object = None, strconfig: tuple[bool, bool] | None = None) -> Any:
    """The value of bytes without version byte; see Unserializer for `strconfig`. Raises LoadError."""
    return Unserializer(io.BytesIO(bytestring), channelfactory, strconfig).load()
