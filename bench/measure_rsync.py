"""RSync of one source to several targets, for whichever `execnet` this interpreter imports; JSON on stdout.

Run by bench/run.py, a process for each source: what a process has at most is counted from its start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import execnet


def memory(pid: object, field: str) -> int:
    """A line of /proc/PID/status, in bytes: VmRSS is the memory it has now, VmHWM the most it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


class Counting(execnet.RSync):
    files_sent = 0

    def _report_send_file(self, gateway: object, modified_rel_path: str) -> None:
        self.files_sent += 1


def sync(source: Path, targets: list[tuple[execnet.Gateway, Path]]) -> tuple[float, int]:
    """The seconds it took, and the number of files that were sent."""
    begin = time.perf_counter()
    rsync = Counting(str(source))
    for gateway, path in targets:
        rsync.add_target(gateway, str(path), delete=True)
    rsync.send()
    return time.perf_counter() - begin, rsync.files_sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, nargs="+")
    arguments = parser.parse_args()
    group = execnet.Group(["popen"] * len(arguments.target))
    workers = [gateway._rinfo().pid for gateway in group]
    idle = {pid: memory(pid, "VmRSS") for pid in ["self", *workers]}
    targets = list(zip(group, arguments.target, strict=True))
    first, _ = sync(arguments.source, targets)
    second, sent_again = sync(arguments.source, targets)
    peak = {pid: memory(pid, "VmHWM") - idle[pid] for pid in idle}
    group.terminate(timeout=10)
    assert sent_again == 0, f"{sent_again} files were sent a second time"
    wanted = digests(arguments.source)
    for path in arguments.target:
        assert digests(path) == wanted, f"{path} is not like the source"
    figures = {"first": first, "second": second, "coordinator": peak.pop("self"), "worker": max(peak.values())}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
