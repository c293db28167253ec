"""RSync, from real trees to real workers, of each kind."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import execnet
import interpreters
from belongings import eventually, stop

BLOCK = 256 * 1024
KINDS = ["native", "python2.7", "python3.6", f"python3.{sys.version_info[1]}", "pypy3"]
if "EXECNET_TEST_WORKERS" in os.environ:
    KINDS = [kind for kind in KINDS if kind in os.environ["EXECNET_TEST_WORKERS"].split()]


@pytest.fixture(params=KINDS)
def spec(request: pytest.FixtureRequest) -> str:
    """Of each kind of worker."""
    if request.param == "native":
        return "popen"
    path = interpreters.find(request.param)
    if path is None:
        pytest.skip(f"{request.param}: not found")
    return f"popen//python={shlex.quote(path)}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


class Recording(execnet.RSync):
    """Notes what is sent and what it is told."""

    def __init__(self, source: object, **options: Any) -> None:
        self.sent: list[str] = []
        self.progress: list[tuple[str, int]] = []
        super().__init__(str(source), callback=self._note, **options)

    def _note(self, kind: str, size: int, channel: execnet.Channel) -> None:
        assert isinstance(channel.gateway, execnet.Gateway)
        self.progress.append((kind, size))

    def _report_send_file(self, gateway: execnet.Gateway, modified_rel_path: str) -> None:
        self.sent.append(modified_rel_path)


def sync(source: object, target: object, gateway: execnet.Gateway, **options: Any) -> Recording:
    recording = Recording(source)
    recording.add_target(gateway, str(target), **options)
    recording.send()
    return recording


def fill(directory: Path) -> None:
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / "empty").touch()
    (directory / "a.txt").write_bytes(b"hello")
    (directory / "sub" / "b.bin").write_bytes(os.urandom(3 * BLOCK + 5))
    (directory / "sub" / "deep" / "c").write_bytes(b"c" * BLOCK)


def content(directory: Path) -> dict[str, tuple[str, object]]:
    """What counts of a tree: relative path -> mode and content."""
    found: dict[str, tuple[str, object]] = {}
    for path in sorted(directory.rglob("*")):
        mode = stat.filemode(path.lstat().st_mode)
        if path.is_symlink():
            found[str(path.relative_to(directory))] = (mode, os.readlink(path))
        else:
            found[str(path.relative_to(directory))] = (mode, path.read_bytes() if path.is_file() else None)
    return found


def assert_same_times(one: Path, other: Path) -> None:
    for path in [one, *(path for path in one.rglob("*") if not path.is_symlink())]:
        times = path.stat().st_mtime_ns, (other / path.relative_to(one)).stat().st_mtime_ns
        assert abs(times[0] - times[1]) < 2000, path  # Python 2 sets microseconds


# --- What arrives -----------------------------------------------------------------------------------


def test_a_tree_arrives_as_it_is_and_a_second_run_sends_nothing(
    spec: str, group: execnet.Group, source: Path, target: Path
) -> None:
    fill(source)
    (source / "a.txt").chmod(0o640)
    (source / "sub" / "deep").chmod(0o555)
    os.utime(source / "a.txt", ns=(1, 1_234_567_890_123_456_789))
    os.utime(source / "sub", ns=(1, 1_000_000_000_000_000_000))
    gateway = group.makegateway(spec)
    first = sync(source, target, gateway)
    assert content(target) == content(source)
    assert_same_times(source, target)
    assert sorted(first.sent) == ["a.txt", "empty", "sub/b.bin", "sub/deep/c"]
    assert first.progress[0] == ("list", 5 + 3 * BLOCK + 5 + BLOCK)
    assert sorted(first.progress[1:]) == [("ack", 0), ("ack", 5), ("ack", BLOCK), ("ack", 3 * BLOCK + 5)]
    before = {path: path.lstat() for path in [target, *target.rglob("*")]}
    second = sync(source, target, gateway)
    assert (second.sent, second.progress) == ([], [("list", 0)])
    for path, found in before.items():
        now = path.lstat()
        assert (now.st_ino, now.st_mtime_ns, now.st_mode) == (found.st_ino, found.st_mtime_ns, found.st_mode)


def test_several_targets_at_once(group: execnet.Group, source: Path, tmp_path: Path) -> None:
    fill(source)
    finished = []
    recording = Recording(source)
    for number in range(4):
        gateway = group.makegateway("popen" if number % 2 else f"popen//python={shlex.quote(sys.executable)}")
        recording.add_target(
            gateway, str(tmp_path / f"t{number}"), finishedcallback=lambda n=number: finished.append(n)
        )
    recording.send()
    assert sorted(finished) == [0, 1, 2, 3]
    for number in range(4):
        assert content(tmp_path / f"t{number}") == content(source)
    with pytest.raises(OSError, match="no target"):  # they were for one send()
        recording.send()
    recording.send(raises=False)


def test_a_relative_target_is_relative_to_the_working_directory_over_there(
    spec: str, group: execnet.Group, source: Path, tmp_path: Path
) -> None:
    fill(source)
    sync(source, "here/below", group.makegateway(f"{spec}//chdir={tmp_path / 'cwd'}"))
    assert content(tmp_path / "cwd" / "here" / "below") == content(source)


def test_names_that_are_not_utf8_arrive(spec: str, group: execnet.Group, source: Path, target: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n\xff")
    (source / name).mkdir()
    (source / name / name).write_bytes(b"1")
    (source / "link").symlink_to(name)
    recording = sync(source, os.fsdecode(os.fsencode(target) + b"\xfe"), group.makegateway(spec))
    arrived = Path(os.fsdecode(os.fsencode(target) + b"\xfe"))
    assert content(arrived) == content(source)
    assert recording.sent == [f"{name}/{name}"]


def test_what_filter_says_no_to_stays_out(gateway: execnet.Gateway, source: Path, target: Path) -> None:
    fill(source)

    class Filtered(Recording):
        def filter(self, path: str) -> bool:
            assert isinstance(path, str)
            assert path.startswith(f"{source}/")
            assert "deep/" not in path
            return not path.endswith(("deep", "empty"))

    recording = Filtered(source)
    recording.add_target(gateway, str(target))
    recording.send()
    assert sorted(content(target)) == ["a.txt", "sub", "sub/b.bin"]


def test_symbolic_links_inside_follow_the_tree_and_others_stay(
    spec: str, group: execnet.Group, source: Path, target: Path
) -> None:
    fill(source)
    links = {
        "relative": "a.txt",
        "up": "../elsewhere",
        "dangling": "nowhere",
        "outside": "/etc/hostname",
        "near": f"{source}er/x",
    }
    for name, leads_to in links.items():
        (source / name).symlink_to(leads_to)
    (source / "sub" / "inside").symlink_to(source / "a.txt")
    (source / "sub" / "root").symlink_to(source)
    gateway = group.makegateway(spec)
    sync(source, target, gateway)
    assert {name: os.readlink(target / name) for name in links} == links
    assert os.readlink(target / "sub" / "inside") == str(target / "a.txt")
    assert os.readlink(target / "sub" / "root") == str(target)
    before = (target / "relative").lstat().st_ino
    sync(source, target, gateway)
    assert (target / "relative").lstat().st_ino == before


def test_a_single_file(spec: str, group: execnet.Group, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    file.chmod(0o750)
    gateway = group.makegateway(spec)
    copied = tmp_path / "not" / "there" / "copied"
    assert sync(file, copied, gateway).sent == [""]
    assert copied.read_bytes() == b"content"
    assert stat.S_IMODE(copied.stat().st_mode) == 0o750
    assert sync(file, copied, gateway).sent == []
    assert os.listdir(copied.parent) == ["copied"]
    (tmp_path / "directory").mkdir()
    sync(file, tmp_path / "directory", gateway)
    assert (tmp_path / "directory").read_bytes() == b"content"


def test_what_is_of_another_kind_there_is_replaced(spec: str, group: execnet.Group, source: Path, target: Path) -> None:
    fill(source)
    (source / "link").symlink_to("a.txt")
    outside = target.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_text("stays")
    (target / "a.txt" / "deep").mkdir(parents=True)  # a file in the source
    (target / "a.txt" / "deep" / "x").touch()
    (target / "link" / "deep").mkdir(parents=True)  # a link in the source
    (target / "sub").symlink_to(outside)  # a directory in the source
    (target / "empty").symlink_to(outside / "precious")  # a file in the source
    sync(source, target, group.makegateway(spec))
    assert content(target) == content(source)
    assert content(outside) == {"precious": ("-rw-r--r--", b"stays")}


# --- What is sent -----------------------------------------------------------------------------------


class Relay:
    """A command for `python=`: an interpreter, and between it and us a program that counts what we send."""

    PROGRAM = textwrap.dedent("""
        import os, socket, subprocess, sys, threading
        coordinator = socket.socket(fileno=os.dup(0))
        worker, inner = socket.socketpair()
        child = subprocess.Popen([sys.executable, *sys.argv[2:]], stdin=inner, stdout=inner)
        inner.close()
        counter = os.open(sys.argv[1], os.O_WRONLY)
        total = 0
        def back():
            while data := worker.recv(65536):
                coordinator.sendall(data)
            coordinator.shutdown(socket.SHUT_RDWR)
        threading.Thread(target=back, daemon=True).start()
        while data := coordinator.recv(65536):
            total += len(data)
            os.pwrite(counter, b"%20d" % total, 0)
            worker.sendall(data)
        worker.shutdown(socket.SHUT_WR)
        sys.exit(child.wait())
    """)

    def __init__(self, directory: Path) -> None:
        self._counter = directory / "counter"
        self._counter.touch()
        program = directory / "relay.py"
        program.write_text(self.PROGRAM)
        self.spec = f"popen//python={shlex.join([sys.executable, str(program), str(self._counter)])}"

    def total(self) -> int:
        """Bytes that went to the interpreter so far."""
        return int(self._counter.read_text())


def test_a_second_run_costs_only_the_names(group: execnet.Group, source: Path, target: Path) -> None:
    (source / "big").write_bytes(os.urandom(8 * BLOCK))
    relay = Relay(target.parent)
    gateway = group.makegateway(relay.spec)
    before = relay.total()
    sync(source, target, gateway)
    assert 8 * BLOCK < relay.total() - before < 9 * BLOCK
    before = relay.total()
    sync(source, target, gateway)
    assert relay.total() - before < 40_000  # the receiving code, for the most part


def test_only_changed_blocks_are_sent(group: execnet.Group, source: Path, target: Path) -> None:
    data = bytearray(os.urandom(40 * BLOCK + 100))
    big = source / "big"
    big.write_bytes(data)
    relay = Relay(target.parent)
    gateway = group.makegateway(relay.spec)
    sync(source, target, gateway)
    data[17 * BLOCK + 3] ^= 1
    data[40 * BLOCK + 99] ^= 1
    big.write_bytes(data)
    before = relay.total()
    recording = sync(source, target, gateway)
    assert recording.sent == ["big"]
    assert recording.progress == [("list", len(data)), ("ack", len(data))]
    assert (target / "big").read_bytes() == data
    assert BLOCK + 100 < relay.total() - before < BLOCK + 100 + 40_000


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK, 2 * BLOCK + 7, 5 * BLOCK])
def test_files_that_grow_or_shrink(gateway: execnet.Gateway, source: Path, target: Path, size: int) -> None:
    data = os.urandom(5 * BLOCK)
    target.mkdir()
    (target / "file").write_bytes(data[: 2 * BLOCK])
    os.utime(target / "file", (1, 1))
    (source / "file").write_bytes(data[:size])
    assert sync(source, target, gateway).sent == ([] if size == 2 * BLOCK else ["file"])
    assert (target / "file").read_bytes() == data[:size]


def test_a_file_that_was_only_touched_is_not_sent(spec: str, group: execnet.Group, source: Path, target: Path) -> None:
    fill(source)
    gateway = group.makegateway(spec)
    sync(source, target, gateway)
    os.utime(source / "sub" / "b.bin", (5, 5))
    (source / "sub" / "b.bin").chmod(0o600)
    (source / "a.txt").chmod(0o711)  # not even touched
    before = (target / "sub" / "b.bin").stat().st_ino
    recording = sync(source, target, gateway)
    assert recording.sent == []
    assert recording.progress == [("list", 3 * BLOCK + 5), ("ack", 3 * BLOCK + 5)]
    assert (target / "sub" / "b.bin").stat().st_ino == before
    assert content(target) == content(source)
    assert_same_times(source, target)


def test_many_files_that_were_all_changed(gateway: execnet.Gateway, source: Path, target: Path) -> None:
    for number in range(700):
        (source / f"{number}").write_bytes(b"%d" % number)
    sync(source, target, gateway)
    for number in range(700):
        (source / f"{number}").write_bytes(b"%d" % (number + number % 2))
        os.utime(source / f"{number}", (7, 7))
    recording = sync(source, target, gateway)
    assert len(recording.sent) == 350
    assert len(recording.progress) == 701
    assert content(target) == content(source)


# --- What goes --------------------------------------------------------------------------------------


def test_what_is_not_in_the_source_is_removed_where_that_is_wanted(
    spec: str, group: execnet.Group, source: Path, target: Path
) -> None:
    fill(source)
    outside = target.parent / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    gateway = group.makegateway(spec)
    sync(source, target, gateway)
    (target / "sub" / "other" / "deep").mkdir(parents=True)
    (target / "sub" / "other" / "deep" / "file").touch()
    (target / "sub" / "other").chmod(0o500)
    (target / "more").touch()
    (target / "link").symlink_to(outside)
    kept = content(target)
    sync(source, target, gateway)
    sync(source, target, gateway, delete=False)
    assert content(target) == kept
    sync(source, target, gateway, delete=True)
    assert content(target) == content(source)
    assert (outside / "precious").exists()


def test_an_unknown_option_is_an_error(gateway: execnet.Gateway, source: Path) -> None:
    with pytest.raises(TypeError, match="compress"):
        execnet.RSync(str(source)).add_target(gateway, "x", compress=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", interpreters.NAMES)
def test_the_receiving_side_passes_its_own_tests_under(name: str) -> None:
    path = interpreters.find(name)
    if path is None:
        pytest.skip(f"{name}: not found")
    tests = Path(__file__).parents[2] / "worker" / "rsync_target_test.py"
    done = subprocess.run([path, "-B", tests], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# --- What goes wrong --------------------------------------------------------------------------------


def test_without_a_target_send_raises_unless_told_not_to(source: Path) -> None:
    with pytest.raises(OSError, match="no target"):
        execnet.RSync(str(source)).send()
    execnet.RSync(str(source)).send(raises=False)


def test_a_dead_gateway_is_noticed_when_it_is_added(group: execnet.Group, source: Path) -> None:
    gateway = group.makegateway("popen")
    os.kill(gateway._rinfo().pid, signal.SIGKILL)
    gateway.join(timeout=20)
    recording = Recording(source)
    with pytest.raises(execnet.GatewayGone, match="SIGKILL"):
        recording.add_target(gateway, "x")
    with pytest.raises(OSError, match="no target"):
        recording.send()
    recording.send(raises=False)


@pytest.mark.parametrize("raises", [True, False])
def test_a_target_that_dies_is_raised_after_the_others_are_done(
    group: execnet.Group, source: Path, tmp_path: Path, raises: bool
) -> None:
    fill(source)
    (source / "big").write_bytes(os.urandom(40 * BLOCK))
    dying, living = group.makegateway("popen"), group.makegateway("popen")

    class Killing(Recording):
        def _report_send_file(self, gateway: execnet.Gateway, modified_rel_path: str) -> None:
            if gateway is dying:
                with contextlib.suppress(ProcessLookupError):  # one file was enough
                    os.kill(gateway._rinfo().pid, signal.SIGKILL)

    finished = []
    recording = Killing(source)
    recording.add_target(dying, str(tmp_path / "dying"), finishedcallback=lambda: finished.append("dying"))
    recording.add_target(living, str(tmp_path / "living"), finishedcallback=lambda: finished.append("living"))
    with pytest.raises(execnet.GatewayGone, match="SIGKILL"):
        recording.send(raises=raises)
    assert finished == ["living"]
    assert content(tmp_path / "living") == content(source)


def test_an_error_over_there_is_raised_with_its_traceback(spec: str, group: execnet.Group, source: Path) -> None:
    fill(source)
    recording = Recording(source)
    recording.add_target(group.makegateway(spec), "/proc/not/possible")
    with pytest.raises(execnet.RemoteError, match="make_directory"):
        recording.send()


def test_what_a_method_raises_comes_out_of_send_and_nothing_half_done_stays(
    spec: str, group: execnet.Group, source: Path, target: Path
) -> None:
    for name in "abc":
        (source / name).write_bytes(os.urandom(20 * BLOCK))

    class Raising(Recording):
        where = ""

        def filter(self, path: str) -> bool:
            if self.where == "filter":
                raise LookupError(path)
            return True

        def _report_send_file(self, gateway: execnet.Gateway, modified_rel_path: str) -> None:
            if self.where == "report" and modified_rel_path == "b":
                raise LookupError(modified_rel_path)

        def _note(self, kind: str, size: int, channel: execnet.Channel) -> None:
            if self.where == kind:
                raise LookupError(kind)

    def raising() -> None:
        raise LookupError("finished")

    gateway = group.makegateway(spec)
    for where in ("filter", "report", "list", "ack", "finished"):
        recording = Raising(source)
        recording.where = where
        recording.add_target(gateway, str(target), finishedcallback=raising)
        with pytest.raises(LookupError):
            recording.send()
        assert eventually(lambda: gateway.remote_status().numexecuting == 0)
        assert set(os.listdir(target) if target.exists() else []) <= {"a", "b", "c"}
        for name in os.listdir(target) if target.exists() else []:
            assert (target / name).read_bytes() == (source / name).read_bytes()
    sync(source, target, gateway)
    assert content(target) == content(source)


def test_special_files_are_refused_by_name(gateway: execnet.Gateway, source: Path, target: Path) -> None:
    os.mkfifo(source / "pipe")
    with pytest.raises(ValueError, match=r"cannot sync '.*/pipe'.*filter"):
        sync(source, target, gateway)


def test_a_source_that_is_not_there_is_an_error(gateway: execnet.Gateway, source: Path, target: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        sync(source / "nothing", target, gateway)
    assert not target.exists()


def test_a_file_that_vanishes_is_left_out(gateway: execnet.Gateway, source: Path, target: Path) -> None:
    fill(source)

    class Vanishing(Recording):
        def _note(self, kind: str, size: int, channel: execnet.Channel) -> None:
            super()._note(kind, size, channel)
            if kind == "list":
                (source / "a.txt").unlink()

    recording = Vanishing(source)
    recording.add_target(gateway, str(target))
    recording.send()
    assert content(target) == content(source)
    assert "a.txt" not in recording.sent


def test_a_file_that_changes_while_it_is_sent_arrives_whole(
    gateway: execnet.Gateway, source: Path, target: Path
) -> None:
    big = source / "big"
    big.write_bytes(b"1" * (10 * BLOCK))

    class Changing(Recording):
        def _report_send_file(self, gateway: execnet.Gateway, modified_rel_path: str) -> None:
            super()._report_send_file(gateway, modified_rel_path)
            big.write_bytes(b"2" * (12 * BLOCK))  # it is open already

    recording = Changing(source)
    recording.add_target(gateway, str(target))
    recording.send()
    assert recording.sent == ["big"]
    assert (target / "big").read_bytes() == b"2" * (12 * BLOCK)
    assert os.listdir(target) == ["big"]


def test_interrupting_send(group: execnet.Group, source: Path, target: Path) -> None:
    """A worker that stands still holds send() up; Ctrl-C ends it."""
    (source / "big").write_bytes(os.urandom(60 * BLOCK))
    program = textwrap.dedent(f"""
        import os, signal, threading, execnet
        gateway = execnet.makegateway("popen")
        pid = gateway._rinfo().pid
        class Stopping(execnet.RSync):
            def _report_send_file(self, gateway, path):
                os.kill(pid, signal.SIGSTOP)
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        sync = Stopping({str(source)!r})
        sync.add_target(gateway, {str(target)!r}, delete=True)
        try:
            sync.send()
        except KeyboardInterrupt:
            print("interrupted")
        os.kill(pid, signal.SIGCONT)
        gateway.remote_exec("channel.send(1)").receive()
        while gateway.remote_status().numexecuting:
            pass
        print(os.listdir({str(target)!r}))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("interrupted\n[]\n", "")


