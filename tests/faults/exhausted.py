"""`exhausted.py SIDE SCENARIO SPEC [STRIDE [CALL]]`: a program that lives a scenario again and again, and each time
another system call that asks for a resource fails, on one side: the first, and those STRIDE further on, until none is
left that could. With CALL, of the calls of that name. Prints what came of it.

It runs with tests/support/failing_calls.c preloaded. Each time it must be told by an error of a documented type that
names the cause, or not be hindered at all; then the same group must work on, and nothing may be left.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import itertools
import os
import queue
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import execnet
from belongings import Belongings, left_behind
from life import live

PATIENCE = 60.0  # seconds for one scenario; it takes a fraction of one
DOCUMENTED = (execnet.HostNotFound, execnet.GatewayGone, execnet.RemoteError, OSError, MemoryError)
CAUSES = (
    "Too many open files",
    "Resource temporarily unavailable",
    "Cannot allocate memory",
    "No space left on device",
    "can't start new thread",
    "no descriptors left",
    "MemoryError",
    "bad_alloc",
    "no memory",
)
CALLBACK = """
import _thread
done = _thread.allocate_lock()
done.acquire()
def called(item):
    channel.send(item)
    done.release()
other = channel.receive()
other.setcallback(called)
channel.send("listens")
done.acquire()
"""


def echo(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("channel.send(channel.receive())")
    with contextlib.suppress(execnet.GatewayGone, OSError):  # receive() tells the cause
        channel.send(41)
    assert channel.receive(timeout=PATIENCE) == 41
    channel.waitclose(timeout=PATIENCE)


def life(group: execnet.Group, spec: str) -> None:
    live(group, spec)


def second_task(group: execnet.Group, spec: str) -> None:
    gateway = group.makegateway(spec)
    first = gateway.remote_exec("channel.receive()")
    echo(gateway)
    echo(gateway)
    with contextlib.suppress(OSError):  # waitclose() tells the cause
        first.send(None)
    first.waitclose(timeout=PATIENCE)


def callbacks(group: execnet.Group, spec: str) -> None:
    """Of both ends."""
    gateway = group.makegateway(spec)
    channel, other = gateway.remote_exec(CALLBACK), gateway.newchannel()
    items: queue.Queue[object] = queue.Queue()
    channel.setcallback(items.put, endmarker="end")
    channel.send(other)
    came = [items.get(timeout=PATIENCE)]
    if came == ["listens"]:
        other.send(41)
        while came[-1] != "end":
            came.append(items.get(timeout=PATIENCE))
    channel.waitclose(timeout=PATIENCE)  # or it tells what has kept the items from coming
    assert came == ["listens", 41, "end"]


def proxy(group: execnet.Group, spec: str) -> None:
    host = group.makegateway(spec)
    echo(group.makegateway(f"{spec}//via={host.id}"))


def preload(group: execnet.Group, spec: str) -> None:
    for gateway in [group.makegateway(f"{spec}//preload=json") for _ in range(2)]:
        echo(gateway)


def installed(group: execnet.Group, spec: str) -> None:
    host = group.makegateway(spec)
    echo(group.makegateway(f"socket//installvia={host.id}"))


def window(group: execnet.Group, spec: str) -> None:
    gateway = group.makegateway(f"{spec}//window=64K")
    channel = gateway.remote_exec("for item in channel: pass")
    for _ in range(8):
        channel.send(b"x" * 30_000, timeout=PATIENCE)
    channel.close()


def queues(group: execnet.Group, spec: str) -> None:
    gateways = [group.makegateway(spec) for _ in range(2)]
    channels = execnet.MultiChannel([gateway.remote_exec("channel.send(1)") for gateway in gateways])
    received = channels.make_receive_queue(endmarker=None)
    taken = [received.get(timeout=PATIENCE) for _ in range(4)]
    channels.waitclose()
    assert sorted(str(item) for _, item in taken) == ["1", "1", "None", "None"]


def rsync(group: execnet.Group, spec: str) -> None:
    gateway = group.makegateway(spec)
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "source"), Path(directory, "target")
        (source / "within").mkdir(parents=True)
        (source / "within" / "file").write_text("here")
        sync = execnet.RSync(source)
        sync.add_target(gateway, target)
        sync.send()
        assert (target / "within" / "file").read_text() == "here"


def terminate(group: execnet.Group, spec: str) -> None:
    group.makegateway(spec).remote_exec("channel.receive()")
    group.terminate(timeout=5)


SCENARIOS: dict[str, Callable[[execnet.Group, str], None]] = {
    one.__name__: one
    for one in (life, second_task, callbacks, proxy, preload, installed, window, queues, rsync, terminate)
}


class Failing:
    """The library that makes calls fail, in this process or in those it starts, and the names of those that did."""

    def __init__(self, side: str, log: Path, call: str) -> None:
        self._library = ctypes.CDLL(None)
        self._side, self._log, self._call = side, log, call
        # Which, in the processes that are started: FIRST:COUNT:CALL.
        os.environ.pop("EXECNET_FAIL", None)

    def arm(self, number: int) -> None:
        self._log.write_bytes(b"")
        if self._side == "coordinator":
            self._library.fail_from(ctypes.c_long(number), ctypes.c_long(1), self._call.encode())
        else:
            os.environ["EXECNET_FAIL"] = f"{number}:1:{self._call}"

    def disarm(self) -> None:
        self._library.fail_no_more()
        os.environ.pop("EXECNET_FAIL", None)

    def failed(self) -> list[str]:
        return [line.split()[1] for line in self._log.read_text().splitlines()]


def names_a_cause(error: BaseException) -> bool:
    return any(cause in str(error) for cause in CAUSES)


class Wrong(Exception):
    """What came of a failing call is not as it should be."""


def live_once(failing: Failing, number: int, scenario: str, spec: str) -> tuple[list[str], BaseException | None]:
    """With the call of that number failing: which that was, in each process, and what the program was told."""
    before = Belongings.now(quick=True)
    group = execnet.Group()
    told: BaseException | None = None
    begin = time.monotonic()
    failing.arm(number)
    try:
        SCENARIOS[scenario](group, spec)
    except DOCUMENTED as error:
        told = error
    finally:
        failing.disarm()
    seconds, failed = time.monotonic() - begin, failing.failed()
    print(f"{' '.join(failed)}: {type(told).__name__}: {str(told)[-300:]!r} ({seconds:.2f} s)", flush=True)
    if seconds > PATIENCE / 2:
        raise Wrong(f"it was waited for, {seconds} s")
    if told is not None and not names_a_cause(told):
        raise Wrong(f"no cause is named: {type(told)}: {told}")
    for gateway in list(group):
        try:
            echo(gateway)
        except DOCUMENTED as error:  # gone; or it was forked, and is at the same call as the one before
            if not isinstance(error, execnet.GatewayGone) and not names_a_cause(error):
                raise
    echo(group.makegateway("popen"))
    group.terminate(timeout=5)
    described = None if told is None else type(told)(str(told))  # without what its traceback refers to
    del group, told
    with contextlib.suppress(UnboundLocalError):
        del gateway
    if left := left_behind(before):
        raise Wrong(f"left behind: {left}")
    return failed, described


def walk(side: str, scenario: str, spec: str, stride: int, call: str) -> None:
    failing = Failing(side, Path(os.environ["EXECNET_FAIL_LOG"]), call)
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    with execnet.Group() as group:  # what is imported and started once is there from here on
        echo(group.makegateway("popen"))
    walked = 0
    for number in itertools.count(1, stride):
        print(f"{number}: ", end="", flush=True)
        faulthandler.dump_traceback_later(3 * PATIENCE, exit=True)
        try:
            failed, told = live_once(failing, number, scenario, spec)
        except (Wrong, Exception) as error:
            wrong.append(f"{number}: {' '.join(failing.failed())}: {type(error).__name__}: {error}")
            print("WRONG", flush=True)
            continue
        if not failed:
            break
        walked += 1
        outcomes.update(f"{name}: {'unhindered' if told is None else type(told).__name__}" for name in failed)
    faulthandler.cancel_dump_traceback_later()
    print(f"walked {walked}: " + ", ".join(f"{what} {count}" for what, count in sorted(outcomes.items())))
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    more = sys.argv[4:]
    walk(*sys.argv[1:4], stride=int(more[0]) if more else 1, call=more[1] if len(more) > 1 else "")
