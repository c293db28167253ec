"""RSync among others who wish it no good: users who can write where it reads or writes, and targets that are none.

worker/rsync_target_test.py has the swaps at each system call of a target; here they come from a real other process, as
often as they can. The long form is EXECNET_SOAK_RUNS rounds (tools/soak neighbours).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import execnet
from belongings import eventually, stop
from mutations import soak_runs, soak_seed

KINDS = ["popen", f"popen//python={shlex.quote(sys.executable)}"]
ROUNDS = soak_runs(20)
SECRET = b"nobody else may read this"
soaks = pytest.mark.timeout(3600 if "EXECNET_SOAK_RUNS" in os.environ else 240)

# Somebody else, who takes the place of an entry for a moment, again and again: with a link, a FIFO, a directory, a file
# or nothing. Run as: SEED PLACE OUTSIDE NAMES...
NEIGHBOUR = textwrap.dedent("""
    import os, random, sys, time
    seed = random.Random(int(sys.argv[1]))
    place, outside = map(os.fsencode, sys.argv[2:4])
    names = [os.fsencode(name) for name in sys.argv[4:]]

    def link_to_file(path): os.symlink(outside + b"/file", path)
    def link_to_directory(path): os.symlink(outside, path)
    def link_to_the_same(path): os.symlink(outside + path[len(place):], path)
    def fifo(path): os.mkfifo(path, 0o666)
    def directory(path):
        os.mkdir(path, 0o777)
        os.mkdir(path + b"/deep", 0o777)
        os.symlink(outside, path + b"/link")
    def file(path): os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    def other_name(path): os.link(outside + b"/file", path)  # where the kernel lets anybody do so
    def nothing(path): pass
    kinds = [link_to_file, link_to_directory, link_to_the_same, fifo, directory, file, other_name, nothing]

    def attempt(call, *arguments):
        try:
            call(*arguments)
        except OSError:
            pass

    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    os.umask(0)
    print("ready", flush=True)
    turn, parent = 0, os.getppid()
    while os.getppid() == parent:
        turn += 1
        name = seed.choice(names)
        if seed.random() < 0.2:  # what has a name for the moment
            try:
                name = seed.choice([each for each in os.listdir(place) if each.startswith(b".execnet-")] or names)
            except OSError:
                pass
        path, aside, gone = (place + b"/" + each for each in (name, b"swapped-%d" % (turn % 50), b"swapped-too"))
        attempt(os.rename, path, aside)
        attempt(seed.choice(kinds), path)
        time.sleep(seed.random() ** 3 * 0.001)
        if seed.random() < 0.8:  # and back
            attempt(os.rename, path, gone)
            attempt(os.rename, aside, path)
        time.sleep(seed.random() ** 3 * 0.002)
