"""Gateways that are started, and reached, through another one: via=."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import execnet
import interpreters
from belongings import ends_gone, eventually, has_ended, pidfd, starter_of, stop
from lateness import Stopwatch
from sshd import PrivateSshd

ECHO = "for item in channel: channel.send(item)"
MIB = 1 << 20
HOLD_THE_GIL = """
import ctypes
channel.send("holding")
ctypes.PyDLL(None).pause()  # a call that keeps the interpreter's lock, until a signal comes
"""
DEAF_FOR_EVER = """
import os, signal
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
channel.send(os.getpid())
while True:
    pass
"""


@pytest.fixture(params=["native", "pure", "python2.7"])
def proxy(request: pytest.FixtureRequest, group: execnet.Group) -> execnet.Gateway:
    if request.param == "native":
        return group.makegateway("popen//id=proxy")
    path = sys.executable if request.param == "pure" else interpreters.find(request.param)
    if path is None:
        pytest.skip(f"{request.param}: not found")
    return group.makegateway(f"popen//id=proxy//python={path}")


@pytest.fixture
def sub(proxy: execnet.Gateway, group: execnet.Group) -> execnet.Gateway:
    return group.makegateway("popen//id=sub//via=proxy")


def peak_memory(pid: int) -> int:
    """Bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def test_it_is_a_gateway_like_others(proxy: execnet.Gateway, sub: execnet.Gateway) -> None:
    assert repr(sub) == "<PopenGateway id='sub' receive-live, 0 active channels>"
    assert sub.spec.via == "proxy"
    assert not hasattr(sub, "remoteaddress")
    info = sub._rinfo()
    assert (info.executable, info.implementation) == (proxy._rinfo().executable, proxy._rinfo().implementation)
    assert info.pid != proxy._rinfo().pid
    assert starter_of(info.pid) == proxy._rinfo().pid
    assert sub.remote_status().numexecuting in (0, 1)


def test_the_specification_is_applied_where_it_runs(
    proxy: execnet.Gateway, group: execnet.Group, tmp_path: Path
) -> None:
    gateway = group.makegateway(f"popen//via=proxy//chdir={tmp_path / 'new'}//env:COLOUR=red//nice=3")
    channel = gateway.remote_exec("import os; channel.send((os.getcwd(), os.environ['COLOUR'], os.nice(0)))")
    assert channel.receive() == (str(tmp_path / "new"), "red", os.nice(0) + 3)


def test_a_chain_of_three(group: execnet.Group) -> None:
    group.makegateway("popen//id=a")
    group.makegateway(f"popen//via=a//id=b//python={sys.executable}")
    last = group.makegateway("popen//via=b//id=c")
    channel = last.remote_exec(ECHO)
    for item in (1, "two", b"three" * MIB):
        channel.send(item)
        assert channel.receive() == item
    assert [gateway.id for gateway in group] == ["a", "b", "c"]
    assert [starter_of(gateway._rinfo().pid) for gateway in group] == [
        os.getpid(),
        group["a"]._rinfo().pid,
        group["b"]._rinfo().pid,
    ]


def test_proxies_and_what_goes_through_them_may_be_made_together() -> None:
    with execnet.Group(["popen//id=a", "popen//via=a//id=b", "popen//via=b//id=c", "popen//via=a"]) as group:
        assert sorted(group.remote_exec("channel.send(1)").receive_each()) == [1, 1, 1, 1]


def test_what_comes_first_cannot_go_through_what_comes_later() -> None:
    with pytest.raises(ValueError, match="no gateway 'b'"):
        execnet.Group(["popen//id=a//via=b", "popen//id=b"])


@pytest.mark.usefixtures("proxy")
def test_a_missing_interpreter_is_named_with_what_to_do(group: execnet.Group) -> None:
    with pytest.raises(execnet.HostNotFound, match=r"cannot start 'nopython': No such file.*machine of the proxy"):
        group.makegateway("popen//via=proxy//python=nopython")
    assert [gateway.id for gateway in group] == ["proxy"]


