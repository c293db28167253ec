"""Bytes of a hostile peer, for everything that reads bytes in Python: `loads`, and both workers.

The long form is `make soak`; what reads in C++ is tested by tests/cpp/hostile_test.cpp.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_client import SOURCE, WORKER_FILE

import execnet
import vectors
from belongings import ends_gone
from mutations import (
    CLOSE,
    CLOSE_ERROR,
    DATA,
    EXEC,
    HELLO,
    LAST,
    RECONFIGURE,
    FrameMutator,
    Mutator,
    peak_megabytes,
    soak_inputs,
    soak_seed,
)

MOST_MEGABYTES = 64  # resident, above what the test began with
DUMPS = [vector.data for vector in vectors.values()] + [case.data for case in vectors.malformed()]
PAYLOADS = [vector.data[1:] for vector in vectors.values()]
HELLO_OF_A_COORDINATOR = {
    "protocol": 1,
    "id": "gw0",
    "execmodel": "thread",
    "chdir": None,
    "nice": None,
    "env": {},
    "dont_write_bytecode": False,
    "stdin": "inherit",
    "stdout": "inherit",
    "stderr": "inherit",
    "grace": 1000,
    "detached": "kill",
    "window": None,
    "deflate": False,
    "debug": 0,
}

soaks = pytest.mark.timeout(3000 if "EXECNET_SOAK_INPUTS" in os.environ else 300)


@pytest.fixture(scope="module")
def worker() -> dict[str, Any]:
    """The names of the pure worker, executed as in a worker."""
    names: dict[str, Any] = {"__name__": "execnet_worker"}
    exec(compile(SOURCE, "worker.py", "exec"), names)
    return names


class Figures:
    """Measures a test: prints a line that `make soak` collects, and checks that memory stayed within bounds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._peak = peak_megabytes()
        self._begin = time.monotonic()

    def report(self, inputs: int, outcome: str) -> None:
        seconds, peak = time.monotonic() - self._begin, peak_megabytes()
        figures = f"{seconds:.1f} s, peak memory {peak:.0f} MB (+{peak - self._peak:.0f})"
        print(f"soak: {self._what}: {inputs} inputs, {outcome}; {figures}")
        if "EXECNET_TEST_SANITIZER" not in os.environ:
            assert peak - self._peak < MOST_MEGABYTES


def feed(what: str, load: Callable[[bytes], object], error: type[Exception]) -> None:
    """Gives mutated dumps to a function, which must load them or raise that error and no other."""
    inputs, values = soak_inputs(20_000), 0
    mutator = Mutator(soak_seed())
    figures = Figures(what)
    for mutant in mutator.mutants(DUMPS, inputs):
        try:
            load(mutant)
        except error:
            continue
        except Exception as unexpected:
            pytest.fail(f"{unexpected!r} for {mutant.hex()}")
        values += 1
    figures.report(inputs, f"{values} values, the others LoadErrors")
    assert inputs / 100 < values < inputs * 0.9


@soaks
def test_mutated_bytes_end_loads_in_a_load_error_or_a_value() -> None:
    feed("loads, Python", execnet.loads, execnet.LoadError)


@soaks
def test_mutated_bytes_end_load_from_a_file_in_a_load_error_or_a_value() -> None:
    feed("load from a file, Python", lambda data: execnet.load(io.BytesIO(data)), execnet.LoadError)


@soaks
def test_mutated_bytes_end_the_load_of_the_pure_worker_in_a_load_error_or_a_value(worker: dict[str, Any]) -> None:
    load = worker["load"]
    feed("load, pure worker", lambda data: load(data[1:], lambda number: ("channel", number)), worker["LoadError"])


