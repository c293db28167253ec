"""Many gateways, half of them hostile: `terminate` is still in time, and nothing is left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import pytest

import execnet
from belongings import ends_gone, eventually, our_processes
from endings import tell
from lateness import Stopwatch

MEMBERS = int(os.environ.get("EXECNET_TEST_FLEET", "200"))

WELL_BEHAVED = "channel.send([])"
IGNORES_SIGNALS = """
import signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
channel.send([])
while True: pass
"""
# Never releases the interpreter's lock.
SPINS_IN_C = "import itertools; channel.send([]); sum(itertools.repeat(1))"
FORKS = """
import subprocess
sleep = ["sh", "-c", "trap '' TERM; (setsid sleep 1000 &); exec sleep 1000"]
channel.send([subprocess.Popen(sleep, start_new_session=bool(i % 2)).pid for i in range(4)])
while True: pass
"""


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_terminate_is_in_time_whatever_half_of_the_members_do() -> None:
    group = execnet.Group([f"popen//id=m{i}" for i in range(MEMBERS)])
    try:
        channels = []
        # The quiet ones come first, because the others leave little processor time.
        for i, gateway in enumerate(group):
            source = WELL_BEHAVED if i < MEMBERS / 2 else (IGNORES_SIGNALS, SPINS_IN_C, FORKS)[i % 3]
            channels.append(gateway.remote_exec(source))
        started = [pid for channel in channels for pid in channel.receive(timeout=120)]
        workers = [gateway._rinfo().pid for gateway in group]
    finally:
        with Stopwatch() as watch:
            group.terminate(timeout=2)
    tell(f"terminate(timeout=2) of {MEMBERS} gateways, half of them hostile: {watch.seconds:.2f} s\n\n")
    assert watch.seconds < 2.5 + watch.late
    assert ends_gone([*workers, *started])
    assert len(group) == 0


# Each generation forks the next one and ends at once. A reader of /proc cannot be sure to catch up with it.
FORK_RUNNER = """
import os, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(write, b".")
    os.closerange(0, 256)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if os.fork():
            os._exit(0)
os.read(read, 1)
channel.send(1)
"""


def namespaces(pids: Iterable[int | str]) -> set[str]:
    """The PID namespaces of these processes."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/pid"))
    return found


def test_in_a_namespace_the_kernel_ends_all(group: execnet.Group) -> None:
    try:
        gateway = group.makegateway("popen//isolate=pidns")
    except execnet.HostNotFound as error:
        pytest.skip(str(error))
    (namespace,) = namespaces(our_processes()) - namespaces(["self"])
    code = "import os; channel.send((os.getpid(), os.readlink('/proc/self'), len(os.listdir('/proc'))))"
    pid, shown, _ = gateway.remote_exec(code).receive()
    assert (pid, shown) == (2, "2")
    assert gateway.remote_exec(FORK_RUNNER).receive() == 1
    group.terminate(timeout=1)
    assert eventually(lambda: namespace not in namespaces(name for name in os.listdir("/proc") if name.isdigit()))


@pytest.mark.parametrize(("code", "cause"), [("os._exit(7)", "exit status 7"), ("os.kill(2, 9)", "killed by SIGKILL")])
def test_the_cause_comes_out_of_a_namespace(group: execnet.Group, code: str, cause: str) -> None:
    try:
        gateway = group.makegateway("popen//isolate=pidns")
    except execnet.HostNotFound as error:
        pytest.skip(str(error))
    channel = gateway.remote_exec(f"import os; {code}")
    with pytest.raises(EOFError, match=cause):
        channel.receive(timeout=60)


@pytest.mark.parametrize(
    "spec", ["popen//isolate=net", "ssh=localhost//isolate=pidns", "popen//via=a//isolate=pidns", "popen//isolate"]
)
def test_only_what_can_be_isolated_is(group: execnet.Group, spec: str) -> None:
    with pytest.raises(ValueError, match="isolate"):
        group.makegateway(spec)
