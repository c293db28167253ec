"""Files of the working directory that have the name of a module that a worker imports, and options of interpreters."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import execnet
import interpreters
from sshd import PrivateSshd

pytestmark = pytest.mark.timeout(120)

PURE = f"popen//python={shlex.quote(sys.executable)}"
# Each says so on its own, whoever imports it.
SHADOW = "import os; os.write(2, b'SHADOW ' + __name__.encode() + b'\\n'); os._exit(77)"
# What only some versions, systems or installations have, and is looked for by the rest.
ELSEWHERE = ["_winapi", "msvcrt", "nt", "winreg", "java", "org", "pwd", "grp", "imp", "thread", "StringIO", "Queue"]
INSTALLED = ["execnet", "greenlet", "gevent", "usercustomize", "sitecustomize"]


@pytest.fixture
def shadows(tmp_path: Path) -> Path:
    """A directory with a file for each module of the standard library, and a module that is the user's own."""
    directory = tmp_path / "shadows"
    directory.mkdir()
    for name in {*sys.stdlib_module_names, *ELSEWHERE, *INSTALLED}:
        (directory / f"{name}.py").write_text(SHADOW)
    (directory / "of_the_user.py").write_text("ANSWER = 42")
    return directory


def use(gateway: execnet.Gateway) -> None:
    """Has a worker do whatever makes it import something."""
    own = "import of_the_user, sys; channel.send((sys.path[0], of_the_user.ANSWER))"
    assert gateway.remote_exec(own).receive(timeout=30) == ("", 42)
    failing = gateway.remote_exec("import sys\ndef f():\n    raise ValueError('on purpose')\nf()")
    with pytest.raises(execnet.RemoteError) as caught:
        failing.receive(timeout=30)
    assert "raise ValueError('on purpose')" in str(caught.value)
    with pytest.raises(execnet.RemoteError, match="SyntaxError"):
        gateway.remote_exec("(").receive(timeout=30)
    # More than one at a time, callbacks, files, status.
    first, second = (gateway.remote_exec("channel.send(channel.receive())") for _ in range(2))
    second.send(2)
    first.send(1)
    assert (first.receive(timeout=30), second.receive(timeout=30)) == (1, 2)
    code = "channel.setcallback(lambda item: 1 / 0); channel.waitclose()"
    calls_back = gateway.remote_exec(code)
    calls_back.send(1)
    with pytest.raises(execnet.RemoteError, match="ZeroDivisionError"):
        calls_back.receive(timeout=30)
    writes = gateway.remote_exec("f = channel.makefile('w'); f.write('text')")
    assert writes.receive(timeout=30) == "text"
    models = gateway.remote_exec("it = channel.gateway.execmodel; it.queue, it.socket, it.subprocess, it.Event()")
    models.waitclose(timeout=30)
    assert gateway.remote_status(timeout=30).numchannels >= 0


