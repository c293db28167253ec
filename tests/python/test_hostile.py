"""Bytes of a hostile peer, for everything that reads bytes in Python: `loads`, and both workers.

The long form is `make soak`; what reads in C++ is tested by tests/cpp/hostile_test.cpp.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest
from worker_client import SOURCE, WORKER_FILE

import execnet
import vectors
from mutations import (
    CLOSE,
    CLOSE_ERROR,
    DATA,
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
    "stdout": "inherit",
    "window": None,
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
