"""EXECNET_DEBUG: what each end of a gateway tells of its frames, and what it does not."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import execnet
from belongings import eventually
from sshd import PrivateSshd

PURE = f"popen//python={shlex.quote(sys.executable)}"
WAYS = {
    "native": "popen",
    "pure": PURE,
    "forked": "popen//preload=json",
    "forked pure": f"{PURE}//preload=json",
    "via native": "popen//via=proxy",
    "via pure": f"{PURE}//via=pure-proxy",
    "socket": "socket//installvia=proxy",
    "ssh": "ssh=localhost",
    "forked over ssh": "ssh=localhost//preload=json",
}
PROXIES = {"proxy": "popen//id=proxy", "pure-proxy": f"{PURE}//id=pure-proxy"}
LINE = re.compile(r"(\d{10}\.\d{6}) (\d+) (\S+) (--|->|<-) (.*)")


class Line(NamedTuple):
    time: float
    pid: int
    gateway: str
    direction: str
    text: str


def lines_of(text: str) -> list[Line]:
    """Raises an error for a line of another form."""
    found = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        found.append(Line(float(match[1]), int(match[2]), *match.group(3, 4, 5)))
    return found


def frames(lines: list[Line], gateway: str, direction: str) -> list[str]:
    return [line.text for line in lines if line.gateway == gateway and line.direction == direction]


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files, and traces are wanted."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("EXECNET_DEBUG", "1")
    return tmp_path


def traced(directory: Path) -> list[Line]:
    return [line for file in sorted(directory.glob("execnet-debug-*")) for line in lines_of(file.read_text())]


def make(group: execnet.Group, spec: str, directory: Path) -> execnet.Gateway:
    for proxy in PROXIES:
        if spec.endswith(f"={proxy}"):
            group.makegateway(PROXIES[proxy])
    return group.makegateway(f"{spec}//id=worker//env:TMPDIR={directory}//env:TOKEN=secret-1")


def task(channel: execnet.Channel, argument: str) -> None:
    for _ in range(3):
        channel.send(channel.receive())
    channel.send(argument)


def short_task(channel: execnet.Channel, argument: str) -> None:
    channel.send(argument)


@pytest.mark.parametrize("way", WAYS)
def test_both_ends_trace_the_same_frames(way: str, sshd: PrivateSshd, group: execnet.Group, traces: Path) -> None:
    del sshd
    gateway = make(group, WAYS[way], traces)
    channel = gateway.remote_exec(task, argument="secret-2" * 50_000)
    for _ in range(3):
        channel.send("secret-3")
        channel.receive(timeout=20)
    channel.receive(timeout=20)
    channel.waitclose(timeout=20)
    gateway.remote_exec(short_task, argument="secret-4").receive(timeout=20)
    gateway.remote_status()

    lines = traced(traces)
    here, there = (
        [line for line in lines if line.pid == os.getpid()],
        [line for line in lines if line.pid != os.getpid()],
    )
    assert {line.gateway for line in there} >= {"worker-worker"}
    assert {line.pid for line in there if line.gateway == "worker-worker"} == {gateway._rinfo().pid}
    # A file for each process, which only its owner can read.
    assert {path.name for path in traces.iterdir()} == {f"execnet-debug-{line.pid}" for line in lines}
    assert {path.stat().st_mode & 0o777 for path in traces.iterdir()} == {0o600}

    sent, arrived = frames(here, "worker", "->"), frames(there, "worker-worker", "<-")
    hello = max(index for index, text in enumerate(sent) if text.startswith(("HELLO", "BYTES")))
    status = next(text for text in sent if text.startswith("STATUS"))
    assert sent[hello + 1 : sent.index(status) + 1] == arrived[: arrived.index(status) + 1]
    returned, gone_out = frames(here, "worker", "<-"), frames(there, "worker-worker", "->")
    answer = next(index for index, text in enumerate(returned) if text.startswith(f"DATA {status.split()[1]} "))
    assert returned[: answer + 1] == gone_out[: answer + 1]

    # In two chunks, or in smaller ones while the line is measured.
    chunks = [text.split()[3:] for text in arrived if text.startswith("EXEC 1 ")]
    assert len(chunks) == 2 or (len(chunks) > 2 and way.endswith("ssh"))
    assert chunks == [["more"]] * (len(chunks) - 1) + [[]]
    assert any(re.fullmatch(rf"EXEC 3 \d+ {re.escape(__file__)}:\d+ short_task", text) for text in arrived), arrived
    assert f"pid {gateway._rinfo().pid} " in returned[0]
    data = [text for text in returned if text.startswith("DATA 1 ")]
    assert len(data) == 5 or (len(data) > 5 and way.endswith("ssh"))  # the last in two chunks
    assert "secret" not in "".join(path.read_text() for path in traces.iterdir())


@pytest.mark.parametrize("way", ["native", "pure", "ssh", "forked"])
def test_lines_go_to_stderr_if_it_is_2(way: str, sshd: PrivateSshd, tmp_path: Path) -> None:
    del sshd
    program = (
        "import execnet, sys\n"
        "group = execnet.Group([sys.argv[1]])\n"
        "channel = group[0].remote_exec('channel.send(channel.receive())')\n"
        "channel.send(1)\n"
        "channel.receive()\n"
        "group.terminate(5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"{WAYS[way]}//id=worker"],
        env={**os.environ, "EXECNET_DEBUG": "2", "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    if way == "ssh":  # which passes lines on in pieces; lines of this end may come between them
        whole = [line for line in done.stderr.splitlines() if LINE.fullmatch(line)]
        assert len({line.pid for line in lines_of("\n".join(whole))}) >= 2
        return
    lines = lines_of(done.stderr)
    assert len({line.pid for line in lines}) >= 2
    assert [text.split()[0] for text in frames(lines, "worker-worker", "<-")][-1] == "TERMINATE"
    for direction in ("->", "<-"):
        assert any(text == "DATA 1 6" for text in frames(lines, "worker", direction))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", [None, "", "0"])
def test_nobody_traces_unless_asked_to(
    setting: str | None, traces: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EXECNET_DEBUG")
    if setting is not None:
        monkeypatch.setenv("EXECNET_DEBUG", setting)
    with execnet.Group(["popen", PURE, "popen//preload=json"]) as group:
        group.remote_exec("channel.send(1)").receive_each()
    assert not list(traces.iterdir())
    assert capfd.readouterr().err == ""


def test_what_is_in_the_directory_already_is_left_alone(group: execnet.Group, traces: Path) -> None:
    target = traces / "target"
    taken = traces / f"execnet-debug-{os.getpid()}"
    taken.symlink_to(target)
    group.makegateway("popen").remote_exec("channel.send(1)").receive(timeout=20)
    assert not target.exists()
    assert (traces / f"{taken.name}-2").stat().st_mode & 0o777 == 0o600


def test_each_group_has_a_file(traces: Path) -> None:
    for _ in range(2):
        with execnet.Group(["popen"]) as group:
            group.remote_exec("channel.send(1)").receive_each()
    names = {path.name for path in traces.iterdir()}
    assert names >= {f"execnet-debug-{os.getpid()}", f"execnet-debug-{os.getpid()}-2"}


def test_a_forked_copy_of_the_program_writes_to_its_own_file(group: execnet.Group, traces: Path) -> None:
    group.makegateway("popen").remote_exec("channel.send(1)").receive(timeout=20)
    child = os.fork()
    if child == 0:
        try:
            with execnet.Group(["popen"]) as own:
                own.remote_exec("channel.send(1)").receive_each()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert {line.pid for line in lines_of((traces / f"execnet-debug-{child}").read_text())} == {child}
    assert {line.pid for line in lines_of((traces / f"execnet-debug-{os.getpid()}").read_text())} == {os.getpid()}


@pytest.mark.parametrize("spec", ["popen", PURE])
def test_both_ends_say_how_it_ended(spec: str, group: execnet.Group, traces: Path) -> None:
    gateway = group.makegateway(spec)
    channel = gateway.remote_exec("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(execnet.GatewayGone):
        channel.receive(timeout=20)
    notes = [line.text for line in traced(traces) if line.direction == "--"]
    assert notes[0].startswith(f"starts {spec}: "), notes
    assert notes[1] == "the stream has ended"
    assert notes[2].endswith("is gone: killed by SIGKILL"), notes


@pytest.mark.parametrize("spec", ["popen", PURE])
def test_a_worker_whose_coordinator_is_killed_says_so(spec: str, traces: Path) -> None:
    program = (
        "import execnet, os, signal, sys\n"
        "group = execnet.Group([sys.argv[1]])\n"
        "print(group.remote_exec('import os; channel.send(os.getpid())').receive_each()[0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, spec], stdout=subprocess.PIPE, text=True, timeout=60)
    trace = traces / f"execnet-debug-{done.stdout.strip()}"
    assert eventually(lambda: "-- the coordinator is gone" in trace.read_text())


def test_a_directory_that_takes_no_file_stops_nobody(
    group: execnet.Group, traces: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = group.makegateway(f"{PURE}//env:TMPDIR=/nonexistent")
    assert gateway.remote_exec("channel.send(1)").receive(timeout=20) == 1
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    with execnet.Group(["popen"]) as other:
        assert other.remote_exec("channel.send(1)").receive_each() == [1]
    said = capfd.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in said] == [
        ["execnet worker", "EXECNET_DEBUG has no effect"],
        ["execnet", "EXECNET_DEBUG has no effect"],
    ]


def test_credit_is_traced(group: execnet.Group, traces: Path) -> None:
    gateway = group.makegateway("popen//window=1K")
    channel = gateway.remote_exec("for _ in range(3): channel.receive()")
    for _ in range(3):
        channel.send(b"x" * 1000)
    channel.waitclose(timeout=20)
    assert "CREDIT 1 0 credit 1006" in frames(traced(traces), "gw0", "<-")