@soaks
def test_both_loaders_make_the_same_of_mutated_bytes(worker: dict[str, Any]) -> None:
    """Both readers have short cuts for frequent items, and they differ."""

    def refuse_channels(number: int) -> None:
        raise worker["LoadError"]("a channel outside of a connection")

    def outcome(load: Callable[[bytes], object], error: type[Exception], data: bytes) -> str:
        try:
            return repr(load(data))  # by which NaNs can be compared, too
        except error:
            return "refused"

    inputs, values = soak_inputs(20_000), 0
    for mutant in Mutator(soak_seed()).mutants(DUMPS, inputs):
        here = outcome(execnet.loads, execnet.LoadError, mutant)
        if mutant[:1] == execnet.dumps(None)[:1]:  # the version, which the other one does not see
            there = outcome(lambda data: worker["load"](data[1:], refuse_channels, False), worker["LoadError"], mutant)
            if "{" not in here + there:  # in sets the order may differ
                assert here == there, mutant.hex()
            else:
                assert (here == "refused") == (there == "refused"), mutant.hex()
        values += here != "refused"
    assert inputs / 100 < values < inputs * 0.9


@soaks
def test_mutated_frames_end_the_reading_of_the_pure_worker_or_are_taken_in(worker: dict[str, Any]) -> None:
    inputs, taken, refused = soak_inputs(5_000), 0, 0
    frames = FrameMutator(soak_seed(), PAYLOADS, worker["dump"])
    refusals = (worker["ProtocolError"], worker["LoadError"])
    figures = Figures("frames to a pure worker's connection")
    with open(os.devnull, "r+b", buffering=0) as null:
        while taken < inputs:
            connection = worker["Connection"](null, null.fileno())
            handlers = {
                DATA: connection.on_data,
                CLOSE: lambda number, _, close=connection.on_close: close(number),
                CLOSE_ERROR: connection.on_close,
                LAST: connection.on_last,
                RECONFIGURE: connection.on_reconfigure,
            }
            try:
                # Ends with the connection; a stream that is cut leaves nothing for the next.
                while taken < inputs:
                    taken += 1
                    for kind, number, payload in worker["read_messages"](io.BytesIO(frames.stream())):
                        if kind in handlers:
                            handlers[kind](number, payload)
            except refusals:
                refused += 1
            connection.finish()
            connection._out.close()
    figures.report(taken, f"{refused} connections refused")
    assert refused > taken / 200


def serve_pure() -> str:
    return (
        f"import os; i = os.fdopen(3, 'rb'); g = {{'__name__': 'execnet_worker'}}; "
        f"exec(compile(open({str(WORKER_FILE)!r}).read(), 'worker.py', 'exec'), g); g['serve'](i, 3, 4)"
    )


def serve_native() -> str:
    return "import execnet._core; execnet._core.serve(3, 4)"


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))


@soaks
@pytest.mark.parametrize("source", [serve_pure(), serve_native()], ids=["pure", "native"])
def test_mutated_frames_end_a_worker_process_in_order(worker: dict[str, Any], source: str, request: Any) -> None:
    inputs, refused = soak_inputs(10), 0
    frames = FrameMutator(soak_seed(), PAYLOADS, worker["dump"])
    figures = Figures(f"streams to a {request.node.callspec.id} worker's process")
    sanitized = "EXECNET_TEST_SANITIZER" in os.environ
    for _ in range(inputs):
        stream = frames.frame(HELLO, 0, worker["dump"](HELLO_OF_A_COORDINATOR))
        stream += b"".join([frames.stream() for _ in range(10)])
        here, there = socket.socketpair()
        with here, tempfile.TemporaryFile() as said:
            with there:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", 'exec "$0" -c "$1" 3<&0 4>&2 0</dev/null', sys.executable, source],
                    stdin=there,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    preexec_fn=None if sanitized else limit_memory,
                )
            try:
                here.settimeout(30)
                here.sendall(stream)
                here.shutdown(socket.SHUT_WR)
                while here.recv(1 << 16):
                    pass
            except ConnectionError:  # it had enough before it had read all
                pass
            finally:
                try:
                    status = process.wait(30)
                finally:
                    process.kill()
            said.seek(0)
            text = said.read().decode()
            # It sends itself SIGINT if its end takes too long, as it may on a busy machine.
            assert status in (0, 1, -signal.SIGINT), (status, text, stream.hex())
            assert "Traceback" not in text or status == -signal.SIGINT, (text, stream.hex())
            refused += "execnet worker" in text
    figures.report(inputs, f"{refused} refused")
    assert refused > inputs / 10


