"""The words of every .py file of the standard library, counted by the gateways of a group.

    python word_count.py [directory]

Work is handed out as it is done: a gateway gets the next files when it has counted those before, so
that a fast one counts more. A local gateway reads the files itself; to one on another host, which may
not have them, their contents are sent. In the end the total is checked against a plain count.

EXECNET_DEMO_SSH names a host that shall help, over ssh.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import execnet

FILES_AT_ONCE = 16
BAR_WIDTH = 40  # characters
INSTALLED_PACKAGES = {"site-packages", "dist-packages"}


class CountError(Exception):
    """The words cannot be counted, or were miscounted; the text says why."""


@dataclass
class Tally:
    """Totals over the files that were counted."""

    files: int = 0
    bytes: int = 0
    words: int = 0

    def add(self, files: int, size: int, words: int) -> None:
        self.files += files
        self.bytes += size
        self.words += words


@dataclass
class Share:
    """What one gateway counted, and how many seconds it worked."""

    gateway: execnet.Gateway
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0


def count(channel):  # type: ignore[no-untyped-def]  # runs in a gateway, on whatever Python is there
    """Gets lists of files, each a path or its contents, and answers with their bytes and words."""
    for files in channel:
        size = words = 0
        for data in files:
            if not isinstance(data, bytes):
                with open(data, "rb") as file:
                    data = file.read()
            size += len(data)
            words += len(data.split())
        channel.send((size, words))


def python_files(directory: Path) -> list[Path]:
    """The .py files under a directory, in order, without packages that were installed into it.

    :raises CountError: there are none.
    """
    found = []
    for root, directories, names in os.walk(directory):
        directories[:] = sorted(set(directories) - INSTALLED_PACKAGES)
        found += [Path(root, name) for name in sorted(names) if name.endswith(".py")]
    found = [path for path in found if path.is_file()]  # a link may lead nowhere
    if not found:
        raise CountError(f"there is no .py file in {directory}")
    return found


def count_by(share: Share, work: SimpleQueue[list[Path]], report: Callable[[int], None]) -> None:
    """Lets a gateway count until no work is left. Calls `report` with the number of files done each time."""
    send_contents = share.gateway.spec.ssh is not None
    start = time.perf_counter()
    channel = share.gateway.remote_exec(count)
    while True:
        try:
            files = work.get_nowait()
        except Empty:
            break
        channel.send([path.read_bytes() if send_contents else str(path) for path in files])
        size, words = channel.receive()
        share.tally.add(len(files), size, words)
        report(len(files))
    channel.close()
    share.seconds = time.perf_counter() - start


def count_by_all(group: execnet.Group, files: list[Path]) -> list[Share]:
    """Lets all gateways of the group count the files. Returns the share of each.

    :raises execnet.RemoteError: a gateway cannot read a file.
    :raises EOFError: a gateway is gone; the text says why.
    """
    work: SimpleQueue[list[Path]] = SimpleQueue()
    for start in range(0, len(files), FILES_AT_ONCE):
        work.put(files[start : start + FILES_AT_ONCE])
    shares = [Share(gateway) for gateway in group]
    progress = Progress(len(files))
    with ThreadPoolExecutor(len(shares)) as threads:
        try:
            for done in as_completed([threads.submit(count_by, share, work, progress.add) for share in shares]):
                done.result()
        except BaseException:
            group.terminate(timeout=1.0)  # or the other threads would go on to the end
            raise
        finally:
            progress.clear()
    return shares


def count_here(files: list[Path]) -> Tally:
    """The same in this process, one file after the other."""
    tally = Tally()
    for path in files:
        data = path.read_bytes()
        tally.add(1, len(data), len(data.split()))
    return tally


class Progress:
    """A progress bar, if there is a terminal. Any thread may call it."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._shown = sys.stderr.isatty()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            filled = BAR_WIDTH * self._done // self._total
            self._write(f"\r[{'#' * filled:{BAR_WIDTH}}] {self._done}/{self._total} files")

    def clear(self) -> None:
        with self._lock:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(text)
            sys.stderr.flush()


def print_table(shares: list[Share], total: Tally, seconds: float) -> None:
    print(f"{'id':8}{'pid':>8}{'files':>8}{'bytes':>12}{'words':>11}{'seconds':>9}")
    for share in shares:
        gateway, tally = share.gateway, share.tally
        print(
            f"{gateway.id:8}{gateway._rinfo().pid:>8}{tally.files:>8}{tally.bytes:>12}{tally.words:>11}"
            f"{share.seconds:>9.2f}"
        )
    print(f"{'total':16}{total.files:>8}{total.bytes:>12}{total.words:>11}{seconds:>9.2f}")


def specs() -> list[str]:
    """A local gateway for every core, and one over ssh if EXECNET_DEMO_SSH names a host."""
    result = ["popen"] * len(os.sched_getaffinity(0))
    if host := os.environ.get("EXECNET_DEMO_SSH"):
        result.append(f"ssh={host}")
    return result


def run(directory: Path) -> None:
    """Counts, prints the table, and checks the total.

    :raises CountError: there is nothing to count, or the total is wrong.
    :raises execnet.HostNotFound: a gateway cannot be started.
    """
    files = python_files(directory)
    group = execnet.Group(specs())
    try:
        print(f"{len(files)} files of {directory}, by {len(group)} gateways:")
        start = time.perf_counter()
        shares = count_by_all(group, files)
        seconds = time.perf_counter() - start
        total = Tally()
        for share in shares:
            total.add(share.tally.files, share.tally.bytes, share.tally.words)
        print_table(shares, total, seconds)
    finally:
        group.terminate(timeout=1.0)
    if (here := count_here(files)) != total:
        raise CountError(f"the total is wrong: counted in this process it is {here}")
    print("A count in this process gives the same total.")


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print("usage: word_count.py [directory]", file=sys.stderr)
        return 2
    try:
        run(Path(*arguments) if arguments else Path(sysconfig.get_path("stdlib")))
    except (CountError, execnet.RemoteError, EOFError, OSError, ValueError) as error:
        print(f"word_count.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
