"""What programs for the next version of execnet use, and 2.1 does not have."""

from __future__ import annotations

import os
import pickle
import shlex
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import execnet
from belongings import stop
from sshd import PrivateSshd

PURE = f"popen//python={shlex.quote(sys.executable)}"
pytestmark = pytest.mark.timeout(120)


# --- How members end --------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["popen", PURE, "popen//preload"])
def test_after_terminate_it_is_known_whether_all_have_ended_by_themselves(spec: str) -> None:
    group = execnet.Group([spec] * 2)
    assert group.ended_by_themselves is True
    stopped = group[0]
    stop(stopped.pid)
    group.terminate(timeout=0.5)
    assert group.ended_by_themselves is False
    assert stopped.returncode == -signal.SIGKILL
    group.makegateway(spec)
    group.terminate(timeout=60)
    assert group.ended_by_themselves is True
    group.terminate(timeout=60)
    assert group.ended_by_themselves is True  # there is nobody


def test_who_has_died_before_has_ended_by_itself(group: execnet.Group) -> None:
    gateway = group.makegateway("popen")
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.join(timeout=60)
    group.terminate(timeout=60)
    assert group.ended_by_themselves is True


KINDS = {
    "native": ["popen//id=last"],
    "pure": [f"{PURE}//id=last"],
    "preload": ["popen//preload//id=last"],
    "via native": ["popen//id=proxy", f"{PURE}//via=proxy//id=last"],
    "via pure": [f"{PURE}//id=proxy", f"{PURE}//via=proxy//id=last"],
    "preload via native": ["popen//id=proxy", "popen//preload//via=proxy//id=last"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_gateway_has_a_pid_and_after_its_end_a_returncode(group: execnet.Group, kind: str) -> None:
    for source, status in (
        ("import os; os._exit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGUSR1)", -signal.SIGUSR1),
    ):
        for spec in KINDS[kind]:
            gateway = group.makegateway(spec)
        assert gateway.remote_exec("import os; channel.send(os.getpid())").receive(timeout=60) == gateway.pid
        assert gateway.returncode is None
        with pytest.raises(execnet.GatewayGone):
            gateway.remote_exec(source).waitclose(timeout=60)
        assert gateway.returncode == status
        group.terminate(timeout=60)
        assert gateway.returncode == status


def test_a_worker_that_ends_by_itself_has_the_returncode_0(group: execnet.Group) -> None:
    gateway = group.makegateway("popen")
    gateway.exit()
    gateway.join(timeout=60)
    assert gateway.returncode == 0


def test_the_returncode_over_ssh_is_that_of_ssh(group: execnet.Group, sshd: PrivateSshd) -> None:
    gateway = group.makegateway("ssh=localhost")
    with pytest.raises(execnet.GatewayGone):
        gateway.remote_exec("import os; os._exit(3)").waitclose(timeout=60)
    assert gateway.returncode == 3
    group.terminate(timeout=60)


def test_of_a_stranger_no_returncode_is_known(group: execnet.Group) -> None:
    group.makegateway("popen//id=host")
    gateway = group.makegateway("socket//installvia=host")
    with pytest.raises(execnet.GatewayGone):
        gateway.remote_exec("import os; os._exit(3)").waitclose(timeout=60)
    assert gateway.returncode is None


# --- Errors -----------------------------------------------------------------------------------------


def test_the_errors_are_of_the_types_that_programs_catch() -> None:
    for error, bases in {
        execnet.ChannelClosed: (OSError,),
        execnet.ForkedResourceError: (OSError, execnet.GatewayGone),
        execnet.ExecnetStateError: (RuntimeError, OSError),  # of the next version, of 2.1
    }.items():
        assert issubclass(error, bases)
        assert not issubclass(error, EOFError) or error is execnet.ForkedResourceError
        again = pickle.loads(pickle.dumps(error("text")))
        assert (type(again), str(again)) == (error, "text")


def test_a_closed_channel_says_so(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("channel.receive()")
    channel.close()
    for call in (lambda: channel.send(1), lambda: channel.set_window(10), channel.reconfigure):
        with pytest.raises(execnet.ChannelClosed, match="it is closed"):
            call()


def test_a_call_that_is_not_allowed_in_this_state_says_so(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("channel.receive()")
    channel.setcallback(lambda item: None)
    with pytest.raises(execnet.ExecnetStateError, match="has a callback already"):
        channel.setcallback(lambda item: None)
    with pytest.raises(execnet.ExecnetStateError, match="its items go to a callback"):
        channel.receive()
    source = """
    try:
        channel.close()
    except OSError as error:
        channel.send(type(error).__name__)
    """
    assert gateway.remote_exec(source).receive(timeout=60) == "ExecnetStateError"


def test_a_forked_child_is_told_whose_gateway_it_is() -> None:
    program = textwrap.dedent("""
        import os, execnet
        gateway = execnet.makegateway("popen")
        channel = gateway.remote_exec("channel.receive()")
        pid = os.fork()
        if pid == 0:
            told = 0
            calls = (gateway.newchannel, lambda: gateway.remote_exec("pass"), lambda: channel.send(1), channel.receive)
            for call in calls:
                try:
                    call()
                except execnet.ForkedResourceError as error:
                    told += "forked from" in str(error)
            os._exit(0 if told == len(calls) and gateway.returncode is None else 1)
        print(os.waitpid(pid, 0)[1])
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


# --- Values -----------------------------------------------------------------------------------------


def test_can_send_says_beforehand_what_a_channel_can_carry(gateway: execnet.Gateway) -> None:
    channel = gateway.newchannel()
    deep: Any = None
    for _ in range(1001):
        deep = [deep]
    for value in (
        None,
        1,
        "text",
        {"a": [1.5, (b"x", {2})]},
        10**100,
        bytearray(b"x"),
        b"x" * 2**20,
        channel,
        [channel],
    ):
        assert execnet.can_send(value) is True
        channel.send(value)
    for value in (object(), {"a": [object()]}, len, deep, "\ud800", execnet):
        assert execnet.can_send(value) is False
        with pytest.raises(execnet.DumpError):
            channel.send(value)


def test_can_send_copies_no_large_bytes() -> None:
    """A program that could not hold a second copy of them."""
    program = textwrap.dedent("""
        import resource, execnet
        value = [b"x" * (400 << 20), "y" * (400 << 20)]
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
        print(execnet.can_send(value))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


# --- Profiles ---------------------------------------------------------------------------------------


def test_profile_is_another_name_of_execmodel(group: execnet.Group) -> None:
    with execnet.Group(["popen"], profile="main_thread_only") as other:
        assert other.profile == other.execmodel.backend == "main_thread_only"
        assert other[0].remote_status().execmodel == "main_thread_only"
        with pytest.raises(ValueError, match="has members"):
            other.set_profile("thread")
    assert group.profile == "thread"
    group.set_profile("thread", "main_thread_only")
    assert group.profile == group.remote_execmodel.backend == "main_thread_only"
    assert group.makegateway("popen").remote_status().execmodel == "main_thread_only"
    gateway = group.makegateway("popen//profile=thread")
    assert gateway.remote_status().execmodel == gateway.spec.execmodel == gateway.spec.profile == "thread"
    assert group.makegateway("execmodel=thread//popen//profile=thread").remote_status().execmodel == "thread"
    assert execnet.set_profile.__self__ is execnet.default_group  # type: ignore[attr-defined]


def test_two_models_at_once_are_refused_before_anything_is_started(group: execnet.Group) -> None:
    with pytest.raises(ValueError, match=r"both execmodel='thread' and profile='gevent'.*give one of them"):
        execnet.Group(["popen"], execmodel="thread", profile="gevent")
    with pytest.raises(ValueError, match=r"both execmodel=thread and profile=gevent.*give one of them"):
        group.makegateway("popen//execmodel=thread//profile=gevent")
    with pytest.raises(ValueError, match="no value for profile"):
        group.makegateway("popen//profile")
    with pytest.raises(ValueError, match="unknown execmodel 'nothing'"):
        execnet.Group(["popen"], profile="nothing")
    assert len(group) == 0
