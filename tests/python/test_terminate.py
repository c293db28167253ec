"""Nothing is left running: terminate, exit, kill -9, and the end of the program."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

import execnet
from belongings import ends_gone, eventually, has_ended, parent_of, pidfd, stop
from lateness import Stopwatch
from sshd import PrivateSshd

PURE = f"popen//python={shlex.quote(sys.executable)}"
DEAF_FOR_EVER = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
channel.send(os.getpid())
while True:
    pass
"""
DEAF_WITH_CHILDREN = """
import os, signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
shell = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
channel.send([shell.pid, int(shell.stdout.readline())])
while True:
    pass
"""


def seconds(call: Callable[[], object]) -> float:
    with Stopwatch() as watch:
        call()
    return watch.seconds - watch.late


def test_terminate_does_not_wait_for_a_sleeper(group: execnet.Group) -> None:
    gateway = group.makegateway("popen//id=sleeper")
    gateway.remote_exec("import time; channel.send(1); time.sleep(2.0)").receive()
    with pidfd(gateway._rinfo().pid) as end:
        assert seconds(lambda: group.terminate(timeout=1.0)) < 1.5
        assert eventually(lambda: has_ended(end))
    assert len(group) == 0


def test_terminate_kills_what_ignores_signals_and_loops_for_ever(group: execnet.Group) -> None:
    pid = group.makegateway("popen").remote_exec(DEAF_FOR_EVER).receive()
    with pidfd(pid) as end:
        assert seconds(lambda: group.terminate(timeout=1.0)) < 1.5
        assert eventually(lambda: has_ended(end))
    assert len(group) == 0


def test_many_members_share_one_timeout(group: execnet.Group) -> None:
    channels = [group.makegateway("popen").remote_exec(DEAF_FOR_EVER) for _ in range(5)]
    for channel in channels:
        channel.receive()
    assert seconds(lambda: group.terminate(timeout=0.5)) < 1.5


def test_the_children_of_a_worker_go_with_it(group: execnet.Group) -> None:
    children = group.makegateway("popen").remote_exec(DEAF_WITH_CHILDREN).receive()
    assert seconds(lambda: group.terminate(timeout=0.1)) < 1.5
    assert ends_gone(children)


def test_idle_members_need_no_time(group: execnet.Group) -> None:
    for _ in range(3):
        group.makegateway("popen")
    assert seconds(lambda: group.terminate(timeout=100.0)) < 50.0


def test_without_a_timeout_members_end_all_the_same(group: execnet.Group) -> None:
    gateway = group.makegateway("popen")
    with pidfd(gateway._rinfo().pid) as end:
        group.terminate()
        assert has_ended(end)


def test_terminate_may_be_called_again(group: execnet.Group) -> None:
    group.makegateway("popen")
    group.terminate(timeout=1.0)
    group.terminate(timeout=1.0)
    group.terminate()
    assert repr(group) == "<Group []>"


def test_exit_may_be_called_again_and_on_a_dead_one(group: execnet.Group) -> None:
    gateway = group.makegateway("popen")
    gateway.exit()
    gateway.exit()
    gateway.join(timeout=60)
    assert not gateway.hasreceiver()
    gateway.exit()
    group.terminate(timeout=1.0)
    gateway.exit()


def test_an_id_may_come_back_as_that_of_what_goes_through_what_its_first_owner_installed(group: execnet.Group) -> None:
    group.makegateway("popen//id=first")
    group.makegateway("socket//installvia=first//id=second")
    first = group["first"]._rinfo().pid
    stop(first)  # the second ends with it
    group["first"].exit()
    group.makegateway("popen//via=second//id=first")
    os.kill(first, signal.SIGCONT)
    assert seconds(lambda: group.terminate(timeout=100.0)) < 50.0
    assert repr(group) == "<Group []>"


def test_an_ssh_connection_that_is_shared_is_not_started_by_a_gateway_and_not_ended(
    group: execnet.Group, sshd: PrivateSshd
) -> None:
    control, config = sshd.directory / "control", sshd.directory / "sharing_config"
    sharing = f"ControlMaster auto\nControlPath {control}\nControlPersist yes\n"
    config.write_text(sharing + (sshd.directory / "ssh_config").read_text())
    spec = f"ssh=localhost//ssh_config={config}"

    def ssh(*arguments: str) -> int:
        # The connection goes to the background, with its stdout and stderr.
        nothing = subprocess.DEVNULL
        command = ["ssh", "-F", str(config), *arguments]
        return subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing).returncode

    def logins() -> int:
        return sshd.log.count("Accepted publickey")

    before = logins()
    group.makegateway(spec)
    assert not control.exists()
    group.terminate(timeout=10)
    assert ssh("localhost", "true") == 0
    assert eventually(lambda: logins() == before + 2)
    try:
        assert group.makegateway(spec).remote_exec("channel.send(42)").receive(timeout=60) == 42
        group.terminate(timeout=10)
        assert logins() == before + 2
        assert ssh("-O", "check", "localhost") == 0
    finally:
        ssh("-O", "exit", "localhost")


def test_join_waits_for_the_end(gateway: execnet.Gateway) -> None:
    gateway.join(timeout=0.01)
    assert gateway.hasreceiver()
    gateway.exit()
    gateway.join(timeout=60)
    assert not gateway.hasreceiver()


