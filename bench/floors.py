"""What the same work costs without execnet: bare interpreters, pipes, pickle, a copy; JSON on stdout.

    python floors.py [objects]

Figures are seconds, with the names that bench/run.py puts beside those of measure.py. There are more in floors.cpp and
forks.py.
"""

from __future__ import annotations

import array
import json
import marshal
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

from work import BIG, GATEWAYS, MESSAGES, VALUES, best, report, timed

ECHO = "import os\nwhile data := os.read(0, 8):\n    os.write(1, data)"


def bare_interpreters() -> None:
    running = [subprocess.Popen([sys.executable, "-c", "pass"]) for _ in range(GATEWAYS)]
    for process in running:
        assert process.wait() == 0


# The least work of a plain Python worker that receives while its main thread runs code.
THREADED_ECHO = """
import collections, os, threading
items, there = collections.deque(), threading.Lock()
there.acquire()
def receive():
    while data := os.read(0, 8):
        items.append(data)
        there.release()
    os._exit(0)
threading.Thread(target=receive).start()
while there.acquire():
    os.write(1, items.popleft())
"""


def pipe_echo(code: str) -> float:
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        there, back = process.stdin.fileno(), process.stdout.fileno()
        count = MESSAGES // 4

        def talk() -> None:
            for _ in range(count):
                os.write(there, b"12345678")
                os.read(back, 8)

        seconds = best(talk, 5) / count
        process.stdin.close()
    return seconds


def answer(connection: Connection) -> None:
    while (item := connection.recv()) is not None:
        connection.send(item)


def count_up_to_zero(connection: Connection) -> None:
    count = 0
    while (item := connection.recv()) is not None:
        count += 1
        if item == 0:
            connection.send(count)
            count = 0


def multiprocessing_pipe(other: Callable[[Connection], None], talk: Callable[[Connection], object]) -> float:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=other, args=[there])
    process.start()
    seconds = best(lambda: talk(here), 5)
    here.send(None)
    process.join()
    return seconds


def multiprocessing_echo() -> float:
    count = MESSAGES // 4

    def talk(here: Connection) -> None:
        for item in range(count):
            here.send(item)
            here.recv()

    return multiprocessing_pipe(answer, talk) / count


def multiprocessing_one_way() -> float:
    def talk(here: Connection) -> None:
        for item in reversed(range(MESSAGES)):
            here.send(item)
        assert here.recv() == MESSAGES

    return multiprocessing_pipe(count_up_to_zero, talk) / MESSAGES


def objects() -> dict[str, float]:
    """The objects that loads() makes, without reading anything; and by the reader for the interpreter's own code files.

    In a fresh process, for what one has freed makes it faster.
    """
    numbers = array.array("l", range(100_000))
    figures = {
        "the objects alone, 100 k ints": best(numbers.tolist, 5),
        "the objects alone, a nested report": best(lambda: report(5000), 5),
    }
    for name in ("100 k ints", "a nested report"):
        data = marshal.dumps(VALUES[name])
        figures[f"marshal loads, {name}"] = best(lambda data=data: marshal.loads(data), 5)
    return figures


def everything_else() -> dict[str, float]:
    figures = {
        f"{GATEWAYS} bare interpreters at once": timed(bare_interpreters),
        "os.pipe between bare interpreters": pipe_echo(ECHO),
        "a byte through a thread of a bare interpreter": pipe_echo(THREADED_ECHO),
        "multiprocessing.Pipe": multiprocessing_echo(),
        "multiprocessing.Pipe, one way": multiprocessing_one_way(),
    }
    payload = memoryview(b"x" * BIG)
    figures["64 MiB copied to fresh memory"] = best(lambda: bytes(payload), 5)
    for name, item in VALUES.items():
        data = pickle.dumps(item, 5)
        figures[f"pickle dumps, {name}"] = best(lambda item=item: pickle.dumps(item, 5), 5)
        figures[f"pickle loads, {name}"] = best(lambda data=data: pickle.loads(data), 5)
    return figures


if __name__ == "__main__":
    json.dump(objects() if sys.argv[1:] == ["objects"] else everything_else(), sys.stdout)
