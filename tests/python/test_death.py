"""Everybody who waits for a gateway that is gone learns why, after the items that had arrived before."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import execnet
from belongings import eventually
from captured import Captured
from sshd import PrivateSshd

PURE = f"popen//python={shlex.quote(sys.executable)}"
# name -> specifications, of which the last is the gateway
KINDS = {
    "popen": ["popen"],
    "pure": [PURE],
    "ssh": ["ssh=localhost"],
    "via-native": ["popen//id=proxy", "popen//via=proxy"],
    "via-pure": [PURE + "//id=proxy", "popen//via=proxy"],
    "socket": ["popen//id=proxy", "socket//installvia=proxy"],
}
# Where the kernel or a proxy tells us how the process has ended, and where its stderr can be read.
TOLD = ["popen", "pure", "via-native", "via-pure"]
HEARD = [*TOLD, "ssh"]


@pytest.fixture
def doomed(request: pytest.FixtureRequest, sshd: PrivateSshd, group: execnet.Group) -> execnet.Gateway:
    """A gateway of the requested kind. Its end leaves no core file."""
    del sshd
    for spec in KINDS[request.param]:
        gateway = group.makegateway(spec)
    no_core = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    gateway.remote_exec(no_core).waitclose(timeout=20)
    return gateway


# A sanitizer has its own handlers for fatal signals and takes much memory.
not_sanitized = pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="the process is the sanitizer's")


def of_kinds(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("doomed", names or list(KINDS), indirect=True)


def last_words(gateway: execnet.Gateway, code: str) -> str:
    """The text of GatewayGone after this code has run."""
    with pytest.raises(execnet.GatewayGone) as caught:
        gateway.remote_exec(code).receive(timeout=20)
    return str(caught.value)


# --- The cause ---


@of_kinds(*TOLD)
@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os._exit(7)", "exit status 7"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGUSR2)", "killed by SIGUSR2"),
    ],
    ids=["exit", "SIGKILL", "SIGUSR2"],
)
def test_status_or_signal_is_told(doomed: execnet.Gateway, code: str, cause: str) -> None:
    text = last_words(doomed, code)
    assert f"is gone: {cause}" in text
    assert "out-of-memory" not in text


@not_sanitized
@of_kinds(*HEARD)
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGFPE", "SIGBUS", "SIGILL"])
def test_a_fatal_signal_comes_with_the_traceback(
    doomed: execnet.Gateway, name: str, request: pytest.FixtureRequest
) -> None:
    code = f"import os, signal\ndef stumble():\n    os.kill(os.getpid(), signal.{name})\nstumble()\n"
    text = last_words(doomed, code)
    assert "Fatal Python error: " in text
    assert "line 3 in stumble" in text
    if request.node.callspec.params["doomed"] in TOLD:
        assert f"is gone: killed by {name}" in text


@not_sanitized
@of_kinds("popen", "pure")
def test_the_traceback_is_on_stderr_too(doomed: execnet.Gateway, capfd: pytest.CaptureFixture[str]) -> None:
    last_words(doomed, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert Captured(capfd).shows(lambda all: "Fatal Python error: " in all.err)


@not_sanitized
@of_kinds("popen", "pure")
def test_code_that_reports_crashes_itself_has_its_way(doomed: execnet.Gateway, tmp_path: Path) -> None:
    code = f"import faulthandler, os, signal\nfaulthandler.enable(open({str(tmp_path / 'report')!r}, 'w'))\n"
    assert "Fatal" not in last_words(doomed, code + "os.kill(os.getpid(), signal.SIGSEGV)")
    assert "Fatal Python error: " in (tmp_path / "report").read_text()


@of_kinds("popen", "pure")
def test_children_do_not_inherit_where_crashes_are_reported(doomed: execnet.Gateway) -> None:
    code = "import subprocess; channel.send(subprocess.check_output(['ls', '-l', '/proc/self/fd']).decode())"
    listed = [line.split(" -> ") for line in doomed.remote_exec(code).receive().splitlines() if " -> " in line]
    assert sorted(int(before.split()[-1]) for before, _ in listed)[:4] == [0, 1, 2, 3]  # 3: of ls itself
    assert len(listed) == 4


@of_kinds("ssh")
def test_ssh_tells_what_was_said_last(doomed: execnet.Gateway) -> None:
    text = last_words(doomed, "import os; os.write(2, b'no more disk\\n'); os._exit(3)")
    assert "is gone: exit status 3" in text
    assert "last on its stderr: no more disk" in text


@of_kinds("ssh")
def test_what_ssh_means_by_its_exit_status_is_told(doomed: execnet.Gateway) -> None:
    text = last_words(doomed, "import os; os.kill(os.getpid(), 9)")
    assert "is gone: exit status 255, with which ssh says that" in text


# --- The out-of-memory killer ---

LIMIT = 128 << 20
# It allocates a bounded amount: if the limit does not hold, the machine must not run out of memory.
EAT = """
hoard = [bytearray(b"x") * (8 << 20) for _ in range(64)]
channel.send("not killed")
"""


def own_memory_group() -> tuple[Path, str]:
    """The directory of this process's control group, and the name of the file there with its limit."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory" + path), "memory.limit_in_bytes"
        if not controllers and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup" + path), "memory.max"
    pytest.skip("this process has no control group that limits memory")


