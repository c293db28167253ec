"""Signals that the program ignores: its workers ignore those that a child of `subprocess` would."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

import execnet
from kinds import KINDS
from sshd import PrivateSshd

# glibc has two signals for itself, which are left as they are.
IGNORED = """
with open("/proc/self/status") as status:
    mask, = [int(line.split()[1], 16) for line in status if line.startswith("SigIgn")]
mask &= ~(0b11 << 31)
"""

# Says what a child ignores, what the worker does, and how it ends.
PROGRAM = (
    """
import json, os, signal, subprocess, sys
names = ["SIGUSR1", "SIGTERM", "SIGCHLD", "SIGPIPE", "SIGXFSZ", "SIGHUP", "SIGINT", "SIGALRM", "SIGTSTP", "SIGRTMAX"]
for name in names:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
signal.signal(signal.SIGUSR2, lambda *_: None)
import execnet
"""
    + f"code = {IGNORED!r}\n"
    + """
child = subprocess.Popen([sys.executable, "-c", code + "print(mask)"], stdout=subprocess.PIPE)
child = int(child.communicate()[0])
group = execnet.Group(sys.argv[1:])
gateway = group[-1]
worker = gateway.remote_exec(code + "channel.send(mask)").receive(timeout=60)
# Its own children are seen to end, whatever it inherits.
assert gateway.remote_exec(code + "import subprocess; channel.send(subprocess.call(['true']))").receive(timeout=60) == 0
for number in (signal.SIGTERM, signal.SIGUSR1):
    os.kill(gateway._rinfo().pid, number)
assert gateway.remote_exec("channel.send(1)").receive(timeout=60) == 1
group.terminate(timeout=20)
print(json.dumps([child, worker]))
"""
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_ignores_what_a_child_of_subprocess_ignores(kind: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, *KINDS[kind]],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=240,
    ).stdout
    child, worker = json.loads(said)
    assert (kind, bin(worker)) == (kind, bin(child))


WITHOUT_CHILDREN = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
import execnet
group = execnet.Group(sys.argv[1:])
channel = group[-1].remote_exec("import os; os._exit(7)")
try:
    channel.receive(timeout=60)
except execnet.GatewayGone as error:
    print(str(error).splitlines()[0].rpartition(" is gone: ")[2])
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_how_a_worker_has_ended_is_known_or_said_to_be_unknown_where_children_are_ignored(kind: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_CHILDREN, *KINDS[kind]],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=240,
        text=True,
    ).stdout.strip()
    # A fork server collects its workers, whatever was inherited. Nobody can collect others.
    assert said == ("exit status 7" if "forked" in kind else "exit status unknown"), kind


# Python starts another one, for no shell leaves SIGCHLD ignored.
DEAF = (
    "import os,signal,sys;[signal.signal(n,signal.SIG_IGN)for n in(10,17)];"
    "os.execv(sys.executable,[sys.executable,*sys.argv[1:]])"
)


def test_a_worker_over_ssh_ignores_what_its_host_has_it_ignore(sshd: PrivateSshd, group: execnet.Group) -> None:
    del sshd
    gateway = group.makegateway(f'ssh=localhost//python=python3 -c "{DEAF}"')
    mask = gateway.remote_exec(IGNORED + "channel.send(mask)").receive(timeout=60)
    for number in (signal.SIGUSR1, signal.SIGCHLD):
        assert mask >> (number - 1) & 1


def test_a_fork_server_is_not_shared_by_gateways_that_inherit_different_signals(group: execnet.Group) -> None:
    code = IGNORED + "channel.send(mask)"
    before = group.makegateway("popen//preload=json").remote_exec(code).receive(timeout=60)
    handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        after = group.makegateway("popen//preload=json").remote_exec(code).receive(timeout=60)
    finally:
        signal.signal(signal.SIGUSR1, handler)
    assert after == before | 1 << (signal.SIGUSR1 - 1)
