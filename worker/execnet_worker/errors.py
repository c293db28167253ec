"""The exceptions of execnet, as the code that runs here sees them."""

from .system import PY3, native


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