def test_a_terminated_gateway_says_so(gateway: execnet.Gateway, group: execnet.Group) -> None:
    channel = gateway.remote_exec("channel.receive()")
    group.terminate(timeout=1.0)
    assert not gateway.hasreceiver()
    assert "receive-live" not in repr(gateway)
    # On a machine that is busy the worker may be killed before it has closed the channel.
    with pytest.raises(OSError, match=r"closed|^gateway gw0 \(popen\) was terminated by this side"):
        channel.send(1)
    with pytest.raises(OSError, match="gw0"):
        gateway.remote_exec("pass")


# --- kill -9 of a worker ---


def send_until_it_fails(channel: execnet.Channel) -> None:
    while True:  # The first ones may still go into the kernel's buffer.
        channel.send(b"x" * 100_000)


@pytest.mark.parametrize(
    "call",
    [execnet.Channel.receive, execnet.Channel.waitclose, list, send_until_it_fails],
    ids=["receive", "waitclose", "iteration", "send"],
)
def test_a_killed_worker_is_told_by_signal_and_quickly(
    gateway: execnet.Gateway, call: Callable[[execnet.Channel], object]
) -> None:
    channel = gateway.remote_exec("channel.send(1); channel.receive()")
    channel.receive()
    pid = gateway._rinfo().pid
    with Stopwatch() as watch:
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(execnet.GatewayGone, match="SIGKILL") as caught:
            call(channel)
    assert watch.seconds < 1.0 + watch.late
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, EOFError)
    assert "gw0" in str(caught.value)


def test_a_killed_worker_is_told_by_signal_also_when_its_guard_comes_late(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("channel.send(1); channel.receive()")
    channel.receive()
    pid = gateway._rinfo().pid
    guard = parent_of(parent_of(pid))
    stop(guard)  # as on a busy machine
    os.kill(pid, signal.SIGKILL)
    late = threading.Timer(0.4, os.kill, (guard, signal.SIGCONT))
    late.start()
    with pytest.raises(execnet.GatewayGone, match="SIGKILL"):
        channel.receive()
    late.join()


def test_what_a_killed_worker_had_sent_is_still_received(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("[channel.send(n) for n in range(100)]; import os; os.kill(os.getpid(), 9)")
    assert [channel.receive() for _ in range(100)] == list(range(100))
    with pytest.raises(execnet.GatewayGone):
        channel.receive()


def test_the_exit_status_and_last_words_of_a_worker_are_told(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("import os; os._exit(3)")
    with pytest.raises(execnet.GatewayGone, match="exit status 3"):
        channel.receive()
    assert not gateway.hasreceiver()
    assert "receive-live" not in repr(gateway)


def test_a_group_with_killed_members_terminates(group: execnet.Group) -> None:
    gateways = [group.makegateway("popen") for _ in range(3)]
    for gateway in gateways[:2]:
        os.kill(gateway._rinfo().pid, signal.SIGKILL)
    group.terminate(timeout=5.0)
    assert len(group) == 0


# --- The end of the program ---

PROGRAM = """
import sys
import execnet
group = execnet.Group(["popen", "popen"])
gateways = [*group, execnet.makegateway("popen")]
busy = group[0].remote_exec("channel.send(1)\\nwhile True: pass")
busy.receive()
print(*[gateway._rinfo().pid for gateway in gateways], flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("last_words", "status"),
    [("", 0), ("raise SystemExit(5)", 5), ("raise ValueError", 1), ("del group, gateways, busy", 0)],
)
def test_the_end_of_the_interpreter_takes_the_gateways_along(last_words: str, status: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + last_words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        ends = [os.pidfd_open(int(pid)) for pid in program.stdout.readline().split()]
        assert len(ends) == 3
        program.stdin.write("\n")
        program.stdin.close()
        assert program.wait(timeout=20) == status
        try:
            assert eventually(lambda: all(has_ended(end) for end in ends))
        finally:
            for end in ends:
                os.close(end)


def test_a_killed_coordinator_takes_its_workers_along() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        ends = [os.pidfd_open(int(pid)) for pid in program.stdout.readline().split()]
        program.kill()
        try:
            for end in ends:
                assert select.select([end], [], [], 60)[0]
        finally:
            for end in ends:
                os.close(end)


STOPPED_CHILD = """
import subprocess, sys
import execnet
from belongings import stop
child = subprocess.Popen(["sleep", "1000"])
stop(child.pid)
execnet.Group(sys.argv[1:]).terminate(timeout=5)
child.kill()
child.wait()
print("goes on")
"""


@pytest.mark.parametrize(
    "specs", [["popen"], ["popen//preload"], [PURE], [f"{PURE}//id=proxy", f"{PURE}//via=proxy"]], ids=str
)
def test_a_program_without_a_terminal_is_not_hung_up(specs: list[str]) -> None:
    # A process group becomes orphaned when its last member with a parent outside of the group, in the same session,
    # ends. If a member is stopped then, the kernel sends SIGHUP to all of them.
    run = subprocess.run(
        [sys.executable, "-c", STOPPED_CHILD, *specs],
        start_new_session=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (0, "goes on\n")