@pytest.fixture
def cramped() -> Iterator[Path]:
    """A control group with little memory. Skips the test where none can be made."""
    parent, limit = own_memory_group()
    group = parent / f"execnet-test-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            (group / limit).write_text(str(LIMIT))
        except OSError as error:
            pytest.skip(f"no limit of memory can be set here: {error}")
        with contextlib.suppress(OSError):
            (group / "memory.swap.max").write_text("0")
        yield group
    finally:
        group.rmdir()


@pytest.fixture
def cramped_python(cramped: Path, tmp_path: Path) -> Path:
    """Starts an interpreter in that group, as cgexec and systemd-run do."""
    wrapper = tmp_path / "cramped-python"
    wrapper.write_text(f'#!/bin/sh\necho $$ > {cramped}/cgroup.procs && exec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


@not_sanitized
@pytest.mark.parametrize("way", ["popen", "via-native"])
def test_the_out_of_memory_killer_is_named(cramped_python: Path, way: str, group: execnet.Group) -> None:
    if way == "popen":
        gateway = group.makegateway(f"popen//python={cramped_python}")
    else:
        group.makegateway("popen//id=proxy")
        gateway = group.makegateway(f"popen//via=proxy//python={cramped_python}")
    text = last_words(gateway, EAT)
    assert "is gone: killed by SIGKILL; killed by the out-of-memory killer" in text


# Numbers of processes are others there than in the kernel's log: so it says nothing, as to a user who may not read it.
LAST_WORDS_IN_A_NAMESPACE = """
import sys
import execnet
group = execnet.Group(sys.argv[2:])
try:
    print(group[-1].remote_exec(sys.argv[1]).receive(timeout=60))
except EOFError as error:
    print(error)
group.terminate(timeout=5)
"""


@not_sanitized
@pytest.mark.parametrize("way", ["popen", "via-native", "preload"])
def test_a_control_group_that_a_wrapper_has_moved_it_to_is_asked(cramped_python: Path, way: str) -> None:
    specs = {
        "popen": [f"popen//python={cramped_python}"],
        "via-native": ["popen//id=proxy", f"popen//via=proxy//python={cramped_python}"],
        "preload": [f"popen//python={cramped_python}//preload=json"],
    }[way]
    namespace = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*namespace, "true"], capture_output=True, timeout=30).returncode:
        pytest.skip("no new namespaces here")
    program = [sys.executable, "-c", LAST_WORDS_IN_A_NAMESPACE, EAT, *specs]
    done = subprocess.run([*namespace, *program], capture_output=True, text=True, timeout=120)
    assert "killed by SIGKILL; killed by the out-of-memory killer, as its control group " in done.stdout, done


# --- Everybody learns it ---


def receive_each(channel: execnet.Channel) -> object:
    return execnet.MultiChannel([channel]).receive_each()


def send_until_it_fails(channel: execnet.Channel) -> None:
    while True:
        channel.send(b"x" * 100_000)


def join(channel: execnet.Channel) -> None:
    channel.gateway.join()
    raise execnet.GatewayGone(channel._getremoteerror())  # it raises nothing itself


def remote_status(channel: execnet.Channel) -> object:
    return channel.gateway.remote_status()


def rsync(channel: execnet.Channel) -> None:
    here = Path(__file__).parent
    sync = execnet.RSync(here, callback=None)
    sync.add_target(channel.gateway, "/nonexistent/never/written")
    sync.send()