def send_a_directory(gateway: execnet.Gateway, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir(exist_ok=True)
    (tmp_path / "source" / "file").write_text("content")
    rsync = execnet.RSync(tmp_path / "source", verbose=False)
    target = tmp_path / f"target-{gateway.id}"
    rsync.add_target(gateway, str(target))
    rsync.send()
    assert (target / "file").read_text() == "content"


WAYS = {
    "native": ["popen"],
    "pure": [PURE],
    "via native": ["popen//id=proxy", "popen//via=proxy"],
    "via pure": [f"{PURE}//id=proxy", "popen//via=proxy"],
    "installed by native": ["popen//id=host", "socket//installvia=host"],
    "installed by pure": [f"{PURE}//id=host", "socket//installvia=host"],
    "preload native": ["popen//preload=of_the_user"],
    "preload pure": [f"{PURE}//preload=of_the_user"],
    "preload via native": ["popen//id=proxy", "popen//preload=of_the_user//via=proxy"],
    "preload via pure": [f"{PURE}//id=proxy", "popen//preload=of_the_user//via=proxy"],
}


@pytest.mark.parametrize("way", WAYS)
def test_no_file_of_the_working_directory_is_taken_for_a_module_of_ours(
    group: execnet.Group, way: str, shadows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shadows)
    gateways = [group.makegateway(spec) for spec in WAYS[way]]
    for gateway in gateways:
        use(gateway)
        send_a_directory(gateway, tmp_path)


@pytest.mark.parametrize("spec", ["ssh=localhost", "ssh=localhost//preload=of_the_user"])
def test_none_of_a_login_either(
    sshd: PrivateSshd, group: execnet.Group, spec: str, shadows: Path, tmp_path: Path
) -> None:
    made = []
    try:
        for file in shadows.iterdir():
            made.append(sshd.home / file.name)
            made[-1].write_bytes(file.read_bytes())
        gateway = group.makegateway(spec)
        use(gateway)
        send_a_directory(gateway, tmp_path)
        group.terminate(timeout=5)
    finally:
        for file in made:
            file.unlink()


@pytest.mark.parametrize("spec", ["popen", PURE, "popen//id=proxy popen//via=proxy"])
@pytest.mark.parametrize("execmodel", ["thread", "main_thread_only", "gevent"])
def test_none_of_the_directory_that_a_worker_changes_to(
    group: execnet.Group, spec: str, execmodel: str, shadows: Path, tmp_path: Path
) -> None:
    if execmodel == "gevent":
        pytest.importorskip("gevent")
        if "EXECNET_TEST_SANITIZER" in os.environ:
            pytest.skip("sanitizers do not know of greenlets' stacks")
    *first, last = spec.split(" ")
    for one in first:
        group.makegateway(one)
    gateway = group.makegateway(f"{last}//chdir={shadows}//execmodel={execmodel}")
    own = "import of_the_user, sys; channel.send((sys.path[0], of_the_user.ANSWER))"
    assert gateway.remote_exec(own).receive(timeout=30) == ("", 42)
    with pytest.raises(execnet.RemoteError, match="ZeroDivisionError"):
        gateway.remote_exec("1 / 0").receive(timeout=30)
    send_a_directory(gateway, tmp_path)


@pytest.mark.parametrize("name", interpreters.NAMES)
def test_none_whatever_interpreter_is_to_run(
    group: execnet.Group, name: str, shadows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = interpreters.find(name)
    if path is None:
        pytest.skip(f"{name}: not found")
    monkeypatch.chdir(shadows)
    gateway = group.makegateway(f"popen//python={shlex.quote(path)}//id=there")
    use(gateway)
    send_a_directory(gateway, tmp_path)
    use(group.makegateway("popen//via=there"))


def test_a_module_of_the_users_with_such_a_name_is_his_to_import(
    group: execnet.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("OWN = True")
    monkeypatch.chdir(tmp_path)
    for spec in ("popen", PURE):
        gateway = group.makegateway(spec)
        with pytest.raises(execnet.RemoteError):
            gateway.remote_exec("1 / 0").receive(timeout=30)  # what is imported for the traceback is not in the way
        assert gateway.remote_exec("import queue; channel.send(queue.OWN)").receive(timeout=30)


# --- Options of the coordinator's interpreter -----------------------------------------------------

COORDINATOR = """
import os, sys
sys.path.append(sys.argv[1])
import execnet
code = '''
import sys
# From 3.13 on the bootstrap needs safe_path (docs/security.md). What it is for, the working directory, is compared.
names = [name for name in dir(sys.flags) if name != "safe_path" or sys.version_info < (3, 13)]
flags = [getattr(sys.flags, name) for name in names if isinstance(getattr(sys.flags, name), int)]
channel.send((flags, sorted(sys._xoptions.items()), sys.warnoptions, sys.path[0] == "", sys.dont_write_bytecode))
'''
namespace = {}
class Own:
    def send(self, item):
        self.item = item
own = Own()
exec(code, {"channel": own})
group = execnet.Group(["popen//id=proxy"])
for spec in ("popen", "popen//via=proxy", "popen//preload"):
    there = group.makegateway(spec).remote_exec(code).receive()
    assert there == own.item, (spec, there, own.item)
group.terminate()
print("the same")
"""


@pytest.mark.parametrize(
    "options",
    [
        "",
        "-I",
        "-E",
        "-s",
        "-S",
        "-B",
        "-O",
        "-OO",
        "-b",
        "-bb -W error",
        "-W ignore -W error::UserWarning",
        "-X dev",
        "-X dev -bb -W once",
        "-X utf8=0 -X faulthandler -X importtime=0",
        "-X tracemalloc=3 -X pycache_prefix=/tmp/no -O",
        "-I -S -B -W error::ImportWarning",
        "-P" if sys.version_info >= (3, 11) else "-B -O",
        "--check-hash-based-pycs always",
    ],
)
def test_a_popen_worker_is_started_as_its_coordinator_was(options: str, tmp_path: Path) -> None:
    place = str(Path(execnet.__file__).parents[1])
    environ = {**os.environ, "PYTHONWARNINGS": "ignore::ResourceWarning"}
    done = subprocess.run(
        [sys.executable, *options.split(), "-c", COORDINATOR, place],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "the same\n", done.stderr


@pytest.mark.parametrize("options", ["-I", "-P"])
def test_an_isolated_coordinator_has_workers_that_do_not_look_into_the_working_directory(
    options: str, shadows: Path
) -> None:
    if options == "-P" and sys.version_info < (3, 11):
        pytest.skip("-P is of 3.11")
    code = """
import sys
sys.path.append(sys.argv[1])
import execnet
channel = execnet.makegateway().remote_exec('''
import threading, wave, sys
channel.send("" in sys.path)
try:
    import of_the_user
except ImportError:
    channel.send("not found")
''')
print(channel.receive(), channel.receive())
"""
    place = str(Path(execnet.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, options, "-c", code, place], cwd=shadows, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "False not found\n", done.stderr