""")


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that other users can reach, as that of pytest is not."""
    path = Path(tempfile.mkdtemp(prefix="execnet-neighbours-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def outside(common: Path) -> Path:
    """What must neither be changed nor read, with the names of what RSync works on."""
    path = common / "outside"
    for name in ("sub/deep", "doomed"):
        (path / name).mkdir(parents=True)
    for name in ("file", "sub/file", "sub/deep/file", "doomed/file"):
        (path / name).write_bytes(SECRET)
        (path / name).chmod(0o600)
        os.utime(path / name, (7, 7))
    return path


def look(directory: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [directory, *directory.rglob("*")]:
        seen = path.lstat()
        found[str(path)] = (seen.st_mode, seen.st_ino, seen.st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return found


@contextlib.contextmanager
def neighbour(place: Path, outside: Path, names: tuple[str, ...]) -> Iterator[None]:
    """Another user where we may become one, else another process."""
    command = [sys.executable, "-I", "-S", "-c", NEIGHBOUR, str(soak_seed()), str(place), str(outside), *names]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


class Quiet(execnet.RSync):
    def __init__(self, source: Path) -> None:
        self.unreadable: list[str] = []
        super().__init__(source, verbose=False)

    def filter(self, path: str) -> bool:
        """Not what the neighbour puts there, as far as it is seen."""
        try:
            return "swapped-" not in path and not stat.S_ISFIFO(os.lstat(path).st_mode)
        except OSError:
            return True

    def _report_unreadable(self, path: str) -> None:
        self.unreadable.append(path)


def fill(source: Path) -> None:
    for name in ("sub/deep", "more"):
        (source / name).mkdir(parents=True)
    for name in ("file", "sub/file", "sub/deep/file", "more/file"):
        (source / name).write_bytes(b"x" * 100)
    for number in range(20):
        (source / "sub" / f"f{number}").write_bytes(b"%d" % number)
    (source / "link").symlink_to("file")
    for path in (source, source / "sub", source / "sub" / "deep"):
        path.chmod(0o777)


# --- Neighbours -------------------------------------------------------------------------------------


@soaks
@pytest.mark.parametrize("spec", KINDS, ids=["native", "pure"])
def test_whoever_swaps_things_at_the_destination_nothing_outside_is_touched(
    spec: str, group: execnet.Group, common: Path, outside: Path
) -> None:
    source, target = common / "source", common / "target"
    fill(source)
    target.mkdir()
    target.chmod(0o777)
    gateway = group.makegateway(spec)
    before = look(outside)
    ends = []
    with neighbour(target, outside, ("file", "sub", "link", "doomed", "more")):
        for number in range(ROUNDS):
            for name in ("file", "sub/file", "sub/f3"):
                os.utime(source / name, (number + 5, number + 5))
            sync = Quiet(source)
            sync.add_target(gateway, target, delete=True)
            try:
                sync.send(timeout=60)
                ends.append("done")
            except execnet.RemoteError as error:
                ends.append(str(error).splitlines()[-1].split(":")[0].split(".")[-1])
            assert look(outside) == before, ends
    assert set(ends) <= {
        "done",
        "Refused",
        *("FileExistsError", "FileNotFoundError", "IsADirectoryError", "NotADirectoryError", "OSError"),
        "PermissionError",
    }
    print(f"soak: RSync into a directory that another user swaps: {ROUNDS} rounds,", {e: ends.count(e) for e in ends})


@soaks
def test_whoever_swaps_things_in_the_source_nothing_from_outside_is_sent(
    group: execnet.Group, common: Path, outside: Path
) -> None:
    source, target = common / "source", common / "target"
    gateway = group.makegateway("popen")
    ends = []
    for _ in range(max(1, ROUNDS // 5)):
        fill(source)
        with neighbour(source, outside, ("file", "sub", "link")):
            for _ in range(5):
                sync = Quiet(source)
                sync.add_target(gateway, target, delete=True)
                try:
                    sync.send(timeout=60)
                    ends.append("done")
                except (ValueError, execnet.RemoteError) as error:  # a FIFO was seen
                    ends.append(type(error).__name__)
                except RuntimeError as error:
                    ends.append("unsteady" if "again and again" in str(error) else str(error))
                copied = [path for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
                assert [path for path in copied if path.read_bytes() == SECRET] == []
        shutil.rmtree(source)
    print(
        f"soak: RSync from a directory that another user swaps: {len(ends)} rounds,", {e: ends.count(e) for e in ends}
    )


def test_a_directory_of_the_source_that_becomes_a_link_is_not_followed(
    gateway: execnet.Gateway, common: Path, outside: Path
) -> None:
    source, target = common / "source", common / "target"
    fill(source)

    class Swapping(Quiet):
        swapped = False

        def filter(self, path: str) -> bool:
            if path.endswith("/more/file") and not self.swapped:  # "sub" is listed already, "sub/deep" is not
                self.swapped = True
                (source / "sub").rename(source / "swapped-sub")
                (source / "sub").symlink_to(outside)
            return super().filter(path)

    sync = Swapping(source)
    sync.add_target(gateway, target)
    sync.send(timeout=60)
    assert sync.swapped
    assert [path for path in target.rglob("*") if path.is_file() and path.read_bytes() == SECRET] == []


def test_what_becomes_a_fifo_in_the_source_is_not_waited_for(gateway: execnet.Gateway, common: Path) -> None:
    source, target = common / "source", common / "target"
    fill(source)

    class Swapping(Quiet):
        pass

    def note(kind: str, size: int, channel: execnet.Channel) -> None:
        if kind == "list":
            (source / "file").unlink()
            os.mkfifo(source / "file")

    sync = execnet.RSync(source, callback=note, verbose=False)
    sync.add_target(gateway, target)
    sync.send(timeout=60)
    assert not (target / "file").exists()
    assert (target / "sub" / "file").exists()


# --- What cannot be read ----------------------------------------------------------------------------


def run_as_owner(program: str) -> subprocess.CompletedProcess[str]:
    """By somebody who owns the files, and may read no others: root without its privileges, if we are root."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-sys_ptrace", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.timeout(120)
def test_what_cannot_be_read_is_left_out_and_that_is_said(common: Path) -> None:
    source, target = common / "source", common / "target"
    for name in ("open", "locked", "listed"):
        (source / name).mkdir(parents=True)
        (source / name / "file").write_bytes(b"x")
    (source / "secret").write_bytes(b"x")
    for name in ("locked/kept", "secret", "listed/kept", "open/other"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(b"old")
    (common / "locked").mkdir()
    (common / "locked").chmod(0o555)
    (source / "secret").chmod(0)
    (source / "locked").chmod(0)
    (source / "listed").chmod(0o444)  # only the names
    done = run_as_owner(f"""
        import execnet
        gateway = execnet.makegateway("popen")
        for again in range(2):
            sync = execnet.RSync({str(source)!r}, verbose=False)
            for name in ("target", "another", "locked/not possible"):
                sync.add_target(gateway, {str(common)!r} + "/" + name, delete=True)
            try:
                sync.send(timeout=80)
            except execnet.RemoteError as error:
                assert "PermissionError" in str(error), error
    """)
    said = "".join(
        f"RSync leaves out what it cannot read: {source / name}\n" for name in ("listed", "locked", "secret")
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said * 2)
    for path in (target / "locked", source / "locked", target / "listed", source / "listed"):
        path.chmod(0o755)
    assert (target / "open" / "file").read_bytes() == b"x"
    assert not (target / "open" / "other").exists()
    for name in ("locked/kept", "secret", "listed/kept"):
        assert (target / name).read_bytes() == b"old"
    assert (common / "another" / "open" / "file").read_bytes() == b"x"


@pytest.fixture
def unreadable_file() -> Path:
    """It can be opened, and each read(2) of it fails: the loopback device has no speed."""
    path = Path("/sys/class/net/lo/speed")
    try:
        path.read_bytes()
    except OSError as error:
        if error.errno == errno.EINVAL:
            return path
    pytest.skip(f"{path} is not there, or can be read")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("spec", KINDS, ids=["native", "pure"])
def test_a_file_that_fails_while_it_is_read_is_left_out(
    group: execnet.Group, tmp_path: Path, unreadable_file: Path, spec: str
) -> None:
    class Only(Quiet):
        def filter(self, path: str) -> bool:
            return path == str(unreadable_file)

    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "speed").write_bytes(b"old")
    gateway = group.makegateway(spec)
    sync = Only(unreadable_file.parent)
    for name in ("old", "new"):
        sync.add_target(gateway, tmp_path / name, delete=True)
    sync.send(timeout=80)
    assert sync.unreadable == [str(unreadable_file)]
    assert (tmp_path / "old" / "speed").read_bytes() == b"old"
    assert os.listdir(tmp_path / "new") == []
    single = Quiet(unreadable_file)
    single.add_target(gateway, tmp_path / "single")
    with pytest.raises(OSError, match="speed"):  # there is nothing else to send
        single.send(timeout=80)


@pytest.mark.timeout(120)
def test_a_link_that_cannot_be_read_is_left_out(common: Path) -> None:
    """The links of a process that others may not look into."""
    hiding = "import ctypes; ctypes.CDLL(None).prctl(4, 0); print(flush=True); input()"  # PR_SET_DUMPABLE
    (common / "target").mkdir()
    (common / "target" / "exe").write_bytes(b"old")
    with subprocess.Popen(
        [sys.executable, "-c", hiding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        source = f"/proc/{process.pid}"
        done = run_as_owner(f"""
            import execnet
            class Only(execnet.RSync):
                def filter(self, path):
                    return path.endswith("/exe")
            gateway = execnet.makegateway("popen")
            sync = Only({source!r}, verbose=False)
            sync.add_target(gateway, {str(common / "target")!r}, delete=True)
            sync.send(timeout=80)
        """)
        process.stdin.close()
    said = f"RSync leaves out what it cannot read: {source}/exe\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said)
    assert (common / "target" / "exe").read_bytes() == b"old"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("spec", KINDS, ids=["native", "pure"])
def test_directories_at_the_destination_that_their_owner_has_locked_are_worked_in(common: Path, spec: str) -> None:
    (common / "source" / "sub").mkdir(parents=True)
    (common / "source" / "sub" / "file").write_bytes(b"new")
    (common / "target" / "sub").mkdir(parents=True)
    (common / "target" / "doomed" / "deep").mkdir(parents=True)
    for path in ("sub", "doomed/deep", "doomed"):
        (common / "target" / path).chmod(0)
    done = run_as_owner(f"""
        import execnet
        sync = execnet.RSync({str(common / "source")!r}, verbose=False)
        sync.add_target(execnet.makegateway({spec!r}), {str(common / "target")!r}, delete=True)
        sync.send(timeout=80)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert (common / "target" / "sub" / "file").read_bytes() == b"new"
    assert not (common / "target" / "doomed").exists()


def test_set_id_bits_go_along_only_if_asked_for(gateway: execnet.Gateway, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "shared").mkdir(parents=True)
    (source / "program").write_bytes(b"x")
    (source / "program").chmod(0o6755)
    (source / "shared").chmod(0o3777)
    for options, modes in (({}, (0o755, 0o1777)), ({"set_ids": True}, (0o6755, 0o3777)), ({}, (0o755, 0o1777))):
        sync = Quiet(source)
        sync.add_target(gateway, target, **options)
        sync.send()
        found = [(target / name).stat().st_mode & 0o7777 for name in ("program", "shared")]
        assert tuple(found) == modes
        single = Quiet(source / "program")
        single.add_target(gateway, target / "alone", **options)
        single.send()
        assert (target / "alone").stat().st_mode & 0o7777 == modes[0]


# --- Targets that never finish ----------------------------------------------------------------------

AddHostile = Callable[[execnet.RSync, execnet.Gateway, str], None]


@pytest.fixture
def add_hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AddHostile:
    """Adds a target that runs other code than that of RSync."""

    def add(sync: execnet.RSync, gateway: execnet.Gateway, source: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(execnet._core, "start_rsync_target", lambda there: there.remote_exec(textwrap.dedent(source)))
            sync.add_target(gateway, tmp_path / "hostile")

    return add


READS_NOTHING = "import time\nwhile not channel.isclosed(): time.sleep(0.05)"
ANSWERS_NOTHING = "for _ in channel: pass"
NEVER_ENDS = """
    import time
    finished = False
    while not finished:
        operations = channel.receive()
        finished = operations[-1][0] == "finish"
        channel.send([])
    try:
        channel.receive()
    except EOFError:
        pass
"""


@pytest.mark.parametrize("source", [READS_NOTHING, ANSWERS_NOTHING, NEVER_ENDS], ids=["reads", "answers", "ends"])
def test_a_target_that_never_finishes_is_ended_in_time_and_named(
    group: execnet.Group, tmp_path: Path, add_hostile: AddHostile, source: str
) -> None:
    fill(tmp_path / "source")
    if source != NEVER_ENDS:
        (tmp_path / "source" / "big").write_bytes(os.urandom(20_000_000))
    good, bad = group.makegateway("popen//id=good"), group.makegateway("popen//id=bad")
    sync = Quiet(tmp_path / "source")
    finished = []
    sync.add_target(good, tmp_path / "target", finishedcallback=lambda: finished.append("good"))
    add_hostile(sync, bad, source)
    began = time.monotonic()
    with pytest.raises(execnet.TimeoutError, match=r"^1 of 2 targets of RSync did not finish in time.*: bad$"):
        sync.send(timeout=5)
    assert time.monotonic() - began < 30
    assert finished == ["good"]
    assert (tmp_path / "target" / "sub" / "file").read_bytes() == b"x" * 100
    for gateway in (good, bad):
        assert eventually(lambda gateway=gateway: gateway.remote_status().numexecuting == 0)
    assert bad.remote_exec("channel.send(1)").receive() == 1


# What it sends in answer to the first message; then it says nothing of what is asked.
RUBBISH = {
    "no list": "5",
    "no tuple": "[5]",
    "nothing in it": "[()]",
    "an unknown kind": "[('\\x1b[2J' * 100000, 1, False)]",
    "a number that is none": "[('want', 'a', False)]",
    "a number beyond the list": "[('want', 10**6, False)]",
    "a number that is too big": "[('want', 10**30, False)]",
    "a number below the list": "[('want', -1, False)]",
    "a directory": "[('want', 0, False)]",
    "the same file twice": "[('want', FILE, False), ('want', FILE, False)]",
    "the same file again and again": "[('want', FILE, False)] * 100000",
    "done before it was sent": "[('done', FILE)]",
    "hashes of what was not asked": "[('want', FILE, True), ('hashes', FILE, 1, b'')]",
}


@pytest.mark.parametrize("answer", RUBBISH.values(), ids=RUBBISH.keys())
@pytest.mark.parametrize("spec", KINDS, ids=["native", "pure"])
def test_a_target_that_answers_with_rubbish_is_ended_and_named(
    spec: str, group: execnet.Group, tmp_path: Path, add_hostile: AddHostile, answer: str
) -> None:
    fill(tmp_path / "source")
    names = sorted(os.listdir(tmp_path / "source"))
    sync = Quiet(tmp_path / "source")
    gateway = group.makegateway(f"{spec}//id=bad")
    add_hostile(
        sync, gateway, f"FILE = {1 + names.index('file')}\nchannel.receive()\nchannel.send({answer})\n{ANSWERS_NOTHING}"
    )
    with pytest.raises(
        execnet.DataFormatError, match=r"^bad does not answer as the receiving side of RSync does: "
    ) as raised:
        sync.send()
    assert len(str(raised.value)) < 300
    assert "\x1b" not in str(raised.value)
    assert eventually(lambda: gateway.remote_status().numexecuting == 0)


ASKS_FOR_EVER = {
    "a file that never comes": "channel.send([('want', FILE, False)])\nfor _ in channel: channel.send([])",
    "a file whose hashes never come": "channel.send([('want', FILE, True)])\nfor _ in channel: channel.send([])",
    "a file later": "channel.send([])\nfor _ in channel: channel.send([('want', FILE, False)])",
    "nothing, without end": "while True: channel.send([])",
    "the same file, without end": "while True: channel.send([('want', FILE, False)])",
}


@pytest.mark.parametrize("source", ASKS_FOR_EVER.values(), ids=ASKS_FOR_EVER.keys())
def test_a_target_that_asks_for_ever_is_ended_without_a_timeout(
    group: execnet.Group, tmp_path: Path, add_hostile: AddHostile, source: str
) -> None:
    fill(tmp_path / "source")
    names = sorted(os.listdir(tmp_path / "source"))
    sync = Quiet(tmp_path / "source")
    good, bad = group.makegateway("popen//id=good"), group.makegateway("popen//id=bad")
    finished = []
    sync.add_target(good, tmp_path / "target", finishedcallback=lambda: finished.append("good"))
    add_hostile(sync, bad, f"FILE = {1 + names.index('file')}\nchannel.receive()\n{source}")
    with pytest.raises(execnet.DataFormatError, match=r"^bad does not answer"):
        sync.send()
    assert finished == ["good"]
    assert eventually(lambda: bad.remote_status().numexecuting == 0)


@pytest.mark.parametrize("spec", KINDS, ids=["native", "pure"])
def test_a_target_that_stands_still_has_nothing_half_done_when_it_goes_on_after_the_timeout(
    spec: str, group: execnet.Group, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(30_000_000))
    gateway = group.makegateway(f"{spec}//id=still")
    pid = gateway._rinfo().pid

    class Stopping(Quiet):
        def _report_send_file(self, gateway: execnet.Gateway, modified_rel_path: str) -> None:
            stop(pid)

    sync = Stopping(source)
    sync.add_target(gateway, target)
    try:
        with pytest.raises(execnet.TimeoutError, match=r"^1 of 1 targets .*: still$"):
            sync.send(timeout=1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: gateway.remote_status().numexecuting == 0)
    assert os.listdir(target) == []
    again = Quiet(source)
    again.add_target(gateway, target)
    again.send(timeout=60)
    assert (target / "big").read_bytes() == (source / "big").read_bytes()


@pytest.mark.parametrize("timeout", [1e9, float("inf"), None, 60, 3e8])
def test_any_number_is_a_timeout(gateway: execnet.Gateway, tmp_path: Path, timeout: float | None) -> None:
    fill(tmp_path / "source")
    sync = Quiet(tmp_path / "source")
    sync.add_target(gateway, tmp_path / "target")
    sync.send(timeout=timeout)
    assert (tmp_path / "target" / "file").exists()


@pytest.mark.parametrize("timeout", [0, -1])
def test_without_any_time_all_targets_are_late(group: execnet.Group, tmp_path: Path, timeout: int) -> None:
    fill(tmp_path / "source")
    sync = Quiet(tmp_path / "source")
    for name in ("a", "b"):
        sync.add_target(group.makegateway(f"popen//id={name}"), tmp_path / name)
    with pytest.raises(execnet.TimeoutError, match=r"^2 of 2 targets of RSync .*: a, b$"):
        sync.send(timeout=timeout)
    for gateway in group:
        assert eventually(lambda gateway=gateway: gateway.remote_status().numexecuting == 0)
