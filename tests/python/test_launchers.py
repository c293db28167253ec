"""What may stand before an interpreter that `python=` names: programs that pass on all descriptors, the standard ones
only, or nothing but the bytes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import execnet
from belongings import ends_gone

# What comes on its standard input goes to that of the interpreter, and back: as `docker exec -i` has it.
RELAY = """
import os, subprocess, sys, threading

def copy(source, target):
    for piece in iter(lambda: os.read(source, 65536), b""):
        while piece:
            piece = piece[os.write(target, piece):]
    os.close(target)

child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
threading.Thread(target=copy, args=(0, child.stdin.fileno()), daemon=True).start()
copy(child.stdout.fileno(), 1)
os._exit(child.wait())
"""
CLOSING = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:], close_fds=True))"


def sudo_works() -> bool:
    return (
        shutil.which("sudo") is not None and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0
    )


PYTHON = shlex.quote(sys.executable)
BEFORE = {
    "nothing": "",
    "a program": "env",
    "a shell": 'bash -c \'python=$0; "$python" "$@"; exit $?\'',
    "closes 3": 'bash -c \'exec 3<&-; exec "$0" "$@"\'',
    "closes 4": 'bash -c \'exec 4<&-; exec "$0" "$@"\'',
    "uses 3": 'bash -c \'exec 3</dev/null; exec "$0" "$@"\'',
    "closes all": f"{PYTHON} -c '{CLOSING}'",
    "says something": 'bash -c \'echo Welcome, EXECNET; exec "$0" "$@"\'',
    "says something and closes 3": 'bash -c \'exec 3<&-; echo Welcome; exec "$0" "$@"\'',
    "relays": f"{PYTHON} -c {shlex.quote(RELAY)}",
    "sudo": "sudo -n",
}


@pytest.fixture(params=BEFORE)
def python(request: pytest.FixtureRequest) -> str:
    if request.param == "sudo" and not sudo_works():
        pytest.skip("sudo is not installed, or wants a password")
    return f"{BEFORE[request.param]} {PYTHON}".strip()


@pytest.fixture(params=["", "popen", f"popen//python={PYTHON}"], ids=["here", "via a native proxy", "via a pure proxy"])
def via(request: pytest.FixtureRequest, group: execnet.Group) -> str:
    """What a specification needs to be of a gateway there."""
    if not request.param:
        return ""
    group.makegateway(f"{request.param}//id=proxy")
    return "//via=proxy"


def test_whatever_stands_before_the_interpreter_its_worker_serves(python: str, via: str, group: execnet.Group) -> None:
    gateway = group.makegateway(f"popen//python={python}{via}")
    channel = gateway.remote_exec("for item in channel: channel.send(item)")
    for item in ("small", b"large" * 1_000_000):
        channel.send(item)
        assert channel.receive(timeout=60) == item
    # The code can neither read nor write the stream, and nor can what it starts.
    report = gateway.remote_exec(
        """
        import os, subprocess, sys
        print("not into the stream")
        sys.stdout.flush()
        channel.send(os.read(0, 1))
        subprocess.check_call("echo nor this; exec cat", shell=True)
        channel.send([os.readlink("/proc/self/fd/%d" % number) for number in range(3)])
        """
    )
    assert report.receive(timeout=60) == b""
    given = report.receive(timeout=60)
    assert given[0] == "/dev/null"
    report.waitclose(timeout=60)
    channel.close()
    assert gateway.remote_exec("channel.send(1)").receive(timeout=60) == 1


def test_its_output_goes_where_ours_does_if_no_more_than_bytes_are_relayed_to_stderr(
    tmp_path: Path, python: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import execnet
group = execnet.Group()
gateway = group.makegateway({("popen//python=" + python)!r})
gateway.remote_exec("import os; os.write(1, b'from the worker')").waitclose(60)
group.terminate(5)
"""
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("from the worker") == 1
    if python == PYTHON:
        assert done.stdout == "from the worker"


def test_nothing_is_left_of_it_when_the_coordinator_is_killed(tmp_path: Path, python: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import execnet, os, signal
gateway = execnet.makegateway({("popen//python=" + python)!r})
channel = gateway.remote_exec('''
import os, subprocess
child = subprocess.Popen(["sleep", "1000"])
channel.send((os.getpid(), child.pid))
import time
while True:
    time.sleep(1000)
''')
print(*channel.receive(60), flush=True)
signal.pause()
"""
    )
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as coordinator:
        assert coordinator.stdout is not None
        pids = [int(word) for word in coordinator.stdout.readline().split()]
        coordinator.kill()
    assert len(pids) == 2
    assert ends_gone(pids)


def test_a_worker_that_dies_behind_it_is_noticed_and_others_are_not_hurt(
    python: str, via: str, group: execnet.Group
) -> None:
    gateway = group.makegateway(f"popen//python={python}{via}")
    other = group.makegateway(f"popen//python={python}{via}")
    channel = gateway.remote_exec("import os, signal; channel.receive(); os.kill(os.getpid(), signal.SIGKILL)")
    channel.send(None)
    with pytest.raises(EOFError, match="is gone"):
        channel.receive(timeout=60)
    assert other.remote_exec("channel.send(1)").receive(timeout=60) == 1


@pytest.mark.parametrize("before", [name for name in BEFORE if name != "relays"])
def test_a_fork_server_needs_its_socket_and_no_more(before: str, via: str, group: execnet.Group) -> None:
    if before == "sudo" and not sudo_works():
        pytest.skip("sudo is not installed, or wants a password")
    gateways = [group.makegateway(f"popen//preload=json//python={BEFORE[before]} {PYTHON}{via}") for _ in range(2)]
    parents = {gateway.remote_exec("import os; channel.send(os.getppid())").receive(timeout=60) for gateway in gateways}
    assert len(parents) == 1


def test_a_fork_server_behind_a_relay_says_what_it_needs(via: str, group: execnet.Group) -> None:
    with pytest.raises(execnet.HostNotFound, match="preload needs the coordinator's socket as its standard input"):
        group.makegateway(f"popen//preload=json//python={BEFORE['relays']} {PYTHON}{via}")


def test_who_stands_before_it_gets_the_signals_of_a_terminate(group: execnet.Group) -> None:
    """It is ended with its worker, also if it does not want to end."""
    stubborn = "import signal, subprocess, sys; signal.signal(15, signal.SIG_IGN); subprocess.call(sys.argv[1:])"
    gateway = group.makegateway(f"popen//python={PYTHON} -c '{stubborn}; signal.pause()' {PYTHON}")
    pid = gateway.remote_exec("import os; channel.send(os.getppid())").receive(timeout=60)
    os.kill(pid, signal.SIGTERM)
    group.terminate(timeout=0.5)
    assert ends_gone([pid])
