"""What processes write to the standard output and error that they share with the tests, as it comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from belongings import eventually


class Captured:
    """All that pytest's `capfd` has captured so far. Reading `capfd` empties it, so whoever polls it must add up."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out = ""
        self.err = ""

    def shows(self, condition: Callable[[Captured], bool]) -> bool:
        """Waits until the condition holds for what has come; whether it has become true in time."""
        return eventually(lambda: condition(self._read()))

    def _read(self) -> Captured:
        out, err = self._capfd.readouterr()
        self.out += out
        self.err += err
        return self
