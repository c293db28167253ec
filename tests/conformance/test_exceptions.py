"""Exceptions of the other side arrive here, with the real file and line."""

from __future__ import annotations

import inspect
import re
import types
from pathlib import Path

import pytest

import execnet


def raised(channel: execnet.Channel) -> str:
    """The text of the error with which a channel ends."""
    with pytest.raises(execnet.RemoteError) as caught:
        channel.receive(timeout=60)
    assert caught.value.formatted in str(caught.value)
    return caught.value.formatted


def test_an_exception_arrives_as_formatted_traceback(gw: execnet.Gateway) -> None:
    text = raised(gw.remote_exec("first = 1\ndef divide(by):\n    return first / by\ndivide(0)\n"))
    assert text.startswith("Traceback (most recent call last):\n")
    assert '"<remote exec>", line 4, in <module>' in text
    assert '"<remote exec>", line 3, in divide\n    return first / by' in text
    assert "ZeroDivisionError: " in text.strip().splitlines()[-1]


def fails_in_its_middle(channel):
    channel.send("runs")
    items = {}
    return items["missing"]  # this line is in the traceback


def test_a_function_is_shown_with_its_file_and_lines(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(fails_in_its_middle)
    assert channel.receive(timeout=60) == "runs"
    text = raised(channel)
    source, first = inspect.getsourcelines(fails_in_its_middle)
    line = first + next(at for at, text in enumerate(source) if "this line" in text)
    assert f'File "{__file__}", line {line}, in fails_in_its_middle' in text
    assert 'return items["missing"]' in text
    assert "KeyError: 'missing'" in text


def test_a_syntax_error_is_told_with_its_line(gw: execnet.Gateway) -> None:
    text = raised(gw.remote_exec("fine = 1\ndef 1wrong\n"))
    assert "SyntaxError" in text
    assert "line 2" in text
    assert "def 1wrong" in text


def takes_nothing_more(channel):
    pass


def test_an_error_without_a_frame_of_the_code_is_a_traceback_too(worker, gw: execnet.Gateway, tmp_path: Path) -> None:
    path = tmp_path / "wrong_module.py"
    path.write_text("fine = 1\nfine = = 2\n")
    module = types.ModuleType("wrong_module")
    module.__file__ = str(path)
    for source, error in (
        ("def 1wrong\n", "SyntaxError"),
        ("if 1:\nx", "IndentationError"),
        ("a\0b", "TypeError" if worker.is_python2 else "(SyntaxError|ValueError)"),
        (module, f'"{path}", line 2\n(?s:.*)SyntaxError'),
    ):
        assert re.match(rf"Traceback \(most recent call last\):\n(?s:.*){error}: ", raised(gw.remote_exec(source)))
    text = raised(gw.remote_exec(takes_nothing_more, more=1))
    assert re.match(r"Traceback \(most recent call last\):\nTypeError: takes_nothing_more\(\)", text)


def test_system_exit_ends_the_code_and_not_the_worker(gw: execnet.Gateway) -> None:
    assert "SystemExit: 3" in raised(gw.remote_exec("import sys; sys.exit(3)"))
    assert gw.remote_exec("channel.send(1)").receive(timeout=60) == 1


def test_an_interrupt_ends_the_code_and_not_the_worker(gw: execnet.Gateway) -> None:
    assert "KeyboardInterrupt" in raised(gw.remote_exec("raise KeyboardInterrupt"))
    assert gw.remote_exec("channel.send(1)").receive(timeout=60) == 1


def test_the_cause_of_an_exception_comes_along(worker, gw: execnet.Gateway) -> None:
    if worker.is_python2:
        pytest.skip("python2.7 has no causes")
    text = raised(gw.remote_exec("try:\n    [][1]\nexcept IndexError:\n    {}['other']\n"))
    assert "IndexError" in text
    assert "During handling of the above exception" in text
    assert "KeyError: 'other'" in text


def test_an_exception_with_text_beyond_ascii_arrives(gw: execnet.Gateway) -> None:
    text = raised(gw.remote_exec("# -*- coding: utf-8 -*-\nraise ValueError('caf\u00e9 \u20ac')\n"))
    assert "ValueError: caf\u00e9 \u20ac" in text


def test_the_error_is_raised_once_and_then_eoferror(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("raise ValueError(1)")
    raised(channel)
    with pytest.raises(EOFError):
        channel.receive(timeout=60)


def test_waitclose_raises_the_error(gw: execnet.Gateway) -> None:
    with pytest.raises(execnet.RemoteError, match="ValueError: 17"):
        gw.remote_exec("raise ValueError(17)").waitclose(60)


def test_iteration_raises_the_error_after_the_items(gw: execnet.Gateway) -> None:
    received = []
    with pytest.raises(execnet.RemoteError, match="ValueError: 17"):
        received.extend(gw.remote_exec("channel.send(1); channel.send(2); raise ValueError(17)"))
    items = iter(gw.remote_exec("channel.send(1); channel.send(2); raise ValueError(17)"))
    assert (next(items), next(items)) == (1, 2)
    with pytest.raises(execnet.RemoteError):
        next(items)


def test_an_eoferror_of_the_code_itself_is_an_error(gw: execnet.Gateway) -> None:
    assert "EOFError: mine" in raised(gw.remote_exec("raise EOFError('mine')"))


def test_the_error_class_is_known_by_the_channel(gw: execnet.Gateway) -> None:
    assert gw.newchannel().RemoteError is execnet.RemoteError
    assert gw.newchannel().TimeoutError is execnet.TimeoutError


def test_the_line_is_the_right_one_behind_a_form_feed(gw: execnet.Gateway) -> None:
    text = raised(gw.remote_exec("first = '\x0c\x1c'\nraise ValueError(1)  # this one\n"))
    assert "line 2, in <module>" in text
    assert "# this one" in text
