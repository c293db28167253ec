"""Channels as files, at both ends."""

from __future__ import annotations

import pytest

import execnet

WRITES = """
    file = channel.makefile("w")
    file.write("first\\nsec")
    file.write("ond\\n")
    file.writelines(["third ", "and\\n", "last"])
    file.flush()
    """


def test_what_is_written_there_is_read_in_lines_here(gw: execnet.Gateway) -> None:
    file = gw.remote_exec(WRITES).makefile("r")
    assert file.readline() == "first\n"
    assert file.readline() == "second\n"
    assert file.read(9) == "third and"
    assert file.read(100) == "\nlast"
    assert file.read(1) == file.readline() == ""


def test_a_file_is_iterated_by_lines(gw: execnet.Gateway) -> None:
    assert list(gw.remote_exec(WRITES).makefile("r")) == ["first\n", "second\n", "third and\n", "last"]


def test_what_is_written_here_is_read_there(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        file = channel.makefile("r")
        channel.send([file.readline(), file.read(3), file.isatty()])
        """
    )
    file = channel.makefile("w")
    file.write("one\ntw")
    file.write("o")
    assert channel.receive(timeout=60) == ["one\n", "two", False]


def test_closing_a_file_closes_the_channel_only_if_wanted(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.receive()")
    channel.makefile("w").close()
    channel.makefile("r").close()
    assert not channel.isclosed()
    file = channel.makefile("w", proxyclose=True)
    assert repr(file) == f"<ChannelFile {channel.id} open>"
    file.close()
    assert channel.isclosed()
    assert repr(file) == f"<ChannelFile {channel.id} closed>"
    with pytest.raises(OSError, match="closed"):
        file.write("late")


def test_a_mode_that_there_is_not_is_refused(gw: execnet.Gateway) -> None:
    channel = gw.newchannel()
    with pytest.raises(ValueError, match="'w' or 'r'"):
        channel.makefile("a")  # type: ignore[call-overload]


def test_the_rest_of_a_file_is_read_at_once(gw: execnet.Gateway) -> None:
    file = gw.remote_exec(WRITES).makefile("r")
    assert file.readline() == "first\n"
    assert file.read() == "second\nthird and\nlast"
    assert file.read() == file.read(-1) == ""


def test_a_file_is_iterated_and_closed_by_with_at_both_ends(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        with channel.makefile("r") as file:
            first = next(file)
            channel.send([first, list(file), file.read()])
        """
    )
    other = gw.newchannel()
    with other.makefile("w", proxyclose=True) as file:
        assert not other.isclosed()
    assert other.isclosed()
    with channel.makefile("w") as file:
        file.write("one\ntwo\nthree")
    assert not channel.isclosed()
    with pytest.raises(EOFError):
        other.receive()