# --- What is no item ------------------------------------------------------------------------------


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    return struct.pack("<BBHIII", kind, 0, 0, channel, len(payload), 0) + payload


def answers(source: str, frames: bytes) -> tuple[list[tuple[int, int, bytes]], str]:
    """The frames with which a worker answers, after HELLO, until it closes channel 1 or ends, and its stderr."""
    here, there = socket.socketpair()
    with here, tempfile.TemporaryFile() as said:
        with there:
            process = subprocess.Popen(
                ["/bin/sh", "-c", 'exec "$0" -c "$1" 3<&0 4>&2 0</dev/null', sys.executable, source],
                stdin=there,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
        got = []
        try:
            here.settimeout(60)
            here.sendall(frames)
            with here.makefile("rb") as stream, contextlib.suppress(ConnectionError):
                stream.read(8)
                while header := stream.read(16):
                    kind, _, _, channel, length, _ = struct.unpack("<BBHIII", header)
                    got.append((kind, channel, stream.read(length)))
                    if channel == 1 and kind in (CLOSE, CLOSE_ERROR):
                        here.shutdown(socket.SHUT_WR)  # not before: it gives the code little time to end
            process.wait(60)
        finally:
            process.kill()
        said.seek(0)
        return got[1:], said.read().decode()


WINDOW = 12
ITEM = execnet.dumps("item")[1:]


@pytest.mark.parametrize("source", [serve_pure(), serve_native()], ids=["pure", "native"])
@pytest.mark.parametrize("rest", [b"x", b"L", b"Q", ITEM])
@pytest.mark.parametrize("which", ["DATA", "EXEC", "CLOSE_ERROR", "RECONFIGURE", "WINDOW", "HELLO"])
def test_a_worker_takes_nothing_that_more_bytes_follow(source: str, which: str, rest: bytes) -> None:
    dump = lambda value: execnet.dumps(value)[1:]  # noqa: E731
    code = """
try:
    channel.send(channel.receive(30))
except Exception:
    channel.send("refused")
"""
    payloads = {
        "HELLO": dump(HELLO_OF_A_COORDINATOR),
        "RECONFIGURE": dump((True, False)),
        "WINDOW": dump(1000),
        "EXEC": dump((code, None, 1, None, {})),
        "DATA": ITEM,
        "CLOSE_ERROR": dump("error"),
    }
    payloads[which] += rest
    kinds = {"HELLO": HELLO, "RECONFIGURE": RECONFIGURE, "WINDOW": WINDOW, "EXEC": EXEC, "DATA": DATA}
    frames = b""
    for name in ("HELLO", "RECONFIGURE", "EXEC", "WINDOW", "CLOSE_ERROR" if which == "CLOSE_ERROR" else "DATA"):
        number = 0 if name in ("HELLO", "RECONFIGURE") else 1
        frames += frame(kinds.get(name, CLOSE_ERROR), number, payloads[name])
    got, said = answers(source, frames)
    assert (DATA, 1, ITEM) not in got
    assert "after the end" in said or any(b"refused" in payload or b"after the end" in payload for _, _, payload in got)


@pytest.mark.parametrize("source", [serve_pure(), serve_native()], ids=["pure", "native"])
def test_a_worker_takes_no_reference_to_channel_0(source: str) -> None:
    code = """
try:
    channel.send(str(channel.receive(30)))
except channel.LoadError if hasattr(channel, "LoadError") else Exception as error:
    channel.send("%s: %s" % (type(error).__name__, error))
"""
    dump = lambda value: execnet.dumps(value)[1:]  # noqa: E731
    frames = frame(HELLO, 0, dump(HELLO_OF_A_COORDINATOR)) + frame(EXEC, 1, dump((code, None, 1, None, {})))
    got, said = answers(source, frames + frame(DATA, 1, b"B\0\0\0\0Q"))
    told = said + "".join(payload.decode(errors="replace") for _, _, payload in got)
    assert "bad channel id 0 at byte 0" in told
    assert "RuntimeError" not in told


@pytest.fixture
def answering(tmp_path: Path) -> Callable[[bytes], str]:
    """The specification of a program that answers the first EXEC with these bytes, and waits."""

    def make(frames: bytes) -> str:
        said = {"protocol": 1, "implementation": "pure", "executable": "", "version_info": (3, 11, 0, "final", 0)}
        said |= {"platform": "linux", "cwd": "/", "pid": 1, "features": []}
        hello = b"EXECNET\x01" + frame(HELLO, 0, execnet.dumps(said)[1:])
        program = tmp_path / "fake_worker"
        program.write_text(
            f"#!{sys.executable}\nimport os\nos.write(3, {hello!r})\n"
            f"while b'<the source>' not in os.read(3, 1 << 20): pass\nos.write(3, {frames!r})\n"
            "while os.read(3, 65536): pass\n"
        )
        program.chmod(0o755)
        return f"popen//python={program}"

    return make


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (ITEM + b"x", "1 bytes after the end"),
        (ITEM + ITEM, "after the end"),
        (execnet.dumps(b"x" * 100_000)[1:] + b"Q", "after the end"),
        (b"B\0\0\0\0Q", "bad channel id 0"),
    ],
)
def test_a_coordinator_takes_no_item_that_is_none(
    group: execnet.Group, answering: Callable[[bytes], str], payload: bytes, why: str, views: bool
) -> None:
    channel = group.makegateway(answering(frame(DATA, 1, payload))).remote_exec("# <the source>")
    with pytest.raises(execnet.LoadError, match=why):
        channel.receive(timeout=30, views=views)


