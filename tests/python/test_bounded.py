"""A call with a time-out returns at most 0.2 s after it, whatever the workers do: a matrix of calls and states."""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import execnet
from belongings import children, doings, ends_gone, eventually, sleeps, stop
from lateness import Stopwatch
from sshd import PrivateSshd

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="slow on purpose: its times say nothing"),
]

GRACE = 0.2  # seconds, as it is promised
PURE = f"//python={shlex.quote(sys.executable)}"

DEAF = """
import os, signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
"""
HOLDS_THE_GIL = (
    DEAF
    + """
import ctypes
channel.send([os.getpid()])
while True:
    ctypes.PyDLL(None).sleep(1000)  # a call that keeps the interpreter's lock
"""
)
SPINS = DEAF + "channel.send([os.getpid()])\nwhile True:\n    pass\n"
IN_A_HANDLER = """
import os, signal
def never_returns(number, frame):
    channel.send([os.getpid()])
    while True:
        pass
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, never_returns)
os.kill(os.getpid(), signal.SIGUSR1)
"""
HAS_CHILDREN = (
    DEAF
    + """
import subprocess
children = [subprocess.Popen(["sleep", "1000"]) for _ in range(200)]
channel.send([os.getpid()] + [child.pid for child in children])
signal.pause()
"""
)
FLOODS = (
    DEAF
    + """
import time
another = channel.gateway.newchannel()
channel.send([os.getpid()])
end = time.monotonic() + 5
while time.monotonic() < end:  # there is always something to read, and it is for nobody
    for _ in range(1000):
        another.send(None)
while True:
    pass
"""
)
TREE = """
import os, subprocess
child = subprocess.Popen(["sleep", "1000"])
channel.send([os.getpid(), child.pid])
child.wait()
"""


@dataclass
class Trouble:
    """A gateway whose worker does not obey."""

    group: execnet.Group
    gateway: execnet.Gateway
    channel: execnet.Channel  # on which nothing comes
    pids: list[int]  # of processes that have to be gone in the end
    after: list[Callable[[], object]] = field(default_factory=list)


def make_trouble(group: execnet.Group, spec: str, code: str) -> Trouble:
    gateway = group.makegateway(spec)
    channel = gateway.remote_exec(code)
    return Trouble(group, gateway, channel, channel.receive(timeout=20))


def stopped(group: execnet.Group, worker: str) -> Trouble:
    trouble = make_trouble(group, "popen" + worker, TREE)
    stop(trouble.pids[0])
    return trouble


def stopped_tree(group: execnet.Group, worker: str) -> Trouble:
    trouble = make_trouble(group, "popen" + worker, TREE)
    for pid in trouble.pids:
        stop(pid)
    return trouble


def behind_a_stopped_proxy(group: execnet.Group, worker: str) -> Trouble:
    proxy = group.makegateway("popen//id=proxy" + worker)
    trouble = make_trouble(group, "popen//via=proxy", TREE)
    stop(proxy._rinfo().pid)
    trouble.pids.append(proxy._rinfo().pid)
    return trouble


def stopped_behind_a_proxy(group: execnet.Group, worker: str) -> Trouble:
    group.makegateway("popen//id=proxy")
    trouble = make_trouble(group, "popen//via=proxy" + worker, TREE)
    for pid in trouble.pids:
        stop(pid)
    return trouble


def installed_and_stopped(group: execnet.Group, worker: str) -> Trouble:
    host = group.makegateway("popen//id=host" + worker)
    trouble = make_trouble(group, "socket//installvia=host", TREE)
    for pid in (*trouble.pids, host._rinfo().pid):
        stop(pid)
    return trouble


def nobody_reads(group: execnet.Group, worker: str) -> Trouble:
    """A thread of the coordinator is in the middle of a message."""
    trouble = make_trouble(group, "popen" + worker, TREE)
    stop(trouble.pids[0])

    def send() -> None:
        with contextlib.suppress(OSError):
            trouble.channel.send(b"x" * (64 << 20))

    sender = threading.Thread(target=send)
    sender.start()
    assert eventually(lambda: sleeps_in(sender))
    trouble.after.append(sender.join)
    return trouble


