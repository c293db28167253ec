"""Times and sizes that users notice, for whichever `execnet` this interpreter imports; JSON on stdout.

    python measure.py PART...

Run by bench/run.py, for this execnet and for the released one, several times in turn. Figures are seconds, for the work
that the name says, or bytes.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from work import BIG, GATEWAYS, MANY, MESSAGES, PURE, SSH, VALUES, best, timed

import execnet

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from sshd import PrivateSshd

PURE_SPEC = f"popen//python={shlex.quote(sys.executable)}"
HERE = int(execnet.__version__.split(".")[0]) >= 3  # the released one is older

ECHO = """
while True:
    item = channel.receive()
    if item is None:
        break
    channel.send(item)
"""
SINK = """
count = 0
while channel.receive() is not None:
    count += 1
channel.send(count)
"""
SOURCE = """
for item in range(channel.receive()):
    channel.send(item)
"""
SOURCE_AGAIN = """
for count in channel:
    for item in range(count):
        channel.send(item)
"""
BIG_SINK = """
for item in channel:
    channel.send(len(item))
"""
BIG_SOURCE = """
data = b"x" * channel.receive()
for _ in channel:
    channel.send(data)
"""


def start_and_terminate(spec: str, count: int, name: str = "") -> dict[str, float]:
    """Starts a group and ends it. The start includes an answer from each member."""
    name = f"{count} {name or spec}"
    groups: list[execnet.Group] = []

    def start() -> None:
        group = execnet.Group([spec] * count)
        groups.append(group)
        for gateway in group:
            gateway.remote_status()

    return {
        f"start {name}": timed(start),
        f"terminate {name}": timed(lambda: groups[0].terminate(timeout=10)),
    }


def start_over_ssh(name: str, more: str = "") -> dict[str, float]:
    """To a server with its stock settings, which takes so many logins at a time."""
    with PrivateSshd(startups="10:30:100") as server, server.in_front():
        # With the name of the interpreter, which the released one does not look for.
        figures = start_and_terminate(f"ssh=localhost//python=python3{more}", SSH, name)
    return {figure: seconds for figure, seconds in figures.items() if figure.startswith("start")}


def terminate_after_work(spec: str, count: int) -> dict[str, float]:
    """Ends members that have all run something, which takes longer."""
    group = execnet.Group([spec] * count)
    assert group.remote_exec("channel.send(1)").receive_each() == [1] * count
    return {f"terminate {count} {spec}, after work": timed(lambda: group.terminate(timeout=10))}


def echo(spec: str, beside: bool = False) -> float:
    """`beside`: another channel of the gateway has a callback that is never called."""
    group = execnet.Group([spec])
    channel = group[0].remote_exec(ECHO)
    if beside:
        group[0].remote_exec("channel.receive()").setcallback(print)
    count = MESSAGES // 4

    def talk() -> None:
        for item in range(count):
            channel.send(item)
            channel.receive()

    seconds = best(talk, 5) / count
    group.terminate(timeout=10)
    return seconds


def execute(beside: bool = False) -> float:
    """`beside`: the worker already runs something else."""
    group = execnet.Group(["popen"])
    if beside:
        other = group[0].remote_exec("channel.send(1); channel.receive()")
        other.receive()
    count = MESSAGES // 20

    def work() -> None:
        for _ in range(count):
            group[0].remote_exec("channel.send(1)").receive()

    seconds = best(work, 4) / count
    group.terminate(timeout=10)
    return seconds


def one_way() -> dict[str, float]:
    group = execnet.Group(["popen"])
    gateway = group[0]

    def send_all() -> None:
        sink = gateway.remote_exec(SINK)
        for item in range(MESSAGES):
            sink.send(item)
        sink.send(None)
        assert sink.receive() == MESSAGES

    def receive_all() -> None:
        source = gateway.remote_exec(SOURCE)
        source.send(MESSAGES)
        for item in range(MESSAGES):
            assert source.receive() == item

    called = gateway.remote_exec(SOURCE_AGAIN)
    done = threading.Event()
    called.setcallback(lambda item: done.set() if item == MESSAGES - 1 else None)

    def be_called() -> None:
        done.clear()
        called.send(MESSAGES)
        assert done.wait(60)

    figures = {
        "a small message, to the worker": best(send_all, 4) / MESSAGES,
        "a small message, from the worker": best(receive_all, 4) / MESSAGES,
        "a small message, to a callback": best(be_called, 4) / MESSAGES,
    }
    group.terminate(timeout=10)
    return figures


def large() -> dict[str, float]:
    group = execnet.Group(["popen"])
    payload = b"x" * BIG
    sink = group[0].remote_exec(BIG_SINK)
    source = group[0].remote_exec(BIG_SOURCE)
    source.send(BIG)

    def send() -> None:
        sink.send(payload)
        assert sink.receive() == BIG

    def receive(**how: bool) -> None:
        source.send(None)
        assert len(source.receive(**how)) == BIG

    figures = {"64 MiB to the worker": best(send, 4), "64 MiB from the worker": best(receive, 4)}
    if HERE:
        figures["64 MiB from the worker, as a view"] = best(lambda: receive(views=True), 4)
    group.terminate(timeout=10)
    return figures


def serialize() -> dict[str, float]:
    figures = {}
    for name, item in VALUES.items():
        data = execnet.dumps(item)
        figures[f"dumps, {name}"] = best(lambda item=item: execnet.dumps(item), 5)
        figures[f"loads, {name}"] = best(lambda data=data: execnet.loads(data), 5)
    return figures


def bytes_of(pid: int | str, field: str) -> int:
    """As /proc/PID/smaps_rollup has it."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise LookupError(field)


def memory(spec: str, count: int) -> dict[str, float]:
    execnet.Group([spec]).terminate(timeout=10)  # what is there once
    before = bytes_of("self", "Rss")
    group = execnet.Group([spec] * count)
    channels = [gateway.remote_exec("import os; channel.send(os.getpid())") for gateway in group]
    pids = [channel.receive() for channel in channels]
    figures = {
        f"memory of an idle worker, {spec}": sum(bytes_of(pid, "Pss") for pid in pids) / count,
        f"memory of the coordinator for it, {spec}": (bytes_of("self", "Rss") - before) / count,
    }
    group.terminate(timeout=10)
    return figures


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    "start": lambda: start_and_terminate("popen", GATEWAYS),
    "work": lambda: terminate_after_work("popen", GATEWAYS),
    "preload": lambda: start_and_terminate("popen//preload", GATEWAYS),
    "preload work": lambda: terminate_after_work("popen//preload", GATEWAYS),
    "many": lambda: start_and_terminate("popen//preload", MANY),
    "echo": lambda: {
        "echo of a small int": echo("popen"),
        "echo of a small int, beside a callback": echo("popen", beside=True),
    },
    "sockets": lambda: {"echo of a small int, without rings": echo("popen")},
    "pure": lambda: {"echo, pure worker": echo(PURE_SPEC), **start_and_terminate(PURE_SPEC, PURE, "pure workers")},
    "execute": lambda: {
        "remote_exec + receive": execute(),
        "remote_exec + receive, beside a task": execute(beside=True),
    },
    "ssh": lambda: start_over_ssh("over ssh"),
    "ssh preload": lambda: start_over_ssh("over ssh, preload", "//preload"),
    "messages": one_way,
    "large": large,
    "serialize": serialize,
    "memory": lambda: memory("popen", 20),
    "preload memory": lambda: memory("popen//preload", GATEWAYS),
}


def main() -> None:
    figures = {}
    for part in sys.argv[1:]:
        figures.update(PARTS[part]())
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
