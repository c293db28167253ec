"""Types of the binary files that values are loaded from and dumped to."""

from __future__ import annotations

from typing import Protocol


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...
