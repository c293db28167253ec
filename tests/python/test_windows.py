"""Windows: a sender at full speed against a slow reader, in figures; items that windows do not bound; wrong sizes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

import execnet
from belongings import children, eventually, stop
from mutations import soak_seconds

PURE = f"popen//python={shlex.quote(sys.executable)}"
WORKERS = {"native": "popen", "pure": PURE}
MOST_MEGABYTES = 32  # resident, above idle, of either side
SHORT = 4  # seconds
MOST_MILLISECONDS = 5  # for a round trip on another channel
SECONDS = soak_seconds(SHORT)
IS_LONG = SECONDS > SHORT

each_worker = pytest.mark.parametrize("worker", WORKERS)


def resident_megabytes(pid: int) -> float:
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def seconds_without_a_processor(pids: Iterable[int]) -> float:
    """How long, in all, threads of these processes have been ready to run while the kernel ran others."""
    nanoseconds = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            # A thread may have ended.
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as stat:
                nanoseconds += int(stat.read().split()[1])
    return nanoseconds / 1e9


# --- The promise ---


SLOW_READER = "import time\nfor item in channel: time.sleep(1)"
SENDER = "while True: channel.send(b'x' * 100000)"
ECHO = "for item in channel: channel.send(item)"


@pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="sanitizers take memory and time as they like")
@pytest.mark.timeout(SECONDS + 300)
@each_worker
def test_a_slow_reader_costs_neither_memory_nor_the_time_of_others(worker: str, group: execnet.Group) -> None:
    """In both directions at the same time, each with a channel of its own.

    In the long form each single round trip is looked at, less the time for which threads were ready and had no
    processor: now and then the kernel lets one wait for a time slice of others (3 to 5 ms), with slow readers or
    without. The short form runs beside other tests, where single times say nothing.
    """
    gateway = group.makegateway(f"{WORKERS[worker]}//window=8M")
    pids = {"coordinator": os.getpid(), "worker": gateway._rinfo().pid}
    echo = gateway.remote_exec(ECHO)
    for _ in range(100):
        echo.send(b"x" * 100_000)
        echo.receive(timeout=20)
    idle = {name: resident_megabytes(pid) for name, pid in pids.items()}

    there, here = gateway.remote_exec(SLOW_READER), gateway.remote_exec(SENDER)
    over, counts = threading.Event(), {"sent": 0, "received": 0}

    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                there.send(b"x" * 100_000)
                counts["sent"] += 1

    def receive() -> None:
        while not over.wait(1):
            here.receive(timeout=20)
            counts["received"] += 1

    threads = [threading.Thread(target=function) for function in (send, receive)]
    for thread in threads:
        thread.start()
    trips, ours, slow, most = [], [], [], dict.fromkeys(pids, 0.0)
    begin = looked = time.monotonic()
    while time.monotonic() - begin < SECONDS:
        waited = seconds_without_a_processor(pids.values())
        start = time.monotonic()
        echo.send(1)
        echo.receive(timeout=20)
        trips.append((time.monotonic() - start) * 1000)
        ours.append(trips[-1])
        if trips[-1] >= MOST_MILLISECONDS:
            waited = seconds_without_a_processor(pids.values()) - waited
            slow.append(f"{trips[-1]:.1f} ms, of these {waited * 1000:.1f} ms without a processor")
            ours[-1] -= waited * 1000
        if start - looked > 0.05:
            looked = start
            most = {name: max(most[name], resident_megabytes(pid) - idle[name]) for name, pid in pids.items()}
            assert there.outstanding <= 2**23
        time.sleep(0.001)
    status = gateway.remote_status()
    over.set()
    there.close()
    here.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    echo.close()

    median, worst = statistics.median(trips), max(trips)
    memory = ", ".join(f"{name} +{megabytes:.1f} MB" for name, megabytes in most.items())
    print(
        f"soak: window=8M, {worker}: {SECONDS} s, {counts['sent']} items sent, {counts['received']} received; "
        f"{memory}; {len(trips)} round trips beside it, median {median:.2f} ms, worst {worst:.2f} ms; "
        f"over {MOST_MILLISECONDS} ms: {slow}"
    )
    assert status.numblocked == 1
    assert 2**22 < status.outstanding < 2**24  # the window was what held them back; the echo's are in it, too
    assert max(most.values()) < MOST_MEGABYTES
    assert statistics.median(ours) < MOST_MILLISECONDS
    if IS_LONG:
        assert max(ours) < MOST_MILLISECONDS


# --- What is not bounded ---


@each_worker
def test_rsync_is_not_bounded(worker: str, group: execnet.Group, tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.mkdir()
    for number in range(20):
        (source / str(number)).write_bytes(os.urandom(50_000))
    gateway = group.makegateway(f"{WORKERS[worker]}//window=10")
    sync = execnet.RSync(str(source), verbose=False)
    sync.add_target(gateway, str(destination))
    sync.send()
    assert {path.name: path.read_bytes() for path in destination.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }


@pytest.mark.parametrize("proxy", WORKERS)
def test_a_relay_is_not_bounded_by_the_window_of_the_proxy(proxy: str, group: execnet.Group) -> None:
    group.makegateway(f"{WORKERS[proxy]}//id=proxy//window=10")
    gateway = group.makegateway("popen//via=proxy")
    channel = gateway.remote_exec(ECHO)
    assert channel.window is None
    for _ in range(30):
        channel.send(b"x" * 200_000)  # more than the relay's own window, and nobody receives yet
    assert [len(channel.receive(timeout=20)) for _ in range(30)] == [200_000] * 30


@pytest.mark.parametrize("proxy", WORKERS)
def test_a_gateway_behind_a_proxy_has_a_window_of_its_own(proxy: str, group: execnet.Group) -> None:
    group.makegateway(f"{WORKERS[proxy]}//id=proxy")
    gateway = group.makegateway("popen//via=proxy//window=1M")
    channel = gateway.remote_exec("for number in range(100): channel.send(b'x' * 100000)")
    assert eventually(lambda: gateway.remote_status().numblocked == 1, 20)
    assert 2**19 < gateway.remote_status().outstanding <= 2**20
    assert sum(len(item) for item in channel) == 10_000_000


@each_worker
def test_remote_status_and_functions_pass_a_window_of_a_byte(worker: str, group: execnet.Group) -> None:
    gateway = group.makegateway(f"{WORKERS[worker]}//window=1")
    channel = gateway.remote_exec("channel.send(channel.receive())")
    assert gateway.remote_status().numexecuting == 1
    channel.send("x" * 1000)
    assert channel.receive(timeout=20) == "x" * 1000
    channel.waitclose(20)


def test_a_window_given_as_attribute(group: execnet.Group) -> None:
    spec = execnet.XSpec("popen")
    spec.window = 8 * 2**20
    assert group.makegateway(spec).newchannel().window == 8 * 2**20


@pytest.mark.parametrize("text", ["window", "window=", "window=0", "window=8MB", "window=-1", "window=many"])
def test_a_wrong_window_is_refused_before_anything_is_started(text: str, group: execnet.Group) -> None:
    before = children()
    with pytest.raises(ValueError, match="window"):
        group.makegateway(f"popen//{text}")
    assert children() == before
    assert len(group) == 0


# --- Senders that give up ---


@each_worker
def test_a_send_to_a_worker_that_stands_still_gives_up_in_time(worker: str, group: execnet.Group) -> None:
    """Without a window, when the stream itself is full."""
    gateway = group.makegateway(WORKERS[worker])
    channel = gateway.remote_exec("channel.send(len(channel.receive()))")
    stop(gateway._rinfo().pid)
    try:
        with pytest.raises(execnet.TimeoutError, match="did not take the message in time"):
            channel.send(b"x" * 20_000_000, timeout=0.05)
    finally:
        os.kill(gateway._rinfo().pid, signal.SIGCONT)
    channel.send(b"y" * 7, timeout=20)
    assert channel.receive(timeout=20) == 7


@each_worker
def test_a_signal_handler_may_send_while_a_send_waits(worker: str, group: execnet.Group) -> None:
    gateway = group.makegateway(f"{WORKERS[worker]}//window=1000")
    steps, sent = gateway.newchannel(), []
    channel = gateway.remote_exec("steps = channel.receive()\nfor step in steps: channel.send(channel.receive())")
    channel.send(steps)
    channel.send("x" * 990)

    def handle(number: int, frame: object) -> None:
        with pytest.raises(execnet.TimeoutError):
            channel.send("from the handler", timeout=0)
        steps.send(1)
        channel.send("from the handler", timeout=20)
        sent.append("from the handler")

    def signal_when_waiting() -> None:
        assert eventually(lambda: not can_send(channel), 20)
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=signal_when_waiting)
    thread.start()
    try:
        channel.send("y" * 500)
    finally:
        signal.signal(signal.SIGUSR1, previous)
        thread.join(20)
    assert sent == ["from the handler"]
    channel.close()


def can_send(channel: execnet.Channel) -> bool:
    with contextlib.suppress(execnet.TimeoutError):
        channel.send("", timeout=0)
        return True
    return False
