"""Fork servers on other hosts, started by a proxy (`via=`) or by the carrier of `ssh=`."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import execnet
import interpreters
from belongings import ends_gone, eventually, has_ended, parent_of, pidfd
from captured import Captured
from preload import ELSEWHERE, HERE, Preload, ask, end_with_their_coordinator, fork_server_of
from sshd import PrivateSshd


def connections(sshd: PrivateSshd) -> int:
    return sshd.log.count("Accepted publickey")


def test_members_of_one_host_share_a_connection_that_is_no_member(sshd: PrivateSshd, group: execnet.Group) -> None:
    before = connections(sshd)
    specs = ["ssh=localhost//preload=json", "ssh=localhost//preload=json//id=named", "ssh=localhost//preload=random"]
    group = execnet.Group(specs)
    try:
        assert [gateway.id for gateway in group] == ["gw0", "named", "gw1"]
        assert {repr(gateway).partition(" ")[0] for gateway in group} == {"<SshGateway"}
        assert {gateway.remoteaddress for gateway in group} == {"localhost"}
        parents = [fork_server_of(gateway) for gateway in group]
        assert parents[0] == parents[1] != parents[2]
        assert eventually(lambda: connections(sshd) == before + 1)
        group.makegateway("ssh=localhost//preload//chdir=other//env:A=1")
        assert ask(group["gw2"], "(os.path.basename(os.getcwd()), os.environ['A'])") == ("other", "1")
        assert eventually(lambda: connections(sshd) == before + 1)
        group.makegateway(f"ssh=localhost//preload//python={shlex.quote(sys.executable)}")
        assert eventually(lambda: connections(sshd) == before + 2)
    finally:
        before_end = time.monotonic()
        group.terminate(timeout=100)
        assert time.monotonic() - before_end < 50
    assert ends_gone(sshd.session_pids())


def test_python_over_ssh_is_an_expression_of_the_shell(sshd: PrivateSshd, group: execnet.Group) -> None:
    (sshd.home / "the python").symlink_to(sys.executable)
    gateway = group.makegateway("ssh=localhost//preload//python=~/'the python' -X execnet=$HOME")
    assert ask(gateway, "sys._xoptions") == {"execnet": str(sshd.home)}
    (sshd.home / "the python").unlink()


@pytest.mark.parametrize("name", [name for name in interpreters.NAMES if name != "python2.7"])
def test_any_python_3_can_be_the_proxy(group: execnet.Group, name: str) -> None:
    path = interpreters.find(name)
    if path is None:
        pytest.skip(f"{name}: not found")
    group.makegateway(f"popen//id=proxy//python={shlex.quote(path)}")
    gateways = [group.makegateway("popen//via=proxy//preload=json") for _ in range(2)]
    assert len({fork_server_of(gateway) for gateway in gateways}) == 1
    with pytest.raises(execnet.GatewayGone, match="exit status 3"):
        gateways[0].remote_exec("import os; os._exit(3)").receive(timeout=20)


def test_environment_and_directory_are_what_the_specification_says(far: Preload, tmp_path: Path) -> None:
    plain = far.gateway("json")
    other = far.gateway("json", f"//env:MORE=a b//chdir={tmp_path}/new")
    assert ask(other, "(os.environ['MORE'], os.getcwd())") == ("a b", f"{tmp_path}/new")
    assert ask(plain, "'MORE' in os.environ") is False
    assert fork_server_of(plain) != fork_server_of(other)
    assert fork_server_of(plain) == fork_server_of(far.gateway("json", f"//chdir={tmp_path}/new"))


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_workers_write_to_stderr_is_passed_on(
    kind: str, sshd: PrivateSshd, group: execnet.Group, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = Preload(group, tmp_path, kind).gateway("json")  # now, when capfd has taken the coordinator's stderr
    gateway.remote_exec("import os; os.write(2, b'to stderr\\n')").waitclose(timeout=20)
    captured = Captured(capfd)
    assert captured.shows(lambda all: "to stderr" in all.err), vars(captured)


def test_many_at_once_go_through_one_proxy(far: Preload) -> None:
    extra = ["popen//id=proxy"] if "via" in far.spec else []
    group = execnet.Group([*extra, *[f"{far.spec}//preload=json"] * 30])
    try:
        parents = group.remote_exec("import os; channel.send(os.getppid())").receive_each()
        assert len(set(parents[len(extra) :])) == 1
        far.group.terminate(timeout=5)
    finally:
        group.terminate(timeout=5)


@pytest.mark.parametrize("kind", ["proxy", "ssh", "interpreter"])
def test_python_2_says_that_it_is_of_no_use(kind: str, sshd: PrivateSshd, group: execnet.Group) -> None:
    python = interpreters.find("python2.7")
    if python is None:
        pytest.skip("python2.7: not found")
    spec = f"ssh=localhost//python={python}"
    if kind != "ssh":
        group.makegateway("ssh=localhost//id=proxy" + (f"//python={python}" if kind == "proxy" else ""))
        spec = "popen//via=proxy" + ("" if kind == "proxy" else f"//python={python}")
    with pytest.raises(execnet.HostNotFound, match=r"preload needs Python 3, and this is Python 2\.7"):
        group.makegateway(f"{spec}//preload")


@pytest.mark.parametrize("host", ["nopython", "refused"])
def test_a_host_that_cannot_be_used_is_named(host: str, sshd: PrivateSshd, group: execnet.Group) -> None:
    says = "no python3 or python on this host" if host == "nopython" else "Permission denied"
    with pytest.raises(execnet.HostNotFound, match=rf"ssh={host}//preload(.|\n)*{says}"):
        group.makegateway(f"ssh={host}//preload")
    assert len(group) == 0


def test_an_interpreter_that_is_not_there_is_named(far: Preload) -> None:
    with pytest.raises(execnet.HostNotFound, match=r"/no/such/python"):
        far.gateway("json", "//python=/no/such/python")


def test_an_interpreter_in_another_pid_namespace_is_refused_far_away_too(far: Preload) -> None:
    python = f"unshare --user --map-root-user --pid --fork {sys.executable}"
    if "via" not in far.spec or subprocess.run([*shlex.split(python), "-c", ""], check=False).returncode != 0:
        pytest.skip("no new namespaces here, or the interpreter is the connection's")
    with pytest.raises(execnet.HostNotFound, match="another PID namespace"):
        far.gateway("json", f"//python={python}")


def test_an_import_that_never_ends_far_away_can_be_interrupted(far: Preload, tmp_path: Path) -> None:
    far.module("slow", f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(1000)")
    keep = far.gateway("json")
    main = threading.get_ident()

    def slow() -> int:
        return int((tmp_path / "pid").read_text())

    def interrupt() -> None:
        assert eventually(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()), 20)
        signal.pthread_kill(main, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        far.gateway("slow")
    interrupter.join()
    assert ends_gone([slow()])
    assert ask(keep, "1") == 1


def proxy_of(gateway: execnet.Gateway, group: execnet.Group) -> int:
    """The worker process that has started the fork server."""
    return group["proxy"]._rinfo().pid if "proxy" in group else parent_of(fork_server_of(gateway))


def test_when_the_proxy_is_killed_so_is_all_that_it_has_started(far: Preload) -> None:
    gateways = [far.gateway("json") for _ in range(2)]
    pids = [gateway._rinfo().pid for gateway in gateways]
    channels = [gateway.remote_exec("channel.receive()") for gateway in gateways]
    server, proxy = fork_server_of(gateways[0]), proxy_of(gateways[0], far.group)
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(pidfd(pid)) for pid in (*pids, server)]
        os.kill(proxy, signal.SIGKILL)
        for channel in channels:
            with pytest.raises(execnet.GatewayGone, match="its proxy is gone"):
                channel.receive(timeout=20)
        assert eventually(lambda: all(has_ended(end) for end in ends))


def test_a_connection_that_has_broken_is_replaced(sshd: PrivateSshd, group: execnet.Group) -> None:
    first = group.makegateway("ssh=localhost//preload=json")
    os.kill(proxy_of(first, group), signal.SIGKILL)
    with pytest.raises(execnet.GatewayGone, match="its proxy is gone: gateway gw0-carrier"):
        first.remote_exec("").waitclose(timeout=20)
    assert ask(group.makegateway("ssh=localhost//preload=json"), "1") == 1


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_nothing_is_left_anywhere_when_the_coordinator_is_killed(kind: str, sshd: PrivateSshd) -> None:
    specs = ["ssh=localhost//preload=json" if kind == "ssh" else "popen//via=proxy//preload=json"] * 2
    if kind != "ssh":
        specs.insert(0, f"{HERE[kind.removeprefix('via ')]}//id=proxy")
    assert end_with_their_coordinator(specs, signal.SIGKILL)