def sleeps_in(thread: threading.Thread) -> bool:
    """Whether the thread waits for something other than the interpreter's lock, for which it wakes up every 5 ms."""
    assert thread.native_id is not None
    before = doings(os.getpid(), thread.native_id)
    time.sleep(0.02)
    return before[0] == "S" and doings(os.getpid(), thread.native_id) == before


def doing(code: str) -> Callable[[execnet.Group, str], Trouble]:
    return lambda group, worker: make_trouble(group, "popen" + worker, code)


STATES: dict[str, Callable[[execnet.Group, str], Trouble]] = {
    "stopped": stopped,
    "stopped tree": stopped_tree,
    "holds the GIL": doing(HOLDS_THE_GIL),
    "spins": doing(SPINS),
    "in a signal handler": doing(IN_A_HANDLER),
    "200 children": doing(HAS_CHILDREN),
    "floods": doing(FLOODS),
    "behind a stopped proxy": behind_a_stopped_proxy,
    "stopped behind a proxy": stopped_behind_a_proxy,
    "installed and stopped": installed_and_stopped,
    "nobody reads": nobody_reads,
}


def within(seconds: float, call: Callable[[], object]) -> None:
    with Stopwatch(children=True) as watch, contextlib.suppress(execnet.TimeoutError):
        call()
    assert watch.seconds < seconds + GRACE + watch.late, (
        f"{watch.seconds:.3f} s, the machine was {watch.late:.3f} s late"
    )


def check_waits(trouble: Trouble) -> None:
    """All calls that wait for the gateway with a time-out, and those that do not wait."""
    gateway, channel = trouble.gateway, trouble.channel
    waits = {
        "receive": lambda: channel.receive(timeout=0.1),
        "waitclose": lambda: channel.waitclose(timeout=0.1),
        "join": lambda: gateway.join(timeout=0.1),
        "remote_status": lambda: gateway.remote_status(timeout=0.1),
    }
    for call in waits.values():
        within(0.1, call)
    within(0, channel.close)
    within(0, gateway.hasreceiver)
    within(0, lambda: repr(gateway))


def check_gone(trouble: Trouble) -> None:
    assert ends_gone(trouble.pids, patience=2.0)
    for call in trouble.after:
        call()


