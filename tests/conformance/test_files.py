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


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_with_an_encoding_the_items_are_bytes_at_both_ends(gw: execnet.Gateway, encoding: str) -> None:
    channel = gw.remote_exec(
        f"""
        for item in [channel.receive(), channel.receive()]:
            channel.send(item)
        file = channel.makefile("r", encoding={encoding!r})
        line = file.readline()
        channel.makefile("w", encoding={encoding!r}).writelines([line, u"\\xfc"])
        rest = file.read()
        """
    )
    channel.reconfigure(py2str_as_py3str=False)  # bytes of Python 2
    text = "gr\u00fc\u00df\n"
    with channel.makefile("w", encoding=encoding) as file:
        file.write(text)
        file.write("x")
    sent = [channel.receive(timeout=60), channel.receive(timeout=60)]
    assert all(isinstance(item, bytes) for item in sent)
    assert b"".join(sent) == (text + "x").encode(encoding)
    for number in range(len(text.encode(encoding))):  # characters are cut
        channel.send(text.encode(encoding)[number : number + 1])
    file = channel.makefile("r", encoding=encoding)
    assert file.readline() == text
    assert file.read(1) == "\u00fc"


def test_text_stays_as_it_is_beside_what_is_decoded(gw: execnet.Gateway) -> None:
    file = gw.remote_exec("channel.send(u'text, '); channel.send(b'\\xfc')").makefile("r", encoding="latin-1")
    assert file.read() == "text, \u00fc"
    assert file.read() == ""


def test_what_is_not_in_the_encoding_is_an_error(gw: execnet.Gateway) -> None:
    for items in ("b'\\xff'", "b'\\xc3'", "b'\\xc3', u'x'"):  # wrong, cut at the end, cut before a text
        channel = gw.remote_exec(f"channel.receive()\nfor item in [{items}]: channel.send(item)")
        channel.reconfigure(py2str_as_py3str=False)
        channel.send("go on")
        file = channel.makefile("r", encoding="utf-8")
        with pytest.raises(UnicodeDecodeError):
            file.read()
    channel = gw.newchannel()
    with pytest.raises(UnicodeEncodeError):
        channel.makefile("w", encoding="ascii").write("\u00fc")
    with pytest.raises(TypeError, match="takes str, not bytes"):
        channel.makefile("w", encoding="ascii").write(b"x")
    for encoding in ("nothing", "hex"):
        with pytest.raises(LookupError, match=encoding):
            channel.makefile("r", encoding=encoding)
    wrong = gw.remote_exec("channel.makefile('w', encoding='nothing')")
    with pytest.raises(execnet.RemoteError, match="LookupError"):
        wrong.waitclose(timeout=60)


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
