"""Runs interactive sessions and prints them as they run, checking every answer.

A file of sessions is text: a title underlined with dashes begins a session, and what looks like a
Python prompt is run. As in doctest, which does the work, the lines after a statement are its answer.
"""

from __future__ import annotations

import doctest
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn

import execnet

Print = Callable[[str], object]


class Session(NamedTuple):
    title: str
    text: str


class SessionError(Exception):
    """An answer was not the expected one. The text shows both."""


def read_sessions(path: Path) -> list[Session]:
    """The sessions of a file, in its order."""
    _, *parts = re.split(r"^(.+)\n-+\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [Session(title, text) for title, text in zip(parts[::2], parts[1::2], strict=True)]


def run_session(session: Session) -> None:
    """Runs and prints a session. The gateways it leaves behind are terminated.

    :raises SessionError: an answer differs.
    """
    test = doctest.DocTestParser().get_doctest(session.text, {}, session.title, None, 0)
    try:
        _LiveRunner().run(test, out=_printer(), clear_globs=False)
    finally:
        for value in [*test.globs.values(), execnet.default_group]:
            if isinstance(value, execnet.Group):
                value.terminate(timeout=1.0)


def _printer() -> Print:
    stdout = sys.stdout  # doctest puts something else there while it runs a statement

    def write(text: str) -> None:
        stdout.write(text)
        stdout.flush()

    return write


class _LiveRunner(doctest.DocTestRunner):
    """Prints each statement before it runs, then its answer. Stops at the first wrong answer."""

    def report_start(self, out: Print, test: doctest.DocTest, example: doctest.Example) -> None:
        first, *others = example.source.splitlines()
        out("".join([f">>> {first}\n", *(f"... {line}\n" for line in others)]))

    def report_success(self, out: Print, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        out(got)

    def report_failure(self, out: Print, test: doctest.DocTest, example: doctest.Example, got: str) -> NoReturn:
        out(got)
        raise SessionError(f"in '{test.name}', this should be:\n{example.want or '(no output)'}")

    def report_unexpected_exception(
        self,
        out: Print,
        test: doctest.DocTest,
        example: doctest.Example,
        exc_info: tuple[type[BaseException], BaseException, TracebackType],
    ) -> NoReturn:
        out("".join(traceback.format_exception_only(exc_info[0], exc_info[1])))
        raise SessionError(f"in '{test.name}', the last statement should not raise") from exc_info[1]
