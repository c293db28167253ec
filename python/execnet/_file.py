"""Channels as files: what Channel.makefile() returns."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any, TypeVar

from execnet._core import Channel

_File = TypeVar("_File", bound="ChannelFile")


class ChannelFile:
    """A file whose other end is the other end of a channel."""

    def __init__(self, channel: Channel, proxyclose: bool = True) -> None:
        self.channel = channel
        self._proxyclose = proxyclose

    def __repr__(self) -> str:
        return f"<ChannelFile {self.channel.id} {'closed' if self.channel.isclosed() else 'open'}>"

    def __enter__(self: _File) -> _File:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def isatty(self) -> bool:
        """Always False."""
        return False

    def close(self) -> None:
        """Closes the channel, if the file was made with proxyclose."""
        if self._proxyclose:
            self.channel.close()


class ChannelFileWrite(ChannelFile):
    """Each write sends an item; with an encoding, the bytes of a text. Raises ChannelClosed."""

    def __init__(self, channel: Channel, proxyclose: bool = True, encoding: str | None = None) -> None:
        super().__init__(channel, proxyclose)
        self._encoder = None if encoding is None else codecs.getincrementalencoder(encoding)()

    def write(self, out: Any) -> None:
        if self._encoder is not None:
            if not isinstance(out, str):
                raise TypeError(f"a file with an encoding takes str, not {type(out).__name__}")
            out = self._encoder.encode(out)
        self.channel.send(out)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Does nothing: every write is sent at once."""


class ChannelFileRead(ChannelFile):
    """The items of a channel, all str or all bytes, one after the other. The file ends with the channel.

    With an encoding it is their text, and characters may be cut between items. Items that are text already stay as
    they are. Raises UnicodeDecodeError for what is not in the encoding.
    """

    _buffer: Any = None

    def __init__(self, channel: Channel, proxyclose: bool = True, encoding: str | None = None) -> None:
        super().__init__(channel, proxyclose)
        self._decoder = None if encoding is None else codecs.getincrementaldecoder(encoding)()

    def _fill(self) -> bool:
        try:
            item = self.channel.receive()
        except EOFError:
            if self._decoder is not None:
                self._decoder.decode(b"", final=True)  # raises for a character that is not complete
            return False
        if self._decoder is not None:
            is_text = isinstance(item, str)
            item = self._decoder.decode(b"" if is_text else item, final=is_text) + (item if is_text else "")
        self._buffer = item if self._buffer is None else self._buffer + item
        return True

    def _take(self, size: int) -> Any:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def read(self, n: int = -1) -> Any:
        """The next n characters or bytes, fewer only at the end; everything until the end if n is negative."""
        while self._buffer is None or n < 0 or len(self._buffer) < n:
            if not self._fill():
                break
        return "" if self._buffer is None else self._take(len(self._buffer) if n < 0 else n)

    def readline(self) -> Any:
        """The next line with its newline, which the last line may lack; empty at the end."""
        searched = 0
        while True:
            if self._buffer is not None:
                newline = self._buffer.find(b"\n" if isinstance(self._buffer, bytes) else "\n", searched)
                if newline >= 0:
                    return self._take(newline + 1)
                searched = len(self._buffer)
            if not self._fill():
                return "" if self._buffer is None else self._take(searched)

    def __iter__(self) -> ChannelFileRead:
        return self

    def __next__(self) -> Any:
        line = self.readline()
        if not line:
            raise StopIteration
        return line


def make_file(channel: Channel, mode: str = "w", proxyclose: bool = False, encoding: str | None = None) -> ChannelFile:
    """A file for the channel. Raises ValueError for a mode other than "w" and "r", LookupError for the encoding."""
    if encoding is not None:
        "".encode(encoding)  # refuses what is no encoding of text, too, as codecs do not
    if mode == "w":
        return ChannelFileWrite(channel, proxyclose, encoding)
    if mode == "r":
        return ChannelFileRead(channel, proxyclose, encoding)
    raise ValueError(f"mode must be 'w' or 'r', not {mode!r}")
