"""Sources that can be executed: text, functions with arguments, modules."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import execnet


def test_text_is_dedented_and_has_its_globals(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        def inner():
            return __name__
        channel.send([inner(), sorted(name for name in globals() if not name.startswith("_"))])
        """
    )
    assert channel.receive(timeout=60) == ["__channelexec__", ["channel", "inner"]]


def test_text_beyond_ascii_is_executed(worker: Any, gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("# -*- coding: utf-8 -*-\nchannel.send(u'\u00e9\u20ac\U0001f600')")
    assert channel.receive(timeout=60) == "\u00e9\u20ac\U0001f600"


def test_each_execution_has_globals_of_its_own(gw: execnet.Gateway) -> None:
    gw.remote_exec("left = 1").waitclose(60)
    assert gw.remote_exec("channel.send('left' in globals())").receive(timeout=60) is False


def add_all(channel, first, second=2, **others):
    import sys

    channel.send([first + second, sorted(others), sys.version_info[0]])


def test_a_function_gets_its_keyword_arguments(gw: execnet.Gateway) -> None:
    answer = gw.remote_exec(add_all, first=1, second=10, third=3).receive(timeout=60)
    assert answer[:2] == [11, ["third"]]
    assert gw.remote_exec(add_all, first=1).receive(timeout=60)[:2] == [3, []]


def tell_types(channel, **arguments):
    channel.send({name: type(value).__name__ for name, value in arguments.items()})


def test_arguments_have_their_types(worker: Any, gw: execnet.Gateway) -> None:
    types = gw.remote_exec(
        tell_types, text="a", data=b"a", number=1, big=2**70, items=[1], pair=(1, 2), nothing=None, one=1.5
    ).receive(timeout=60)
    python2 = {"text": "unicode", "data": "str", "big": "long"} if worker.is_python2 else {}
    assert (
        types
        == {
            "text": "str",
            "data": "bytes",
            "number": "int",
            "big": "int",
            "items": "list",
            "pair": "tuple",
            "nothing": "NoneType",
            "one": "float",
        }
        | python2
    )


def use_other(channel, other):
    other.send("through an argument")


def test_a_channel_can_be_an_argument(gw: execnet.Gateway) -> None:
    other = gw.newchannel()
    running = gw.remote_exec(use_other, other=other)
    assert other.receive(timeout=60) == "through an argument"
    running.waitclose(60)


def test_an_argument_the_function_does_not_know_is_an_error_there(gw: execnet.Gateway) -> None:
    with pytest.raises(execnet.RemoteError, match=r"TypeError.*unknown"):
        gw.remote_exec(use_other, unknown=1).receive(timeout=60)


@pytest.fixture
def shipped_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shipped_module", Path(__file__).with_name("shipped_module.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_module_is_executed_and_shown_with_its_file_and_lines(
    gw: execnet.Gateway, shipped_module: ModuleType
) -> None:
    channel = gw.remote_exec(shipped_module)
    channel.send(21)
    assert channel.receive(timeout=60) == ["__channelexec__", "a/b", 42]
    with pytest.raises(execnet.RemoteError) as caught:
        channel.receive(timeout=60)
    lines = Path(shipped_module.__file__).read_text().splitlines()
    line = 1 + next(at for at, text in enumerate(lines) if "at the end" in text)
    assert f'File "{shipped_module.__file__}", line {line}, in <module>' in caught.value.formatted
    assert 'raise ValueError("at the end")' in caught.value.formatted


def test_what_is_sent_to_be_run_is_text_however_strings_are_loaded(fresh: Callable[..., execnet.Gateway]) -> None:
    gateway = fresh()
    gateway.reconfigure(py2str_as_py3str=True, py3str_as_py2str=True)
    channel = gateway.remote_exec("channel.send(type(channel.receive()) is bytes)")
    channel.send("text")
    assert channel.receive(timeout=60) is True
    gateway.reconfigure()
    channel = gateway.remote_exec("channel.send(type(channel.receive()) is bytes)")
    channel.reconfigure(py2str_as_py3str=True, py3str_as_py2str=True)
    channel.send("text")
    assert channel.receive(timeout=60) is True


def test_a_function_may_have_text_left_of_itself(gw: execnet.Gateway) -> None:
    def fails(channel):
        channel.send("""
at the left
""")
        raise ValueError(1)  # here

    channel = gw.remote_exec(fails)
    assert channel.receive(timeout=60) == "\nat the left\n"
    with pytest.raises(execnet.RemoteError) as caught:
        channel.receive(timeout=60)
    lines = Path(__file__).read_text().splitlines()
    line = 1 + next(at for at, text in enumerate(lines) if text.endswith("# here"))
    assert f'File "{__file__}", line {line}, in fails' in caught.value.formatted


def test_a_function_that_has_got_another_name_is_found(gw: execnet.Gateway) -> None:
    def named(channel):
        channel.send(1)

    named.__name__ = "renamed"
    assert gw.remote_exec(named).receive(timeout=60) == 1