def test_a_callback_is_given_no_item_that_is_none(group: execnet.Group, answering: Callable[[bytes], str]) -> None:
    given: list[object] = []
    channel = group.makegateway(answering(frame(DATA, 1, ITEM + b"x"))).remote_exec("# <the source>")
    channel.setcallback(given.append)
    with pytest.raises(execnet.RemoteError, match="after the end"):
        channel.waitclose(timeout=30)
    assert given == []


# --- Processes that a worker names ----------------------------------------------------------------

PURE = f"popen//python={shlex.quote(sys.executable)}"


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's business."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        assert process.poll() is None, "it was killed"
        process.kill()


@pytest.fixture
def lies(bystander: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Numbers that a hostile worker may name in place of its own child's."""
    others = execnet.Group(["popen"])
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    sibling = others[0]._rinfo().pid
    yield [bystander.pid, 1, os.getpid(), 0, -1, 2**31 - 1, thread.native_id or 0, sibling, os.getppid()]
    assert others[0].remote_exec("channel.send(1)").receive(timeout=30) == 1, "it was killed"
    stop.set()
    thread.join()
    others.terminate(timeout=5)


LYING_POPEN = """
import subprocess
subprocess.TruePopen = getattr(subprocess, "TruePopen", subprocess.Popen)
class Liar(object):
    def __init__(self, *args, **kwargs):
        self.true = subprocess.TruePopen(*args, **kwargs)
        self.pid, self.wait = {lie}, self.true.wait
subprocess.Popen = Liar
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("host", ["popen", PURE])
def test_a_host_cannot_have_another_process_killed(group: execnet.Group, host: str, lies: list[int]) -> None:
    group.makegateway(f"{host}//id=host")
    for lie in [*lies, 2**40, "'1'"]:
        code = LYING_POPEN.format(lie=lie)
        group["host"].remote_exec(code).waitclose(timeout=30)
        try:
            gateway = group.makegateway("socket//installvia=host")
        except execnet.HostNotFound:
            continue  # it is no number of a process
        pid = gateway.remote_exec("import os; channel.send(os.getpid())").receive(timeout=30)
        with pytest.raises(execnet.HostNotFound):
            group.makegateway("socket//installvia=host//chdir=/proc/none")  # kills what has not started
        gateway.exit()
        assert ends_gone([pid])
    group.terminate(timeout=0.5)


LYING_FORK = """
import os
real_fork = os.fork
os.fork = lambda: real_fork() and {lie}
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["here", "via native", "via pure"])
def test_a_fork_server_cannot_have_another_process_killed(
    group: execnet.Group, way: str, lies: list[int], tmp_path: Path
) -> None:
    python = f"python={shlex.quote(sys.executable)}"  # its fork server forks in Python
    if way != "here":
        group.makegateway({"via native": "popen", "via pure": PURE}[way] + "//id=proxy")
    via = "" if way == "here" else "//via=proxy"
    for number, lie in enumerate(filter(None, lies)):  # with 0 it would be the worker itself
        (tmp_path / f"liar{number}.py").write_text(LYING_FORK.format(lie=lie))
        spec = f"popen//{python}//env:PYTHONPATH={tmp_path}//preload=liar{number}{via}"
        with pytest.raises((execnet.HostNotFound, execnet.GatewayGone)) as caught:
            group.makegateway(spec).newchannel().receive(timeout=30)  # its worker may be quicker than the lie
        assert lie != lies[0] or f"its fork server has named process {lie}" in str(caught.value)
    group.terminate(timeout=0.5)


