"""What goes over a slow line is compressed, on both ways, whoever is there.

Nothing here measures time. The line counts its bytes (tests/support/slow_line.py), and what is looked at has passed it.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import execnet
import interpreters
from slow_line import bytes_of
from sshd import PrivateSshd

KIB, MIB = 1 << 10, 1 << 20
TEXT = b"".join(b"    return self.values[%d] + %d\n" % (number, number * number % 997) for number in range(120_000))[
    : 3 * MIB
]
NOISE = random.Random(1).randbytes(MIB)
ECHO = "for item in channel: channel.send(item)"
SINK = "for item in channel: channel.send(len(item))"
SOURCE = "channel.send(channel.receive() * channel.receive())"


class Line:
    """A line that gateways of ``ssh=slow`` take."""

    def __init__(self, counts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._counts = counts
        monkeypatch.setenv("EXECNET_TEST_BITS", "20e6")
        monkeypatch.setenv("EXECNET_TEST_COUNTS", str(counts))

    def bytes(self) -> tuple[int, int]:
        """(up, down), so far."""
        return bytes_of(self._counts)

    def echo(self, channel: execnet.Channel, item: bytes) -> tuple[int, int]:
        """The bytes that have gone (up, down) for an item that came back."""
        before = self.bytes()
        channel.send(item)
        assert channel.receive(60) == item
        after = self.bytes()
        return after[0] - before[0], after[1] - before[1]


@pytest.fixture
def line(sshd: PrivateSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    return Line(tmp_path / "counts", monkeypatch)


def slow(python: str = sys.executable) -> str:
    return f"ssh=slow//python={python}"


def found(python: str) -> str:
    path = interpreters.find(python)
    return path or pytest.skip(f"no {python} on this machine")


PYTHONS = ("python2.7", "python3.6", "python3.9", f"python3.{sys.version_info[1]}")


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_sent_is_compressed(line: Line, group: execnet.Group, python: str) -> None:
    channel = group.makegateway(slow(found(python))).remote_exec(SINK)
    before, _ = line.bytes()
    channel.send(TEXT)
    assert channel.receive(60) == len(TEXT)
    assert line.bytes()[0] - before < len(TEXT) / 2


@pytest.mark.parametrize("python", PYTHONS)
def test_what_comes_is_compressed(line: Line, group: execnet.Group, python: str) -> None:
    channel = group.makegateway(slow(found(python))).remote_exec(SOURCE)
    text = TEXT[: MIB // 2].decode()  # Python 2 would send bytes as a str
    channel.send(text)
    _, before = line.bytes()
    channel.send(6)
    assert channel.receive(60) == text * 6
    assert line.bytes()[1] - before < 1.5 * MIB


def test_both_ways_at_once(line: Line, group: execnet.Group) -> None:
    gateway = group.makegateway(slow())
    channels = [gateway.remote_exec(ECHO) for _ in range(3)]
    before = line.bytes()
    for channel in channels:
        channel.send(TEXT)
        channel.send(NOISE[: 10 * KIB])
    for channel in channels:
        assert channel.receive(60) == TEXT
        assert channel.receive(60) == NOISE[: 10 * KIB]
    after = line.bytes()
    assert after[0] - before[0] < 3 * len(TEXT) / 2
    assert after[1] - before[1] < 3 * len(TEXT) / 2


def test_small_items_are_compressed_as_well(line: Line, group: execnet.Group) -> None:
    channel = group.makegateway(slow()).remote_exec(SINK)
    channel.send(TEXT)
    assert channel.receive(60) == len(TEXT)
    before, _ = line.bytes()
    for at in range(0, len(TEXT), KIB):
        channel.send(TEXT[at : at + KIB])
    for _ in range(0, len(TEXT), KIB):
        assert channel.receive(60) == KIB
    assert line.bytes()[0] - before < len(TEXT) / 2


def test_what_does_not_become_smaller_arrives(line: Line, group: execnet.Group) -> None:
    channel = group.makegateway(slow()).remote_exec(ECHO)
    up, down = line.echo(channel, TEXT[:MIB] + NOISE + TEXT[:MIB])
    assert up < 2.6 * MIB
    assert down < 2.6 * MIB


def test_a_window_does_not_hide_how_slow_the_line_is(line: Line, group: execnet.Group) -> None:
    channel = group.makegateway(slow() + "//window=1M").remote_exec(SINK)
    before, _ = line.bytes()
    for at in range(0, len(TEXT), 64 * KIB):
        channel.send(TEXT[at : at + 64 * KIB])
    for _ in range(0, len(TEXT), 64 * KIB):
        assert channel.receive(60) == 64 * KIB
    assert line.bytes()[0] - before < len(TEXT) / 2


def test_rsync_is_compressed(line: Line, group: execnet.Group, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(100):
        (source / f"module{number}.py").write_bytes(TEXT[number * 30 * KIB : (number + 1) * 30 * KIB])
    gateway = group.makegateway(slow())
    before, _ = line.bytes()
    sync = execnet.RSync(str(source), verbose=False)
    sync.add_target(gateway, str(tmp_path / "target"))
    sync.send()
    assert line.bytes()[0] - before < len(TEXT) / 2
    for path in source.iterdir():
        assert (tmp_path / "target" / path.name).read_bytes() == path.read_bytes()


BEYOND = {
    "through a proxy": [f"{slow()}//id=proxy", "popen//via=proxy"],
    "to a pure worker through a proxy": [f"{slow()}//id=proxy", f"popen//python={sys.executable}//via=proxy"],
    "from a native proxy": ["popen//id=proxy", f"{slow()}//via=proxy"],
    "forked": [f"{slow()}//preload=json"],
}


@pytest.mark.parametrize("specs", BEYOND.values(), ids=BEYOND)
def test_what_goes_both_ways_is_compressed(line: Line, group: execnet.Group, specs: list[str]) -> None:
    channel = [group.makegateway(spec) for spec in specs][-1].remote_exec(ECHO)
    up, down = line.echo(channel, TEXT)
    assert up < len(TEXT) / 2
    assert down < len(TEXT) / 2


def test_it_can_be_turned_off(line: Line, group: execnet.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECNET_DEFLATE", "0")
    channel = group.makegateway(slow()).remote_exec(ECHO)
    up, down = line.echo(channel, TEXT[:MIB])
    assert up > MIB
    assert down > MIB


def test_a_python_without_zlib_does_without(line: Line, group: execnet.Group, tmp_path: Path) -> None:
    """The source of the worker comes compressed as well: this one has lost its zlib after that."""
    program = tmp_path / "python"
    lose = "import sys, zlib; real = zlib.decompress"
    lose += "; zlib.decompress = lambda *given: (sys.modules.update(zlib=None), real(*given))[1]"
    program.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -u -c "{lose}\n$1"\n')
    program.chmod(0o755)
    channel = group.makegateway(slow(str(program))).remote_exec(ECHO)
    up, down = line.echo(channel, TEXT[:MIB])
    assert up > MIB
    assert down > MIB


def test_the_trace_has_both_sizes(
    line: Line, group: execnet.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECNET_DEBUG", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    channel = group.makegateway(f"{slow()}//env:TMPDIR={tmp_path}").remote_exec(ECHO)
    channel.send(TEXT[:MIB])
    assert channel.receive(60) == TEXT[:MIB]
    text = "".join(path.read_text() for path in tmp_path.glob("execnet-debug-*"))
    for end in ("", "-worker"):
        for way in ("->", "<-"):
            units = re.findall(rf"gw0{end} {way} DEFLATED 0 (\d+) inflated (\d+)\n", text)
            assert units, (end, way)
            assert all(int(size) < int(inflated) for size, inflated in units)
    assert re.search(r"gw0 -> PROBE 0 0 number 1\n", text)
    assert re.search(r"gw0 <- PASSED 0 0 number 1\n", text)


def test_ssh_is_given_no_option_for_it(sshd: PrivateSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nexit 255\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(execnet.HostNotFound):
        execnet.Group().makegateway("ssh=localhost")
    arguments = (tmp_path / "arguments").read_text().split("exec sh")[0]
    assert not re.search(r"-C\b|Compression", arguments)