@pytest.mark.usefixtures("proxy")
def test_a_failed_start_quotes_what_was_said(group: execnet.Group) -> None:
    with pytest.raises(execnet.HostNotFound) as caught:
        group.makegateway("popen//via=proxy//python=sh -c 'echo no luck >&2; exit 3'")
    assert "exit status 3" in str(caught.value)
    assert "no luck" in str(caught.value)


def test_a_start_through_a_dead_proxy_names_its_cause(proxy: execnet.Gateway, group: execnet.Group) -> None:
    os.kill(proxy._rinfo().pid, signal.SIGKILL)
    proxy.join(timeout=60)
    with pytest.raises(execnet.HostNotFound, match=r"its proxy is gone: gateway proxy .*killed by SIGKILL"):
        group.makegateway("popen//via=proxy")


def test_the_death_of_a_worker_has_its_cause(sub: execnet.Gateway) -> None:
    channel = sub.remote_exec("import os; os.write(2, b'famous last words\\n'); channel.send(1); channel.receive()")
    assert channel.receive() == 1
    os.kill(sub._rinfo().pid, signal.SIGKILL)
    with pytest.raises(execnet.GatewayGone, match=r"gateway sub .*is gone: killed by SIGKILL"):
        channel.receive(timeout=60)


def test_an_exit_status_comes_through(sub: execnet.Gateway) -> None:
    channel = sub.remote_exec("import os; channel.send('before'); os._exit(7)")
    assert channel.receive() == "before"
    with pytest.raises(execnet.GatewayGone, match="exit status 7"):
        channel.receive(timeout=60)


def test_the_death_of_a_proxy_ends_what_goes_through_it(proxy: execnet.Gateway, sub: execnet.Gateway) -> None:
    channel = sub.remote_exec("channel.receive()")
    with pidfd(sub._rinfo().pid):
        os.kill(proxy._rinfo().pid, signal.SIGKILL)
        with pytest.raises(execnet.GatewayGone, match=r"its proxy is gone: gateway proxy .*killed by SIGKILL"):
            channel.receive(timeout=60)
        assert ends_gone([sub._rinfo().pid])


def test_exit_of_the_proxy_ends_what_goes_through_it(proxy: execnet.Gateway, sub: execnet.Gateway) -> None:
    busy = sub.remote_exec(DEAF_FOR_EVER)
    with pidfd(busy.receive()) as end:
        proxy.exit()
        sub.join(timeout=60)
        assert ends_gone([sub._rinfo().pid])
        assert has_ended(end)


@pytest.mark.usefixtures("proxy")
def test_terminate_kills_the_deaf_at_the_deadline(sub: execnet.Gateway, group: execnet.Group) -> None:
    with pidfd(sub.remote_exec(DEAF_FOR_EVER).receive()) as end:
        with Stopwatch() as watch:
            group.terminate(timeout=1.0)
        assert watch.seconds < 2.5 + watch.late
        assert eventually(lambda: has_ended(end))
    assert len(group) == 0


def test_terminate_gets_by_a_proxy_that_is_stopped(
    proxy: execnet.Gateway, sub: execnet.Gateway, group: execnet.Group
) -> None:
    with pidfd(sub.remote_exec(DEAF_FOR_EVER).receive()) as end:
        stop(proxy._rinfo().pid)
        with Stopwatch() as watch:
            group.terminate(timeout=0.5)
        assert watch.seconds < 2.5 + watch.late
        assert select.select([end], [], [], 60)[0]  # is waited for by nobody, but killed


@pytest.mark.parametrize("stopped", [0, 1, 3])
def test_terminate_of_a_chain_takes_no_longer_the_longer_it_is(stopped: int, group: execnet.Group) -> None:
    pids = [group.makegateway("popen//id=link0")._rinfo().pid]
    for number in range(1, 5):
        pids.append(group.makegateway(f"popen//via=link{number - 1}//id=link{number}")._rinfo().pid)
    stop(pids[stopped])
    with Stopwatch() as watch:
        group.terminate(timeout=0.5)
    assert watch.seconds < 2.5 + watch.late
    assert ends_gone(pids)


