"""The tests see all that is printed, however it comes."""

from __future__ import annotations

import os
import threading

import pytest

from captured import Captured


def test_words_that_come_in_pieces_are_put_together(capfd: pytest.CaptureFixture[str]) -> None:
    captured = Captured(capfd)
    seen = threading.Event()

    def write() -> None:
        os.write(1, b"from ")
        seen.wait(60)
        os.write(1, b"print\n")

    def whole(all: Captured) -> bool:
        if "from " in all.out:
            seen.set()
        return "from print\n" in all.out

    writer = threading.Thread(target=write)
    writer.start()
    assert captured.shows(whole)
    writer.join()