# --- Neighbours that connect without end ----------------------------------------------------------

# Keeps some connections open, closes the oldest, and takes no notice of what becomes of any.
NEIGHBOUR = """
import collections, itertools, socket, struct, sys
address = "127.0.0.1", int(sys.stdin.readline())
latest = collections.deque(maxlen=200)
for words in itertools.cycle((b"", b"x", b"x" * 32, b"x" * 100)):
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        if connection.connect_ex(address) == 0 and words:
            connection.send(words)
    except OSError:
        pass
    latest.append(connection)
"""
# What the host does between listening and saying so takes that long: the neighbours are there before the coordinator.
SLOW_READLINK = """
import os, time
def readlink(path, real=os.readlink):
    time.sleep(0.5)
    return real(path)
os.readlink = readlink
"""


@pytest.fixture
def neighbours() -> Iterator[list[subprocess.Popen[bytes]]]:
    """They wait for a port, and connect to it as often as they can."""
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(16):
            neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR], stdin=subprocess.PIPE)
            stack.enter_context(neighbour)
            stack.callback(neighbour.kill)
            started.append(neighbour)
        yield started


@pytest.mark.timeout(120)
@pytest.mark.parametrize("host", ["popen", PURE])
def test_neighbours_who_connect_without_end_do_not_hold_up_a_start(
    group: execnet.Group, host: str, neighbours: list[subprocess.Popen[bytes]]
) -> None:
    """They find the port as any user of this machine can."""
    gateway = group.makegateway(f"{host}//id=host")
    gateway.remote_exec(SLOW_READLINK).waitclose(timeout=30)
    pid = gateway._rinfo().pid
    before = set(listening_ports(pid))
    met = []

    def show_the_port() -> None:
        while not (ports := set(listening_ports(pid)) - before):
            time.sleep(0.001)
        for neighbour in neighbours:
            assert neighbour.stdin is not None
            neighbour.stdin.write(b"%d\n" % min(ports))
            neighbour.stdin.flush()
        met.extend(ports)

    thread = threading.Thread(target=show_the_port)
    thread.start()
    begin = time.monotonic()
    there = group.makegateway("socket//installvia=host")
    took = time.monotonic() - begin
    thread.join()
    assert met
    assert there.remote_exec("channel.send(1)").receive(timeout=30) == 1
    assert took < 10, "its deadline is after 30 s"
    print(f"under attack it took {took:.2f} s")


def listening_ports(pid: int) -> list[int]:
    inodes = set()
    try:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(fd)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return []  # it has just been closed
    fields = [line.split() for line in lines]
    return [int(one[1].rpartition(":")[2], 16) for one in fields if one[3] == "0A" and one[9] in inodes]
