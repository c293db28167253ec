"""Gateways over sockets: a socketserver.py, of the released execnet and ours, and servers that a gateway installs."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import execnet
import interpreters
from belongings import ends_gone, pidfd, starter_of
from environments import clean_environ, environment
from execnet.script import socketserver
from execnet.script.quitserver import quit_server

ECHO = "for item in channel: channel.send(item)"
DEAF_FOR_EVER = """
import os, signal
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
channel.send(os.getpid())
while True:
    pass
"""


@dataclass(frozen=True)
class Server:
    port: int
    process: subprocess.Popen[str]

    @property
    def spec(self) -> str:
        return f"socket=127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def released_python() -> str:
    """An interpreter with the released execnet from the package index, and nothing else."""
    return environment("released-execnet-{}.{}".format(*sys.version_info), ["execnet"])


@pytest.fixture(params=["released", "ours"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """The script as it was released, and that of this package. They print where they listen."""
    environ = dict(os.environ)
    command = [sys.executable, "-m", "execnet.script.socketserver"]
    if request.param == "released":
        environ = clean_environ()
        python = request.getfixturevalue("released_python")
        where = "import execnet.script.socketserver as s; print(s.__file__)"
        script = subprocess.check_output([python, "-c", where], env=environ, text=True, timeout=120).strip()
        command = [python, "-u", script]
    with subprocess.Popen(
        [*command, "127.0.0.1:0"],
        env=environ,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        try:
            yield Server(int(said.rpartition(",")[2].strip(" )\n")), process)
        finally:
            process.kill()


@pytest.fixture
def host(group: execnet.Group) -> execnet.Gateway:
    return group.makegateway("popen//id=host")


def test_a_server_serves_a_gateway(server: Server, group: execnet.Group, tmp_path: Path) -> None:
    gateway = group.makegateway(f"{server.spec}//id=there//env:COLOUR=red//chdir={tmp_path / 'new'}")
    assert repr(gateway) == "<SocketGateway id='there' receive-live, 0 active channels>"
    assert gateway.remoteaddress == f"127.0.0.1:{server.port}"
    assert gateway._rinfo().implementation == "pure"
    code = "import os, sys; channel.send((os.environ['COLOUR'], os.getcwd(), sys.argv, sys.path[0]))"
    there = gateway.remote_exec(code).receive()
    assert there == ("red", str(tmp_path / "new"), ["-c"], "")
    assert starter_of(gateway._rinfo().pid) == server.process.pid
    echo = gateway.remote_exec(ECHO)
    for item in (1, "two", b"x" * (8 << 20)):
        echo.send(item)
        assert echo.receive() == item


def test_what_the_code_does_to_its_stdio_does_not_hurt(server: Server, group: execnet.Group) -> None:
    gateway = group.makegateway(server.spec)
    code = "import os, sys; print('to stdout'); sys.stdin.read(); os.closerange(0, 3); channel.send(1)"
    assert gateway.remote_exec(code).receive() == 1
    assert gateway.remote_exec("channel.send(2)").receive() == 2


def test_a_server_serves_one_after_the_other(server: Server, group: execnet.Group) -> None:
    for _ in range(3):
        gateway = group.makegateway(server.spec)
        pid = gateway._rinfo().pid
        group.terminate(timeout=5)
        assert ends_gone([pid])
    assert server.process.poll() is None


def test_terminate_ends_the_deaf_at_a_server(server: Server, group: execnet.Group) -> None:
    with pidfd(group.makegateway(server.spec).remote_exec(DEAF_FOR_EVER).receive()) as end:
        group.terminate(timeout=0.5)
        assert select.select([end], [], [], 60)[0]
    group.makegateway(server.spec).remote_exec("channel.send(1)").receive()


def test_a_worker_that_dies_is_a_closed_connection(server: Server, group: execnet.Group) -> None:
    gateway = group.makegateway(f"{server.spec}//id=there")
    channel = gateway.remote_exec("channel.receive()")
    os.kill(gateway._rinfo().pid, signal.SIGKILL)
    with pytest.raises(execnet.GatewayGone, match=r"gateway there .*is gone: it closed the connection"):
        channel.receive(timeout=60)


def test_a_refused_setting_is_told(server: Server, group: execnet.Group) -> None:
    with pytest.raises(execnet.HostNotFound, match="chdir=/proc/none"):
        group.makegateway(f"{server.spec}//chdir=/proc/none/there")


def test_a_server_goes_on_after_rubbish_and_ends_when_told(server: Server, group: execnet.Group) -> None:
    for said in (b"", b"\n", b"no python\n", b"'1 / 0'\n", b"'" + b"x" * 200_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stranger:
            stranger.sendall(said)
    assert group.makegateway(server.spec).remote_exec("channel.send(1)").receive(timeout=60) == 1
    group.terminate(timeout=5)
    quit_server(f"127.0.0.1:{server.port}")
    server.process.wait(timeout=60)


def test_a_server_listens_on_the_loopback_device_unless_told_otherwise() -> None:
    assert socketserver._split(socketserver.DEFAULT) == ("127.0.0.1", 8888)
    assert socketserver._split(":8888") == ("", 8888)
    assert socketserver._split("[::1]:1") == ("::1", 1)
    for wrong in ("8888", "host", "host:", "host:port"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            socketserver._split(wrong)


@pytest.mark.parametrize("spec", ["popen", f"popen//python={sys.executable}", "popen//execmodel=gevent"])
def test_the_module_of_the_server_can_be_sent_to_a_gateway(group: execnet.Group, spec: str) -> None:
    channel = group.makegateway(spec).remote_exec(socketserver)
    channel.send(("127.0.0.1", 0))
    host, port = channel.receive(timeout=60)
    gateway = group.makegateway(f"socket={host}:{port}")
    assert gateway.remote_exec("channel.send(1)").receive(timeout=60) == 1
    gateway.exit()
    channel.waitclose(60)


@pytest.mark.parametrize("as_file", [False, True])
def test_the_server_says_what_is_wrong_with_its_arguments(as_file: bool) -> None:
    command = [socketserver.__file__] if as_file else ["-m", "execnet.script.socketserver"]
    for arguments, says in ((["nowhere"], "HOST:PORT"), (["a", "b"], "execnet.script.socketserver")):
        done = subprocess.run([sys.executable, *command, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_nobody_there_is_hostnotfound_with_what_to_do(group: execnet.Group, host: str) -> None:
    with pytest.raises(execnet.HostNotFound) as caught:
        group.makegateway(f"socket={host}:1")
    assert f"cannot connect to {host}:1: " in str(caught.value)
    assert "socketserver.py" in str(caught.value)


def test_a_stranger_who_hangs_up_is_hostnotfound(group: execnet.Group) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        program = (
            "import socket, sys\n"
            f"listener = socket.socket(fileno={listener.fileno()})\n"
            "connection = listener.accept()[0]\n"
            "connection.recv(10)\n"
            "connection.sendall(b'220 mail.example.com ESMTP')\n"
        )
        with (
            subprocess.Popen([sys.executable, "-c", program], pass_fds=[listener.fileno()]),
            pytest.raises(execnet.HostNotFound, match=r"no worker, but this on its stdout: 220 mail|closed"),
        ):
            group.makegateway(f"socket=127.0.0.1:{port}")


# --- installvia ---


def test_a_gateway_installs_a_server(host: execnet.Gateway, group: execnet.Group) -> None:
    gateway = group.makegateway("socket//installvia=host//id=there//env:COLOUR=red")
    assert repr(gateway) == "<SocketGateway id='there' receive-live, 0 active channels>"
    address, _, port = gateway.remoteaddress.rpartition(":")
    assert address == "127.0.0.1"
    assert gateway._rinfo().executable == host._rinfo().executable
    assert gateway.remote_exec("import os; channel.send(os.environ['COLOUR'])").receive() == "red"
    assert starter_of(gateway._rinfo().pid) == host._rinfo().pid
    echo = gateway.remote_exec(ECHO)
    echo.send(b"x" * (8 << 20))
    assert len(echo.receive()) == 8 << 20
    with pytest.raises(ConnectionRefusedError):  # It was for one connection.
        socket.create_connection(("127.0.0.1", int(port)))
    assert host.remote_status().numexecuting == 0


def test_a_python2_gateway_installs_a_server(group: execnet.Group) -> None:
    path = interpreters.find("python2.7")
    if path is None:
        pytest.skip("no python2.7")
    group.makegateway(f"popen//python={path}//id=old")
    gateway = group.makegateway("socket//installvia=old//env:COLOUR=red")
    assert gateway._rinfo().version_info[:2] == (2, 7)
    assert gateway.remote_exec("import os; channel.send(os.environ['COLOUR'] == 'red')").receive() is True


def test_servers_and_their_hosts_may_be_made_together() -> None:
    with execnet.Group(["popen//id=a", "socket//installvia=a", "popen//via=a//id=b", "socket//installvia=b"]) as group:
        assert group.remote_exec("channel.send(1)").receive_each() == [1, 1, 1, 1]


@pytest.mark.usefixtures("host")
def test_terminate_leaves_nothing_of_an_installed_server(group: execnet.Group) -> None:
    with pidfd(group.makegateway("socket//installvia=host").remote_exec(DEAF_FOR_EVER).receive()) as end:
        group.terminate(timeout=0.5)
        assert select.select([end], [], [], 60)[0]


@pytest.mark.usefixtures("host")
def test_a_missing_interpreter_is_told_by_the_host(group: execnet.Group) -> None:
    with pytest.raises(execnet.HostNotFound, match=r"gateway 'host' has not started it: .*nopython"):
        group.makegateway("socket//installvia=host//python=nopython")
