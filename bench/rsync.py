"""The part of bench/run.py about RSync: the released execnet, this one, and rsync(1), side by side."""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from environments import clean_environ

MEASURE = Path(__file__).with_name("measure_rsync.py")
TARGETS = 4
Figures = dict[str, float]  # first and second run in seconds; memory of coordinator and worker in bytes


def make_small_files(directory: Path) -> None:
    source = random.Random(1)
    for number in range(5000):
        path = directory / f"{number % 50:02}" / f"file{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.randbytes(source.randrange(8000)))


def make_big_file(directory: Path) -> None:
    source = random.Random(2)
    with open(directory / "big", "wb") as file:
        for _ in range(200):
            file.write(source.randbytes(1_000_000))


SOURCES: dict[str, Callable[[Path], None]] = {
    "5,000 small files": make_small_files,
    "a file of 200 MB": make_big_file,
}


def settle() -> None:
    """Makes each measurement independent of the one before: data is on the disk, and inodes are free again.

    For five seconds ext4 does not use an inode again that was freed, and every new file is a long
    search for another one.
    """
    os.sync()
    time.sleep(6)


def with_execnet(python: str, environment: dict[str, str]) -> Callable[[Path, list[Path]], Figures]:
    def measure(source: Path, targets: list[Path]) -> Figures:
        command = [python, str(MEASURE), str(source), *map(str, targets)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        figures: Figures = json.loads(done.stdout)
        return figures

    return measure


def with_rsync(source: Path, targets: list[Path]) -> Figures:
    """Runs one rsync(1) for each target, all at the same time."""

    def run() -> float:
        begin = time.perf_counter()
        running = [subprocess.Popen(["rsync", "-a", "--delete", f"{source}/", f"{target}/"]) for target in targets]
        for process in running:
            assert process.wait() == 0
        return time.perf_counter() - begin

    return {"first": run(), "second": run()}


def report(name: str, rounds: dict[str, list[Figures]]) -> dict[str, float]:
    table = {}

    def line(what: str, field: str, unit: str, factor: float) -> None:
        cells = []
        for who, figures in rounds.items():
            values = [figure[field] for figure in figures if field in figure]
            if values:
                table[f"{what}, {who}"] = statistics.median(values) * factor
                cells.append(f"{table[f'{what}, {who}']:9.2f} {unit:2}")
            else:
                cells.append(" " * 12)
        values = [figure[field] * factor for figure in rounds["here"]]
        print(f"{what:34} {' '.join(cells)}  {min(values):.2f} .. {max(values):.2f} {unit}")

    line(f"{name}", "first", "s", 1)
    line(f"{name}, again", "second", "s", 1)
    line("  coordinator, above idle", "coordinator", "MB", 1e-6)
    line("  a worker, above idle", "worker", "MB", 1e-6)
    return table


def compare(directory: Path, released: str, package: str, rounds: int) -> dict[str, dict[str, float]]:
    """Measures in a directory of its own and removes it afterwards."""
    plain = clean_environ()
    measures = {
        "released": with_execnet(released, plain),
        "here": with_execnet(sys.executable, {**plain, "PYTHONPATH": package}),
        "rsync(1)": with_rsync,
    }
    targets = [directory / f"target{number}" for number in range(TARGETS)]
    tables = {}
    print(f"\n{f'RSync to {TARGETS} targets':34} {'released':>12} {'here':>12} {'rsync(1)':>12}  spread here")
    try:
        for name, make in SOURCES.items():
            shutil.rmtree(directory, ignore_errors=True)
            (directory / "source").mkdir(parents=True)
            make(directory / "source")
            settle()
            results: dict[str, list[Figures]] = {who: [] for who in measures}
            for _ in range(rounds):
                for who, measure in measures.items():
                    results[who].append(measure(directory / "source", targets))
                    for target in targets:
                        shutil.rmtree(target)
                    settle()
            tables[name] = report(name, results)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return tables
