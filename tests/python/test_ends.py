"""A program, or a worker, ends while daemon threads of it are in calls of the library: as if they were not there.

Few ends here, each with all threads in one kind of call, and some with several kinds; 10,000 in `make soak`.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

import pytest

import ends
import execnet
from belongings import ends_gone
from kinds import KINDS

SEED = int(os.environ.get("EXECNET_SOAK_SEED", "1"))
AT_ONCE = 4  # programs, most of which wait
PATIENCE = 120  # seconds, for a program that takes one


def end_of(number: int, directory: str, calls: list[str]) -> tuple[int | None, str]:
    """The status of a program that ends so, None if it does not, and what it says."""
    program = subprocess.Popen(
        [sys.executable, ends.__file__, str(number), directory, *calls],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        said = program.communicate(timeout=PATIENCE)[1]
    except subprocess.TimeoutExpired:
        program.kill()
        return None, program.communicate()[1]
    return program.returncode, said


def check_ends(programs: list[list[str]]) -> None:
    begin = time.monotonic()
    numbers = range(SEED, SEED + len(programs))
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool, tempfile.TemporaryDirectory() as directory:
        results = list(pool.map(end_of, numbers, itertools.repeat(directory), programs))
    bad = [
        f"{' '.join(calls)}: status {status}: {said}"
        for calls, (status, said) in zip(programs, results, strict=True)
        if status != 0
    ]
    statuses = Counter(status for status, _ in results)
    print(f"soak: ends of programs: {len(programs)} runs, by status {dict(statuses)}; {time.monotonic() - begin:.1f} s")
    assert not bad, "\n".join(bad[:10])


@pytest.mark.timeout(600)
def test_a_program_ends_while_threads_are_in_any_one_call() -> None:
    check_ends([[call] for call in ends.CALLS])


@pytest.mark.timeout(20_000 if "EXECNET_SOAK_ENDS" in os.environ else 600)
def test_a_program_ends_while_threads_are_in_several_calls() -> None:
    chance = random.Random(SEED)
    count = int(os.environ.get("EXECNET_SOAK_ENDS", "6"))
    check_ends([chance.sample(ends.CALLS, 4) for _ in range(count)])


def test_threads_run_on_until_a_program_that_ends_slowly_has_ended() -> None:
    """What a C library does at exit takes a second, in which the interpreter is gone. Python 3.10 alone dies of it."""
    program = """
import ctypes, execnet, sys, threading

def busy():
    running.release()
    while True:
        pass

running = threading.Semaphore(0)
for _ in range(8):
    threading.Thread(target=busy, daemon=True).start()
    running.acquire()
libc = ctypes.CDLL(None)
libc.on_exit(libc.sleep, None)  # it sleeps for as many seconds as the status says
sys.exit(1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, ""), done


CLOSES_ALL_DESCRIPTORS = """
import execnet, os, sys

group = execnet.default_group if sys.argv[1] == "at exit" else execnet.Group()
for spec in sys.argv[2:]:
    group.makegateway(spec)
channels = group.remote_exec("import os; channel.send(os.getpid()); channel.receive()")
print(*[pid for _, pid in channels.receive_each(True)])
os.closerange(3, 256)
if sys.argv[1] == "terminate":
    group.terminate(timeout=1)
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["terminate", "at exit"])
def test_a_program_that_has_closed_all_descriptors_ends(kind: str, how: str) -> None:
    """Before that, every thread of the library sleeps: there is nothing left to wake it with but a signal."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSES_ALL_DESCRIPTORS, how, *KINDS[kind]], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert ends_gone([int(pid) for pid in done.stdout.split()])


# --- The worker's end ---

BUSY_WORKER = """
import threading, time

def again_and_again(call):
    while True:
        try:
            call()
        except Exception:
            time.sleep(0.001)

flooded, called = channel.receive(), channel.receive()
called.setcallback(lambda item: sum(range(100)), endmarker=None)
new = channel.gateway.newchannel()
for call in [
    lambda: new.receive(timeout=0.001),
    lambda: new.waitclose(timeout=0.001),
    lambda: channel.gateway.newchannel().receive(),
    lambda: flooded.send(b"x" * 100000),
    lambda: channel.gateway.newchannel().send([1, "two", {3: 4.0}]),
    lambda: (repr(channel), channel.isclosed(), channel.gateway.execmodel),
]:
    for _ in range(2):
        threading.Thread(target=again_and_again, args=(call,), daemon=True).start()
channel.send("busy")
"""

WORKERS = ["popen", "popen//preload=json", f"popen//python={shlex.quote(sys.executable)}"]


def make_busy(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec(BUSY_WORKER)
    flooded, called = gateway.newchannel(), gateway.newchannel()
    flooded.setcallback(lambda item: None)
    channel.send(flooded)
    channel.send(called)
    assert channel.receive(timeout=60) == "busy"
    for number in range(100):
        called.send(number)


@pytest.mark.parametrize("spec", WORKERS, ids=["native", "forked", "pure"])
def test_a_worker_ends_while_threads_of_its_are_in_calls(group: execnet.Group, spec: str) -> None:
    for _ in range(5):
        gateway = group.makegateway(spec)
        make_busy(gateway)
        gateway.exit()
        gateway.join(timeout=60)
        # Its stream ends first. What a busy machine takes longer than a second for is not waited for.
        with pytest.raises(execnet.GatewayGone, match=r"is gone: (exit status 0|it closed the connection);"):
            gateway.remote_exec("pass")


@pytest.mark.parametrize("spec", WORKERS, ids=["native", "forked", "pure"])
def test_a_worker_whose_coordinator_is_killed_ends_while_threads_of_its_are_in_calls(spec: str) -> None:
    # What a worker that is killed by SIGABRT says before is on its stderr, which is its coordinator's.
    source = f"import sys, test_ends, execnet\ntest_ends.make_busy(execnet.makegateway({spec!r}))\n"
    path = os.pathsep.join([os.path.dirname(__file__), os.path.dirname(ends.__file__), *sys.path])
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", source + "print('busy', flush=True); sys.stdin.readline()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        ) as coordinator:
            assert coordinator.stdout is not None
            assert coordinator.stdout.readline() == b"busy\n"
            coordinator.send_signal(signal.SIGKILL)
            said = coordinator.communicate(timeout=60)[1]  # of debug builds what the threads still refer to
            assert b"terminate called" not in said
            assert b"Fatal" not in said
