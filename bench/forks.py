"""What bare forks cost of an interpreter as warm as the fork server's, which these floors are for; JSON on stdout.

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


def seconds_for(count):
    waits, ends = os.pipe()
    pids = []
    begin = time.perf_counter()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(ends)
            os.read(waits, 1)
            os._exit(0)
        pids.append(pid)
    seconds = time.perf_counter() - begin
    os.close(ends)
    os.close(waits)
    for pid in pids:
        os.waitpid(pid, 0)
    return seconds


def main():
    gc.collect()
    gc.freeze()
    figures = {}
    for count in map(int, sys.argv[1:]):
        seconds = min(seconds_for(count) for _ in range(3))
        figures[f"{count} bare forks"] = seconds
        figures[f"{count} bare forks, each"] = seconds / count

    import json

    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