@pytest.mark.parametrize("worker", ["", PURE], ids=["native", "pure"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_terminate_and_what_waits_are_in_time(group: execnet.Group, state: str, worker: str, seconds: float) -> None:
    trouble = STATES[state](group, worker)
    check_waits(trouble)
    within(0, trouble.gateway.exit)
    within(seconds, lambda: group.terminate(timeout=seconds))
    check_gone(trouble)


# A sending thread refers to its group.
@pytest.mark.parametrize("state", [state for state in STATES if state != "nobody reads"])
def test_the_end_of_a_group_that_nobody_refers_to_is_in_time(state: str) -> None:
    trouble = STATES[state](execnet.Group(), "")
    pids = trouble.pids
    trouble.__dict__.clear()
    within(1.0, gc.collect)  # members refer to their group
    assert ends_gone(pids, patience=2.0)


# --- The end of the interpreter ---

PROGRAM = f"""
import sys
import execnet
groups = [execnet.Group(["popen", "popen{PURE}"]) for _ in range(3)]
pids = [group[0].remote_exec(SPINS).receive()[0] for group in groups]
pids += [group[1].remote_exec(HOLDS_THE_GIL).receive()[0] for group in groups]
print(*pids, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("last_words", ["", "raise ValueError", "del groups"])
def test_the_end_of_the_interpreter_takes_about_a_second(last_words: str) -> None:
    program = f"SPINS, HOLDS_THE_GIL = {SPINS!r}, {HOLDS_THE_GIL!r}\n{PROGRAM}{last_words}"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as coordinator:
        assert coordinator.stdin is not None
        assert coordinator.stdout is not None
        pids = [int(word) for word in coordinator.stdout.readline().split()]
        assert len(pids) == 6
        with Stopwatch(children=True) as watch:
            coordinator.stdin.close()
            coordinator.wait(timeout=30)
    # Three groups share that second. `del` ends one after the other.
    seconds = 3.0 if last_words.startswith("del") else 1.0
    assert watch.seconds < seconds + 3 * GRACE + watch.late
    assert ends_gone(pids, patience=2.0)


# --- Over a network that swallows everything ---


def its_ancestors_below(pid: int, top: int) -> list[int]:
    found = []
    while pid not in (0, 1, top):
        found.append(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found[1:]


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_an_ssh_server_that_is_stopped(sshd: PrivateSshd, group: execnet.Group, seconds: float) -> None:
    gateway = group.makegateway("ssh=localhost")
    channel = gateway.remote_exec("channel.send([]); channel.receive()")
    channel.receive(timeout=20)
    servers = its_ancestors_below(gateway._rinfo().pid, sshd._process.pid)
    for pid in servers:
        stop(pid)
    try:
        trouble = Trouble(group, gateway, channel, children())
        check_waits(trouble)
        within(seconds, lambda: group.terminate(timeout=seconds))
    finally:
        for pid in servers:
            os.kill(pid, signal.SIGCONT)


@dataclass(frozen=True)
class BlackHole:
    """A port that accepts connections, or not even that, and never answers."""

    listener: socket.socket

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])


@pytest.fixture(params=["never accepts", "never answers"])
def black_hole(request: pytest.FixtureRequest) -> Iterator[BlackHole]:
    with contextlib.ExitStack() as stack:
        full = request.param == "never accepts"
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0 if full else 16))
        port = listener.getsockname()[1]
        while full:  # until its queue is full: what comes then is not answered
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            full = eventually(lambda one=one: one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO) == 1, 0.05)
        yield BlackHole(listener)


def starting(group: execnet.Group, spec: str) -> tuple[threading.Thread, list[str]]:
    """Makes a gateway in a thread of its own. Returns the result."""
    said: list[str] = []

    def make() -> None:
        try:
            group.makegateway(spec)
        except execnet.HostNotFound as error:
            said.append(str(error))

    thread = threading.Thread(target=make)
    thread.start()
    return thread, said


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_ssh_into_nothing_ends_with_the_group(
    black_hole: BlackHole, sshd: PrivateSshd, group: execnet.Group, seconds: float
) -> None:
    del sshd
    before = set(children())
    thread, said = starting(group, f"ssh=-p {black_hole.port} 127.0.0.1")
    assert eventually(lambda: any(sleeps(pid) for pid in set(children()) - before))
    within(seconds, lambda: group.terminate(timeout=seconds))
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert "no usable Python for 'ssh=-p" in said[0]


def test_a_socket_into_nothing_does_not_hold_up_the_group(black_hole: BlackHole, group: execnet.Group) -> None:
    port = black_hole.port
    thread, said = starting(group, f"socket=127.0.0.1:{port}")
    assert eventually(lambda: sleeps_in(thread))
    within(0.5, lambda: group.terminate(timeout=0.5))
    black_hole.listener.close()  # who still tries to connect is refused at the next attempt
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert str(port) in said[0]


@pytest.mark.parametrize("black_hole", ["never accepts"], indirect=True)
def test_who_is_not_there_when_the_group_is_terminated_is_not_started(
    black_hole: BlackHole, group: execnet.Group
) -> None:
    thread, said = starting(group, f"socket=127.0.0.1:{black_hole.port}")
    assert eventually(lambda: sleeps_in(thread))
    group.terminate(timeout=0.0)
    black_hole.listener.settimeout(0.1)
    while thread.is_alive():  # the queue gets shorter: the connection is made
        with contextlib.suppress(TimeoutError):
            black_hole.listener.accept()[0].close()
    thread.join()
    assert "its group was terminated meanwhile" in said[0]


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_a_server_that_a_stopped_gateway_is_to_install(group: execnet.Group, seconds: float) -> None:
    host = group.makegateway("popen//id=host")
    stop(host._rinfo().pid)
    thread, said = starting(group, "socket//installvia=host")
    assert eventually(lambda: sleeps_in(thread))
    within(seconds, lambda: group.terminate(timeout=seconds))
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert "gateway 'host' cannot listen: " in said[0]
