"""Reads the golden bytes of tests/vectors/; the files say what their columns mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = Path(__file__).parents[1] / "vectors"


@dataclass(frozen=True)
class Vector:
    """A value and its bytes."""

    name: str
    mode: str
    data: bytes
    value: str  # for eval()


@dataclass(frozen=True)
class Malformed:
    """Bytes that are refused, and the offset of the error."""

    name: str
    offset: int
    data: bytes


def values() -> list[Vector]:
    return [
        Vector(name, mode, bytes.fromhex(data), value) for name, mode, data, value in _rows("values.txt", columns=4)
    ]


def malformed() -> list[Malformed]:
    return [
        Malformed(name, int(offset), bytes.fromhex(data)) for name, offset, data in _rows("malformed.txt", columns=3)
    ]


def _rows(file: str, columns: int) -> list[list[str]]:
    rows = []
    for line in (_DIRECTORY / file).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            row = [column.strip() for column in line.split("|", columns - 1)]
            assert len(row) == columns, line
            rows.append(row)
    assert rows, f"{file} is empty"
    return rows