@pytest.mark.parametrize("victim", ["worker", "coordinator"])
def test_whoever_is_killed_the_file_is_the_old_or_the_new_one(
    group: execnet.Group, source: Path, target: Path, victim: str
) -> None:
    old, new = b"1" * (40 * BLOCK), b"2" * (40 * BLOCK)
    target.mkdir()
    for name in "abcdef":
        (target / name).write_bytes(old)
        (source / name).write_bytes(new)
    program = textwrap.dedent(f"""
        import os, signal, sys, execnet
        gateway = execnet.makegateway("popen")
        print(gateway._rinfo().pid, flush=True)
        class Killing(execnet.RSync):
            def _report_send_file(self, gateway, path):
                if path == "d":
                    os.kill({"gateway._rinfo().pid" if victim == "worker" else "os.getpid()"}, signal.SIGKILL)
        sync = Killing({str(source)!r})
        sync.add_target(gateway, {str(target)!r}, delete=True)
        try:
            sync.send()
        except execnet.GatewayGone:
            print("gone")
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    worker, *rest = done.stdout.split()
    assert rest == (["gone"] if victim == "worker" else [])
    assert eventually(lambda: not Path(f"/proc/{worker}").exists())
    for name in "abcdef":
        assert (target / name).read_bytes() in (old, new)
    assert (target / "f").read_bytes() == old
    sync(source, target, group.makegateway("popen"), delete=True)
    assert content(target) == content(source)  # with what was left half-written removed


def test_a_slow_target_does_not_hold_up_the_others(group: execnet.Group, source: Path, tmp_path: Path) -> None:
    (source / "big").write_bytes(os.urandom(100 * BLOCK))
    slow, fast = group.makegateway("popen"), group.makegateway("popen")
    pid = slow._rinfo().pid
    order, reported = [], []

    def fast_is_done() -> None:
        order.append("fast")
        os.kill(pid, signal.SIGCONT)

    class Stopping(Recording):
        def _report_send_file(self, gateway: execnet.Gateway, modified_rel_path: str) -> None:
            reported.append(gateway)
            if len(reported) == 1:  # whoever comes first, so that neither is done yet
                stop(pid)

    recording = Stopping(source)
    recording.add_target(slow, str(tmp_path / "slow"), finishedcallback=lambda: order.append("slow"))
    recording.add_target(fast, str(tmp_path / "fast"), finishedcallback=fast_is_done)
    recording.send()
    assert order == ["fast", "slow"]
    assert content(tmp_path / "slow") == content(source)


# --- What programs do with it -----------------------------------------------------------------------


def test_verbose_prints_what_is_sent(
    gateway: execnet.Gateway, source: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "a").write_text("1")
    for verbose, printed in ((True, f"{gateway} <= a\n"), (False, "")):
        printing = execnet.RSync(str(source) + "/", verbose=verbose)
        printing.add_target(gateway, str(target / str(verbose)))
        printed = printed.replace("0 active", "1 active")  # its own
        printing.send()
        assert capsys.readouterr().out == printed


def test_a_subclass_like_that_of_pytest_xdist(group: execnet.Group, source: Path, tmp_path: Path) -> None:
    fill(source)
    reported = []

    class HostRSync(execnet.RSync):
        def __init__(self, sourcedir: Path, *, ignores: tuple[str, ...], **options: Any) -> None:
            self._ignores = ignores
            super().__init__(sourcedir=sourcedir, **options)

        def filter(self, path: str) -> bool:
            return Path(path).name not in self._ignores

        def add_target_host(self, gateway: execnet.Gateway, finished: Callable[[], object] | None = None) -> None:
            remotepath = os.path.basename(self._sourcedir)
            super().add_target(gateway, remotepath, finishedcallback=finished, delete=True)

        def _report_send_file(self, gateway: execnet.Gateway, modified_rel_path: str) -> None:
            if self._verbose > 0:
                path = os.path.basename(self._sourcedir) + "/" + modified_rel_path
                reported.append(f"{gateway.spec}:{gateway.spec.chdir} <= {path}")

    spec = f"popen//chdir={tmp_path / 'host'}"
    gateway = group.makegateway(spec)
    host = HostRSync(source, ignores=("sub", "empty"), verbose=1)
    host.add_target_host(gateway)
    host.send()
    assert reported == [f"{spec}:{tmp_path / 'host'} <= source/a.txt"]
    assert sorted(content(tmp_path / "host")) == ["source", "source/a.txt"]


def test_on_a_worker_with_one_thread_code_can_run_right_after_it(
    group: execnet.Group, source: Path, target: Path
) -> None:
    fill(source)
    gateway = group.makegateway("popen//execmodel=main_thread_only")
    for _ in range(3):
        sync(source, target, gateway)
        assert gateway.remote_exec("channel.send(1)").receive() == 1


@pytest.fixture
def open_modes() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.mark.usefixtures("open_modes")
def test_the_umask_does_not_matter(spec: str, group: execnet.Group, source: Path, target: Path) -> None:
    fill(source)
    (source / "a.txt").chmod(0o666)
    (source / "sub").chmod(0o777)
    os.umask(0o077)
    sync(source, target, group.makegateway(spec))
    assert content(target) == content(source)


# --- A hostile coordinator --------------------------------------------------------------------------


def refused(gateway: execnet.Gateway, target: Path, *operations: tuple[object, ...]) -> str:
    """What the receiving side says to these."""
    channel = execnet._core.start_rsync_target(gateway)
    channel.send([("root", os.fsencode(target), True, "directory", 0o755, 0, 0), *operations])
    with pytest.raises(execnet.RemoteError) as raised:
        channel.receive(timeout=20)
    return str(raised.value)


NAMES = [b"..", b".", b"", b"../x", b"a/../../x", b"/etc/x", b"a/", b"a\0b", "text", 5, None]


@pytest.mark.parametrize("name", NAMES, ids=repr)
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_name_from_the_wire_stays_inside(gateway: execnet.Gateway, target: Path, name: object, kind: str) -> None:
    rest = {"file": (0o644, 3, 0), "directory": (0o755, 0), "link": (b"/etc", False)}[kind]
    assert "name of a file" in refused(gateway, target, ("list", 0, [(kind, name, *rest)], True))
    assert content(target.parent) == {"target": ("drwxr-xr-x", None)}


def test_nothing_is_written_through_a_link_from_the_wire(spec: str, group: execnet.Group, target: Path) -> None:
    gateway = group.makegateway(spec)
    outside = target.parent / "outside"
    outside.mkdir()
    link = ("link", b"x", os.fsencode(outside), False)
    file = ("file", b"y", 0o644, 3, 0)
    directory = ("directory", b"x", 0o755, 0)
    write = [("open", 2, 0o644, 3, 0), ("data", 2, b"bad"), ("close", 2)]
    text = refused(gateway, target, ("list", 0, [link], True), ("list", 1, [file], True), *write)
    assert "number of no directory" in text
    text = refused(gateway, target, ("list", 0, [directory, link], True), ("list", 1, [file], True), *write)
    assert "listed before" in text
    text = refused(gateway, target, ("list", 0, [directory], True), ("list", 0, [link], True))
    assert "listed before" in text
    # One that was there before is no way out either.
    (target / "x").rmdir()
    (target / "x").symlink_to(outside)
    text = refused(gateway, target, ("list", 0, [directory], True), ("list", 1, [file], True), *write, ("nonsense",))
    assert "no operation" in text
    assert content(outside) == {}
    assert (target / "x" / "y").read_bytes() == b"bad"
    assert not (target / "x").is_symlink()