def test_what_is_idle_is_terminated_at_once_and_orderly(group: execnet.Group, tmp_path: Path) -> None:
    for spec in ("popen//id=a", "popen//via=a//id=b", "popen//via=b//id=c"):
        gateway = group.makegateway(spec)
        # Each leaves a note when it ends normally. The notes show the order.
        gateway.remote_exec(
            "import atexit, os\n"
            f"atexit.register(lambda: os.write(os.open({str(tmp_path / 'notes')!r},"
            f" os.O_CREAT | os.O_APPEND | os.O_WRONLY), {gateway.id!r}.encode()))"
        ).waitclose()
    with Stopwatch() as watch:
        group.terminate(timeout=10)
    assert watch.seconds < 3 + watch.late
    assert (tmp_path / "notes").read_text() == "cba"


@pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="sanitizers keep what was freed")
def test_a_slow_reader_costs_the_proxy_no_memory(proxy: execnet.Gateway, sub: execnet.Gateway) -> None:
    channel = sub.remote_exec("for item in channel: channel.send(item)")
    channel.send(b"x" * MIB)
    channel.receive()
    before = peak_memory(proxy._rinfo().pid)
    stop(sub._rinfo().pid)
    try:
        sender = threading.Thread(target=lambda: [channel.send(b"x" * MIB) for _ in range(64)], daemon=True)
        sender.start()
        sender.join(0.5)
        assert sender.is_alive(), "what nobody reads was taken by somebody"
    finally:
        os.kill(sub._rinfo().pid, signal.SIGCONT)
    assert sum(len(channel.receive(timeout=30)) for _ in range(64)) == 64 * MIB
    sender.join()
    assert peak_memory(proxy._rinfo().pid) - before < 16 * MIB


def test_a_native_proxy_relays_while_its_interpreter_is_held(group: execnet.Group) -> None:
    proxy = group.makegateway("popen//id=proxy")
    echo = group.makegateway("popen//via=proxy").remote_exec(ECHO)
    holder = proxy.remote_exec(HOLD_THE_GIL)
    assert holder.receive() == "holding"
    for number in range(100):
        echo.send(number)
        assert echo.receive(timeout=60) == number
    # New gateways can be started meanwhile.
    assert group.makegateway("popen//via=proxy").remote_exec("channel.send(1)").receive(timeout=60) == 1
    os.kill(proxy._rinfo().pid, signal.SIGUSR1)


@pytest.mark.usefixtures("sshd")
def test_a_proxy_over_ssh_and_ssh_from_a_proxy(group: execnet.Group, sshd: PrivateSshd) -> None:
    del sshd
    group.makegateway("ssh=localhost//id=far")
    far = group.makegateway("popen//via=far")
    assert starter_of(far._rinfo().pid) == group["far"]._rinfo().pid
    group.makegateway("popen//id=near")
    there = group.makegateway("ssh=localhost//via=near")
    assert there.remoteaddress == "localhost"
    assert there.remote_exec("channel.send(41 + 1)").receive() == 42
    with pytest.raises(execnet.HostNotFound, match=r"nopython|no python"):
        group.makegateway("ssh=nopython//via=near")
    group.terminate(timeout=5)


def test_a_coordinator_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import execnet, time\n"
        "group = execnet.Group(['popen//id=a', 'popen//via=a//id=b', 'popen//via=b'])\n"
        "print(*(gateway._rinfo().pid for gateway in group), flush=True)\n"
        "time.sleep(1000)\n"
    )

    coordinator = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert coordinator.stdout is not None
    pids = [int(word) for word in coordinator.stdout.readline().split()]
    coordinator.kill()
    coordinator.wait()
    coordinator.stdout.close()
    assert len(pids) == 3
    assert ends_gone(pids)
