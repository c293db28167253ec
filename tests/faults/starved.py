"""`starved.py RESOURCE SIDE WHAT SPEC`: a program that really has no more descriptors, or threads and processes, when
it does something that takes some; or its worker has none. Then there is enough again, and it does the same once more.

Prints what it was told, and "again" when all was well in the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import queue
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import execnet
from exhausted import CALLBACK, DOCUMENTED, PATIENCE, echo, names_a_cause

A_STRANGER = 65533
CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 21, 24  # with which RLIMIT_NPROC does not count
PR_CAPBSET_DROP = 24


def be_bounded() -> None:
    """Root is exempt from RLIMIT_NPROC: goes on as somebody who is not, but may read the same files."""
    if os.getuid() != 0:
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for capability in (CAP_SYS_ADMIN, CAP_SYS_RESOURCE):
        if prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    os.setresuid(A_STRANGER, 0, 0)
    os.execv(sys.executable, [sys.executable, *sys.argv])


# What a process does with itself, in code that runs at either end: the limit `name` is set to `wanted`, or, without
# that, to what there is already. `before` is what it was.
LIMIT = """
import os, resource
limit = getattr(resource, name)
before = resource.getrlimit(limit)
if wanted is None:
    lowest = os.dup(0)
    os.close(lowest)
    wanted = (lowest if name == "RLIMIT_NOFILE" else 1, before[1])
resource.setrlimit(limit, tuple(wanted))
"""
LIMIT_THERE = "name, wanted = channel.receive()\n" + LIMIT + "channel.send(before)"


class Starved:
    """A process has no more of something, as long as this lasts: this one, or that of a gateway."""

    def __init__(self, what: str, gateway: execnet.Gateway | None) -> None:
        self._gateway = gateway
        self._name = "RLIMIT_NOFILE" if what == "descriptors" else "RLIMIT_NPROC"

    def _set(self, wanted: object) -> object:
        if self._gateway is None:
            names = {"name": self._name, "wanted": wanted}
            exec(LIMIT, names)
            return names["before"]
        channel = self._gateway.remote_exec(LIMIT_THERE)
        channel.send((self._name, wanted))
        before = channel.receive(timeout=PATIENCE)
        channel.waitclose(timeout=PATIENCE)
        return before

    def __enter__(self) -> None:
        self._before = self._set(None)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(execnet.GatewayGone):
            self._set(self._before)


def setcallback(gateway: execnet.Gateway) -> None:
    items: queue.Queue[object] = queue.Queue()
    channel = gateway.remote_exec("channel.send(41)")
    channel.setcallback(items.put, endmarker=None)
    assert items.get(timeout=PATIENCE) == 41
    assert items.get(timeout=PATIENCE) is None


def make_receive_queue(gateway: execnet.Gateway) -> None:
    channels = execnet.MultiChannel([gateway.remote_exec("channel.send(41)")])
    assert channels.make_receive_queue().get(timeout=PATIENCE)[1] == 41


def makegateway(gateway: execnet.Gateway) -> None:
    echo(gateway._group.makegateway("popen"))


def second_task(gateway: execnet.Gateway) -> None:
    busy = gateway.remote_exec("channel.receive()")
    try:
        for _ in range(2):
            echo(gateway)
    finally:
        busy.send(None)
        busy.waitclose(timeout=PATIENCE)


def callback_there(gateway: execnet.Gateway) -> None:
    channel, other = gateway.remote_exec(CALLBACK), gateway.newchannel()
    channel.send(other)
    assert channel.receive(timeout=PATIENCE) == "listens"
    other.send(41)
    assert channel.receive(timeout=PATIENCE) == 41
    channel.waitclose(timeout=PATIENCE)


def rsync(gateway: execnet.Gateway) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "source").mkdir()
        (Path(directory) / "source" / "file").write_text("here")
        os.chmod(directory, 0o755)
        sync = execnet.RSync(Path(directory) / "source")
        sync.add_target(gateway, f"{directory}/target")
        sync.send()
        assert Path(directory, "target", "file").read_text() == "here"


def via(gateway: execnet.Gateway) -> None:
    echo(gateway._group.makegateway(f"popen//via={gateway.id}"))


WHATS: dict[str, Callable[[execnet.Gateway], None]] = {
    one.__name__: one
    for one in (echo, setcallback, make_receive_queue, makegateway, second_task, callback_there, rsync, via)
}


def main(what: str, side: str, call: str, spec: str) -> None:
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    group = execnet.Group()
    gateway = group.makegateway(spec)
    if side == "coordinator":
        echo(gateway)  # what is imported, and started once, is there
    tempfile.gettempdir()  # so is this
    told = None
    with Starved(what, None if side == "coordinator" else gateway):
        try:
            WHATS[call](gateway)
        except DOCUMENTED as error:
            told = error
    print(f"{type(told).__name__}: {told}", flush=True)
    if told is not None:
        assert names_a_cause(told), f"no cause is named: {told}"
    if not gateway.hasreceiver():
        gateway = group.makegateway(spec)
    WHATS[call](gateway)
    group.terminate(timeout=5)
    print("again")


if __name__ == "__main__":
    if sys.argv[1] == "threads" and os.getuid() == 0:
        be_bounded()
    main(*sys.argv[1:])