WAITS: dict[str, Callable[[execnet.Channel], object]] = {
    "receive": execnet.Channel.receive,
    "waitclose": execnet.Channel.waitclose,
    "iteration": list,
    "receive_each": receive_each,
    "send": send_until_it_fails,
    "join": join,
    "remote_status": remote_status,
    "rsync": rsync,
}


def is_asleep(thread: threading.Thread) -> bool:
    return Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@of_kinds()
def test_everybody_who_waits_learns_it_at_once(doomed: execnet.Gateway) -> None:
    pid = doomed._rinfo().pid
    channels = {name: doomed.remote_exec("import time; time.sleep(1000)") for name in WAITS}
    told: queue.Queue[tuple[str, str]] = queue.Queue()

    def wait(name: str) -> None:
        try:
            WAITS[name](channels[name])
        except BaseException as error:
            told.put((name, f"{type(error).__name__}: {error}"))
        else:
            told.put((name, "nothing"))

    with_callback = doomed.remote_exec("import time; time.sleep(1000)")
    with_callback.setcallback(lambda item: told.put(("callback", item)), endmarker="the end")
    os.kill(pid, signal.SIGSTOP)  # none of them gets an answer
    threads = [threading.Thread(target=wait, args=(name,)) for name in WAITS]
    for thread in threads:
        thread.start()
    # All calls are under way when nothing moves any more: each thread sleeps in the kernel.
    while not all(is_asleep(thread) for thread in threads):
        pass
    os.kill(pid, signal.SIGKILL)
    found = dict(told.get(timeout=60) for _ in range(len(WAITS) + 1))
    for thread in threads:
        thread.join()
    assert found.pop("callback") == "the end"
    assert set(found) == set(WAITS)
    for name, text in found.items():
        assert "is gone" in text, (name, text)
        assert "GatewayGone" in text, (name, text)


@of_kinds()
def test_what_had_arrived_is_delivered_first(doomed: execnet.Gateway) -> None:
    channel = doomed.remote_exec("for n in range(1000): channel.send(n)\nimport os; os.kill(os.getpid(), 9)")
    received: queue.Queue[object] = queue.Queue()
    listened = doomed.newchannel()
    listened.setcallback(received.put, endmarker=None)
    with pytest.raises(execnet.GatewayGone):
        channel.waitclose(timeout=20)
    assert [channel.receive() for _ in range(1000)] == list(range(1000))
    with pytest.raises(execnet.GatewayGone):
        channel.receive()
    assert received.get(timeout=60) is None


@of_kinds()
def test_a_callback_is_told_before_send_raises(doomed: execnet.Gateway) -> None:
    # pytest-xdist sends to a worker until its callback has been told of the end, and does not expect `send` to raise.
    channel = doomed.remote_exec("channel.send(1); channel.receive(); import os; os.kill(os.getpid(), 9)")
    called, goes_on, told = threading.Event(), threading.Event(), threading.Event()

    def callback(item: object) -> None:
        if item is None:
            told.set()
        else:
            called.set()
            goes_on.wait()

    channel.setcallback(callback, endmarker=None)
    try:
        assert called.wait(timeout=20)
        channel.send("now")
        assert eventually(lambda: not doomed.hasreceiver(), 20)
        channel.send("lost, as what was on its way")
        assert not told.is_set()
    finally:
        goes_on.set()
    assert told.wait(timeout=20)
    with pytest.raises(execnet.GatewayGone):
        channel.waitclose(timeout=20)
    with pytest.raises(execnet.GatewayGone):
        channel.send("too late")


def test_the_error_of_a_lost_channel_is_not_an_eoferror_and_has_the_cause(gateway: execnet.Gateway) -> None:
    # pytest-xdist shows no text of an EOFError: "node down: Not properly terminated".
    channel = gateway.remote_exec("import os; os.kill(os.getpid(), 9)")
    gateway.join(timeout=20)
    error = channel._getremoteerror()
    assert not isinstance(error, EOFError)
    assert "killed by SIGKILL" in str(error)


def test_a_killed_coordinator_of_a_reporting_worker_leaves_nothing() -> None:
    # The worker still holds the pipe for its reports, so nothing may wait for the end of that.
    program = "import execnet, os; g = execnet.makegateway('popen'); print(g._rinfo().pid, flush=True); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) > 0
