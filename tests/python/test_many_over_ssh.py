"""Many members on hosts that take only so many logins at a time, and those that ask for something."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import execnet
from belongings import eventually
from sshd import PrivateSshd

# What sshd has without settings: from ten logins under way on it refuses three of ten more, from a hundred on all.
STOCK = "10:30:100"


@pytest.fixture(scope="module")
def server(at_the_start: object) -> Iterator[PrivateSshd]:
    with PrivateSshd(startups=STOCK) as server:
        yield server


@pytest.fixture
def stock(server: PrivateSshd) -> Iterator[PrivateSshd]:
    with server.in_front():
        yield server


@pytest.mark.parametrize("target", ["localhost", "-J localhost localhost"], ids=["straight", "over a jump host"])
def test_many_members_on_a_stock_server_all_start(target: str, stock: PrivateSshd) -> None:
    many = execnet.Group([f"ssh={target}"] * 30)
    try:
        assert many.remote_exec("channel.send(6 * 7)").receive_each() == [42] * 30
    finally:
        many.terminate(timeout=5)


def test_whom_a_server_refuses_for_now_is_tried_again(group: execnet.Group) -> None:
    """Others take their share of the server's logins: here all of them, for a while."""
    with PrivateSshd(startups="1") as server, server.in_front():
        port = int(re.findall(r"Port (\d+)", (server.directory / "sshd_config").read_text())[0])
        with socket.create_connection(("127.0.0.1", port)) as other:
            assert other.recv(4) == b"SSH-"  # from now on it is under way

            def let_go() -> None:
                assert eventually(lambda: "drop connection" in server.log)
                other.close()

            helper = threading.Thread(target=let_go)
            helper.start()
            gateway = group.makegateway("ssh=localhost")
            helper.join()
            assert gateway.remote_exec("channel.send(1)").receive(timeout=60) == 1
            group.terminate(timeout=5)


def test_a_program_that_is_refused_for_good_is_told_so(group: execnet.Group) -> None:
    with PrivateSshd(startups="1") as server, server.in_front():
        port = int(re.findall(r"Port (\d+)", (server.directory / "sshd_config").read_text())[0])
        with socket.create_connection(("127.0.0.1", port)) as other:
            assert other.recv(4) == b"SSH-"
            with pytest.raises(execnet.HostNotFound, match=r"Connection (closed|reset) by"):
                group.makegateway("ssh=localhost//connect_timeout=1")


@pytest.mark.parametrize(
    "words",
    [
        "kex_exchange_identification: Connection closed by remote host",  # OpenSSH 9
        "Connection closed by 127.0.0.1 port 22",  # OpenSSH 10
        "Connection reset by 127.0.0.1 port 22",
        "Connection closed by UNKNOWN port 65535",  # through a jump host
    ],
)
def test_a_refusal_is_known_by_the_words_of_each_version(
    words: str, sshd: PrivateSshd, group: execnet.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time the client fails with these words, then it is the real one."""
    real = shutil.which("ssh")
    once = tmp_path / "ssh"
    once.write_text(
        f"#!/bin/sh\nmkdir {tmp_path}/refused 2>/dev/null && {{ echo '{words}' >&2; exit 255; }}\nexec {real} \"$@\"\n"
    )
    once.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    gateway = group.makegateway("ssh=localhost")
    assert (tmp_path / "refused").exists()
    assert gateway.remote_exec("channel.send(1)").receive(timeout=60) == 1


def ssh_clients(config: Path) -> list[list[str]]:
    """The command lines of the clients with that configuration."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if words[0].rpartition("/")[2] == "ssh" and str(config) in words:
                found.append(words)
    return found


def test_prompts_of_several_members_do_not_overlap(sshd: PrivateSshd, tmp_path: Path) -> None:
    config = tmp_path / "asks"
    text = (sshd.directory / "ssh_config").read_text()
    text = re.sub("BatchMode yes|StrictHostKeyChecking yes", "", text)
    config.write_text(re.sub("UserKnownHostsFile .*", "UserKnownHostsFile /dev/null", text))
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import execnet
group = execnet.Group(["ssh=localhost//ssh_config={config}"] * 3)
print("sum", sum(group.remote_exec("channel.send(1)").receive_each()))
group.terminate(5)
"""
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, str(program)])
    transcript, answered = "", 0
    deadline = time.monotonic() + 120
    try:
        while "sum 3" not in transcript and select.select([terminal], [], [], deadline - time.monotonic())[0]:
            try:
                transcript += os.read(terminal, 4096).decode()
            except OSError:
                break
            if transcript.count("(yes/no") > answered:
                asking = [words for words in ssh_clients(config) if "BatchMode=yes" not in words]
                answered += 1
                assert len(asking) == answered, transcript  # those that are answered run on
                os.write(terminal, b"yes\n")
        assert "sum 3" in transcript
        assert answered == 3
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def test_without_a_terminal_nobody_is_told_not_to_ask(sshd: PrivateSshd, tmp_path: Path) -> None:
    """A program that asks in a window, say."""
    program = tmp_path / "program.py"
    program.write_text(
        """
import execnet, pathlib
group = execnet.Group(["ssh=localhost"] * 2)
lines = [path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != "self"]
print(sum(b"BatchMode=yes" in line and b"execnet" in line for line in lines))
group.terminate(5)
"""
    )
    done = subprocess.run(
        [sys.executable, program], start_new_session=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "0\n", done.stderr


# --- Time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("via", ["", "//via=proxy"])
def test_a_start_may_take_as_long_as_connect_timeout_says(via: str, group: execnet.Group) -> None:
    group.makegateway("popen//id=proxy")
    started = time.monotonic()
    with pytest.raises(execnet.HostNotFound, match=r"did not answer within 0\.5 seconds; connect_timeout="):
        group.makegateway(f"popen//python=sh -c 'sleep 1000'//connect_timeout=0.5{via}")
    assert time.monotonic() - started < 30
    good = group.makegateway(f"popen//connect_timeout=60{via}")
    assert good.remote_exec("channel.send(1)").receive(timeout=60) == 1


def test_one_host_that_does_not_answer_does_not_hold_up_its_group_longer_than_that(group: execnet.Group) -> None:
    with pytest.raises(
        execnet.HostNotFound, match=r"'popen//python=sh -c 'sleep 1000'//connect_timeout=1//id=.*within 1 sec"
    ):
        execnet.Group(["popen"] * 3 + ["popen//python=sh -c 'sleep 1000'//connect_timeout=1//id=late"])


@pytest.mark.parametrize("wrong", ["connect_timeout", "connect_timeout=", "connect_timeout=soon", "connect_timeout=-1"])
def test_a_connect_timeout_that_is_none_is_refused_at_once(wrong: str, group: execnet.Group) -> None:
    with pytest.raises(ValueError, match="connect_timeout"):
        group.makegateway(f"popen//{wrong}")
