"""What people feel, measured for whichever `execnet` this interpreter imports; JSON on stdout.

Run by bench/run.py, once for this execnet and once for the released one, several times in turn.
Every figure is in seconds, for the work that its name says.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import execnet

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
BIG_SINK = "channel.send(len(channel.receive()))"


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def start_and_terminate(count: int) -> dict[str, float]:
    group = execnet.Group()
    figures = {f"start {count} popen": timed(lambda: group.__init__(["popen"] * count))}  # type: ignore[misc]
    figures[f"terminate {count} popen"] = timed(lambda: group.terminate(timeout=10))
    return figures


def talk(count: int) -> dict[str, float]:
    group = execnet.Group(["popen"])
    gateway = group[0]
    figures = {}

    def execute() -> None:
        for _ in range(count // 10):
            gateway.remote_exec("channel.send(1)").receive()

    execute()
    figures["remote_exec + receive"] = timed(execute) / (count // 10)

    channel = gateway.remote_exec(ECHO)

    def echo() -> None:
        for item in range(count):
            channel.send(item)
            channel.receive()

    echo()
    figures["echo of a small int"] = timed(echo) / count
    channel.send(None)

    sink = gateway.remote_exec(SINK)

    def send_all() -> None:
        for item in range(count):
            sink.send(item)
        sink.send(None)
        assert sink.receive() == count

    figures["a small message, to the worker"] = timed(send_all) / count

    source = gateway.remote_exec(SOURCE)

    def receive_all() -> None:
        source.send(count)
        for item in range(count):
            assert source.receive() == item

    figures["a small message, from the worker"] = timed(receive_all) / count

    payload = b"x" * (64 << 20)
    big = gateway.remote_exec(BIG_SINK)

    def send_big() -> None:
        big.send(payload)
        assert big.receive() == len(payload)

    figures["64 MiB to the worker"] = timed(send_big)
    group.terminate(timeout=10)
    return figures


def serialize() -> dict[str, float]:
    figures = {}
    for name, item in (
        ("100 k ints", list(range(100_000))),
        (
            "a nested report",
            [{"id": i, "when": "call", "sections": [("out", "x" * 20)], "ok": True} for i in range(5000)],
        ),
        ("10 MB bytes", b"x" * 10_000_000),
    ):
        data = execnet.dumps(item)
        figures[f"dumps, {name}"] = timed(lambda item=item: execnet.dumps(item))
        figures[f"loads, {name}"] = timed(lambda data=data: execnet.loads(data))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateways", type=int, default=100)
    parser.add_argument("--messages", type=int, default=20_000)
    arguments = parser.parse_args()
    figures = {**serialize(), **talk(arguments.messages), **start_and_terminate(arguments.gateways)}
    print(json.dumps({"version": execnet.__version__, "figures": figures}))


if __name__ == "__main__":
    main()
