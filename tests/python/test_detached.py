"""`detached=keep`: what a worker's code starts in a session of its own lives on; the worker and the rest never do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import execnet
from belongings import ends_gone
from kinds import KINDS, OVER_SSH, with_key
from sshd import PrivateSshd

pytestmark = pytest.mark.timeout(300)

# The pids of a daemon, of a child in a session of its own, and of what stays in the session: a child and an orphan.
STARTS = """
import os, subprocess, time

def orphan(detached):
    read, write = os.pipe()
    if os.fork() == 0:
        if detached:
            os.setsid()
        if os.fork():
            os._exit(0)
        os.write(write, b"%d" % os.getpid())
        os.closerange(0, 256)
        time.sleep(1000)
    os.wait()
    return int(os.read(read, 20))

null = open(os.devnull, "r+")
def start(**kwargs):
    return subprocess.Popen(["sleep", "1000"], stdin=null, stdout=null, stderr=null, close_fds=True, **kwargs).pid

channel.send([orphan(True), start(preexec_fn=os.setsid), orphan(False), start(), os.getpid()])
"""
BUSY = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
channel.send(1)
while True:
    time.sleep(1000)
"""


@contextlib.contextmanager
def killed_afterwards(pids: list[int]) -> Iterator[None]:
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert ends_gone(pids)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def check(gateway: execnet.Gateway, end: str, group: execnet.Group) -> None:
    channel = gateway.remote_exec(STARTS)
    pids = channel.receive(timeout=60)
    channel.waitclose(timeout=60)  # the main thread is free again
    detached, attached = pids[:2], pids[2:]
    with killed_afterwards(detached):
        if end == "it crashes":
            with pytest.raises(EOFError):
                gateway.remote_exec("import os; os._exit(7)").receive(timeout=60)
        elif end == "it is killed":
            assert gateway.remote_exec(BUSY).receive(timeout=60) == 1
        group.terminate(timeout=1.0 if end == "it is killed" else 20.0)
        assert ends_gone(attached), "what stays in the session is left"
        assert [runs(pid) for pid in detached] == [True, True]


ENDS = ["it is told to end", "it crashes", "it is killed"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_detached_outlives_the_worker(group: execnet.Group, kind: str, end: str) -> None:
    for spec in with_key(KINDS[kind], "detached=keep"):
        group.makegateway(spec)
    check(group[-1], end, group)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", OVER_SSH)
def test_what_is_detached_outlives_the_worker_over_ssh(
    sshd: PrivateSshd, group: execnet.Group, kind: str, end: str
) -> None:
    del sshd
    for spec in with_key(OVER_SSH[kind], "detached=keep"):
        group.makegateway(spec)
    check(group[-1], end, group)


# Its session is that of a process in another namespace: it has no number there, and getsid() says 0.
UNNUMBERED_SESSION = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
IN_A_NAMESPACE = """
import os, sys, execnet, test_detached
assert os.getsid(0) == 0
group = execnet.Group(sys.argv[2:])
test_detached.check(group[-1], sys.argv[1], group)
"""


@pytest.mark.skipif(
    subprocess.run([*UNNUMBERED_SESSION, "true"], capture_output=True, check=False).returncode != 0,
    reason="this user may make no namespaces",
)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", ["native", "pure", "forked", "forked-pure", "forked-via-native", "forked-via-pure"])
def test_what_is_detached_outlives_the_worker_where_its_session_has_no_number(kind: str, end: str) -> None:
    argv = [*UNNUMBERED_SESSION, sys.executable, "-c", IN_A_NAMESPACE, end, *with_key(KINDS[kind], "detached=keep")]
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    subprocess.run(argv, env={**os.environ, "PYTHONPATH": path}, check=True, timeout=200)


PROGRAM = """
import json, sys, execnet
group = execnet.Group(sys.argv[2:])
print(json.dumps(group[-1].remote_exec(sys.argv[1]).receive(timeout=60)), flush=True)
sys.stdin.read()
"""


def check_killed_program(specs: list[str]) -> None:
    argv = [sys.executable, "-c", PROGRAM, STARTS, *specs]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids = json.loads(process.stdout.readline())
        process.kill()
    with killed_afterwards(pids[:2]):
        assert ends_gone(pids[2:])
        assert [runs(pid) for pid in pids[:2]] == [True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_detached_outlives_a_program_that_is_killed(kind: str) -> None:
    check_killed_program(with_key(KINDS[kind], "detached=keep"))


@pytest.mark.parametrize("kind", OVER_SSH)
def test_what_is_detached_outlives_a_program_that_is_killed_over_ssh(sshd: PrivateSshd, kind: str) -> None:
    del sshd
    check_killed_program(with_key(OVER_SSH[kind], "detached=keep"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "via" in kind])
def test_behind_a_proxy_it_ends_with_a_proxy_that_does_not_keep_it(group: execnet.Group, kind: str) -> None:
    proxy, worker = KINDS[kind]
    group.makegateway(proxy)
    pids = group.makegateway(f"{worker}//detached=keep").remote_exec(STARTS).receive(timeout=60)
    with killed_afterwards(pids):
        group.terminate(timeout=20.0)
        assert ends_gone(pids)


@pytest.mark.parametrize("spec", ["popen//detached=yes", "popen//detached", "popen//detached=keep//isolate=pidns"])
def test_what_makes_no_sense_is_refused_before_anything_is_started(group: execnet.Group, spec: str) -> None:
    with pytest.raises(ValueError, match=r"detached=(keep|value)"):
        group.makegateway(spec)
    assert len(group) == 0
