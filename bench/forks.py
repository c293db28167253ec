"""The cost of bare forks of an interpreter as warm as the fork server's, as floors for it; JSON on stdout.

    python forks.py COUNT...

A program of its own, since a fork copies the page tables of all that was imported: here it is what
worker/fork_server.py imports, and the extension. All of the forked are alive until the last one is there.
"""

import gc
import os
import sys
import time

import _core  # noqa: F401
import fork_server  # noqa: F401


def fork_all(count, over):
    """Forks `count` children, which stay until `over` ends."""
    for _ in range(count):
        if os.fork() == 0:
            os.read(over, 1)
            os._exit(0)


def seconds_for(count, forkers):
    """Seconds from the start of that many forking processes until they have forked all."""
    begins, begin = os.pipe()
    there, is_there = os.pipe()
    over, end = os.pipe()
    for _ in range(forkers):
        if os.fork() == 0:
            os.close(begin)
            os.close(end)
            os.write(is_there, b"r")
            os.read(begins, 1)
            fork_all(count // forkers, over)
            os.write(is_there, b"d")
            os.read(over, 1)
            for _ in range(count // forkers):
                os.wait()
            os._exit(0)
    for descriptor in (begins, is_there, over):
        os.close(descriptor)
    read_all(there, forkers)
    started = time.perf_counter()
    os.close(begin)
    read_all(there, forkers)
    seconds = time.perf_counter() - started
    os.close(end)
    for _ in range(forkers):
        os.wait()
    os.close(there)
    return seconds


def read_all(descriptor, count):
    while count:
        count -= len(os.read(descriptor, count))


def main():
    gc.collect()
    gc.freeze()
    figures = {}
    for count in map(int, sys.argv[1:]):
        for forkers, name in ((1, f"{count} bare forks"), (2, f"{count} bare forks by two processes")):
            figures[name] = min(seconds_for(count, forkers) for _ in range(3))

    import json

    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
