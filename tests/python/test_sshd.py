"""The private OpenSSH server that other tests use, with the real client."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from belongings import eventually
from sshd import PrivateSshd, SshdError


@pytest.fixture(scope="module")
def sshd() -> Iterator[PrivateSshd]:
    with PrivateSshd() as server:
        yield server


def ssh(sshd: PrivateSshd, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", *arguments], env=sshd.env(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )


def test_localhost_runs_a_command(sshd: PrivateSshd) -> None:
    done = ssh(sshd, "localhost", "echo hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")


def test_in_front_is_for_this_process_and_ends(sshd: PrivateSshd) -> None:
    before = os.environ["PATH"]
    with sshd.in_front():
        assert subprocess.check_output(["ssh", "localhost", "echo hi"], stdin=subprocess.DEVNULL) == b"hi\n"
    assert os.environ["PATH"] == before


def test_a_login_is_in_an_empty_home(sshd: PrivateSshd) -> None:
    done = ssh(sshd, "localhost", "pwd; echo ~; ls -A")
    assert done.stdout == f"{sshd.home}\n{sshd.home}\n"


def test_a_login_finds_the_given_python(sshd: PrivateSshd) -> None:
    done = ssh(sshd, "localhost", "python3 -c 'import sys; print(sys.executable)'")
    assert done.stdout == f"{sys.executable}\n"


def test_exit_status_and_quotes_arrive(sshd: PrivateSshd) -> None:
    done = ssh(sshd, "localhost", "exec sh -c 'echo \"a  b\" >&2; exit 3'")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "a  b\n")


def test_refused_key(sshd: PrivateSshd) -> None:
    done = ssh(sshd, "refused", "echo hi")
    assert (done.returncode, done.stdout) == (255, "")
    assert "Permission denied (publickey)" in done.stderr


def test_a_login_works_after_many_were_refused(sshd: PrivateSshd) -> None:
    for _ in range(5):
        assert "Permission denied (publickey)" in ssh(sshd, "refused", "true").stderr
    assert ssh(sshd, "localhost", "echo hi").stdout == "hi\n"


def test_unknown_host(sshd: PrivateSshd) -> None:
    done = ssh(sshd, "unknown.invalid", "echo hi")
    assert (done.returncode, done.stdout) == (255, "")
    assert "unknown.invalid" in done.stderr


def test_host_without_a_python(sshd: PrivateSshd) -> None:
    done = ssh(sshd, "nopython", "command -v python3 || command -v python || exec sh -c 'echo none'")
    assert done.stdout == "none\n"


def test_the_end_takes_sessions_along() -> None:
    with PrivateSshd() as server:
        directory = server.directory
        client = subprocess.Popen(
            # The second one is detached and ignores signals. Both hold the pipe of the wrapper's output.
            ["ssh", "localhost", "trap '' HUP TERM; setsid sleep 300 & echo $!; exec sleep 300"],
            env=server.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert client.stdout is not None
        detached = os.pidfd_open(int(client.stdout.readline()))
        assert eventually(lambda: len(server.session_pids()) >= 2)  # not seen while it becomes another program
        port = server._port
    assert client.wait(timeout=30) == 255
    client.stdout.close()
    assert select.select([detached], [], [], 0)[0], "a detached process survived"
    os.close(detached)
    assert not directory.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_without_sshd_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(SshdError, match="install openssh-server"):
        PrivateSshd().__enter__()


def test_from_a_shell() -> None:
    script = Path(__file__).parents[1] / "support" / "sshd.py"
    done = subprocess.run(
        [sys.executable, str(script), "ssh", "localhost", "echo hi"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
