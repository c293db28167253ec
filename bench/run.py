"""make bench: this execnet, the released one, its peers and the floors of the machine, side by side in one run.

Peers are installed from the package index into environments of their own under build/. All are measured in turn, in
several rounds. The table shows medians, how many times faster than the released execnet this one is and should be, how
many times the floor it takes and may take, and the spread. Machines are noisy: trust ratios within one run, not
figures from two runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

import rsync  # noqa: E402
import xdist  # noqa: E402
from work import GATEWAYS, MANY, PURE, SSH, VALUES  # noqa: E402

from environments import clean_environ, environment  # noqa: E402

Figures = dict[str, float]

BARE = f"{GATEWAYS} bare interpreters at once"
PIPE = "os.pipe between bare interpreters"
COPY = "64 MiB copied to fresh memory"
LINES = {"over 20 Mbit": "20e6", "over ssh on loopback": "0"}  # bits per second


@dataclass(frozen=True)
class Row:
    """A figure of this execnet, and what it is compared with: by default the released one's figure of the same name."""

    figure: str
    at_least: float | None = None  # so many times faster than the released one, or smaller
    floor: str | None = None
    at_most: float | None = None  # so many times the floor
    released: str | None = None
    below: float | None = None  # in the unit of the figure


ROWS = [
    Row(f"start {GATEWAYS} popen", 1.7, BARE, 1.3),
    Row(f"start {GATEWAYS} popen//preload", 40, released=f"start {GATEWAYS} popen"),
    Row(f"start {MANY} popen//preload", None, BARE, 0.6, released=""),
    Row(f"start {PURE} pure workers", 1),
    Row(f"start {SSH} over ssh", 2),
    Row(f"start {SSH} over ssh, preload", 8, released=f"start {SSH} over ssh"),
    Row(f"terminate {GATEWAYS} popen", 3),
    Row(f"terminate {GATEWAYS} popen//preload", 10, released=f"terminate {GATEWAYS} popen"),
    Row(f"terminate {GATEWAYS} popen, after work", 3),
    Row(f"terminate {GATEWAYS} popen//preload, after work", 10, released=f"terminate {GATEWAYS} popen, after work"),
    Row(f"terminate {PURE} pure workers", 1),
    Row("echo of a small int", 8, PIPE, 1),
    Row("echo of a small int, without rings", None, PIPE, 2, released="echo of a small int"),
    Row("echo of a small int, beside a callback", 8, PIPE, 1),
    Row("echo, pure worker", 1.5),
    Row("remote_exec + receive", 4),
    Row("remote_exec + receive, beside a task", 4),
    Row("a small message, to the worker", 8),
    Row("a small message, from the worker", 8),
    Row("a small message, to a callback", 8),
    Row("64 MiB to the worker", 2.5, COPY, 2),
    Row("64 MiB from the worker", 2.5, COPY, 2),
    Row("64 MiB from the worker, as a view", 5, released="64 MiB from the worker"),
    *(
        Row(
            f"{what}, {name}",
            *((1, f"pickle {what}, {name}", 1.25) if "MB" in name else (40, f"pickle {what}, {name}", 1)),
        )
        for name in VALUES
        for what in ("dumps", "loads")
    ),
    Row("pytest -n 8, 3,000 empty tests", 1),
    Row("pytest -n 8 with preload", 1.5, released="pytest -n 8, 3,000 empty tests"),
    *(Row(f"RSync of source files, {name}", 1) for name in LINES),
    Row("memory of an idle worker, popen"),
    Row("memory of an idle worker, popen//preload", 4, released="memory of an idle worker, popen"),
    Row("memory of the coordinator for it, popen//preload", below=50_000, released=""),
]
PEERS = {
    f"start {GATEWAYS} popen//preload": [f"{GATEWAYS} bare forks"],
    f"start {MANY} popen//preload": [f"{MANY} bare forks", f"{MANY} bare forks by two processes"],
    "echo of a small int": ["multiprocessing.Pipe", "mitogen: echo of a small int", "a byte over pipes, in C"],
    "echo, pure worker": ["a byte through a thread of a bare interpreter"],
    "a small message, to the worker": ["multiprocessing.Pipe, one way"],
    "loads, 100 k ints": ["the objects alone, 100 k ints", "marshal loads, 100 k ints"],
    "loads, a nested report": ["the objects alone, a nested report", "marshal loads, a nested report"],
    "64 MiB to the worker": [
        "64 MiB by a pipe, in C",
        "64 MiB by a unix socket, in C",
        "64 MiB copied to fresh memory, in C",
    ],
}
# Parts measured of both, and of this execnet alone.
OF_BOTH = ["start", "ssh", "work", "echo", "execute", "messages", "large", "serialize", "pure", "memory"]
OF_THIS = ["preload", "ssh preload", "preload work", "many", "sockets", "preload memory"]


def output(command: list[str], environ: dict[str, str]) -> Any:
    return json.loads(subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout)


def run(python: str, script: str, parts: list[str], environ: dict[str, str]) -> Figures:
    figures: Figures = output([python, str(BENCH / script), *parts], environ)
    return figures


def run_over_lines(python: str, environ: dict[str, str]) -> Figures:
    return {
        f"{figure}, {name}": seconds
        for name, bits in LINES.items()
        for figure, seconds in run(python, "measure_line.py", [bits, "rsync"], environ).items()
    }


def run_core(programs: Path, environ: dict[str, str]) -> Figures:
    found = output([str(programs / "core_bench"), "--benchmark_format=json"], environ)
    return {each["name"].removesuffix("/real_time"): each["real_time"] * 1e-9 for each in found["benchmarks"]}


def one_round(peers: dict[str, str], package: Path) -> dict[str, Figures]:
    """Who -> figures. Each part is measured for one after the other, so that all see the same machine."""
    plain = clean_environ()
    with_package = {**plain, "PYTHONPATH": str(package)}
    programs = package.parent / "bench"
    found: dict[str, Figures] = {"released": {}, "here": {}, "floors": run(sys.executable, "floors.py", [], plain)}
    found["floors"].update(run(sys.executable, "floors.py", ["objects"], plain))
    found["floors"].update(output([str(programs / "floors")], plain))
    forks = {**plain, "PYTHONPATH": os.pathsep.join([str(package / "execnet"), str(ROOT / "worker")])}
    found["floors"].update(run(sys.executable, "forks.py", [str(GATEWAYS), str(MANY)], forks))
    path = os.pathsep.join([str(Path(sys.executable).parent), plain["PATH"]])  # the worker is what `python3` is there
    found["C++"] = run_core(programs, {**plain, "PATH": path})
    for part in OF_BOTH:
        found["released"].update(run(peers["released"], "measure.py", [part], plain))
        found["here"].update(run(sys.executable, "measure.py", [part], with_package))
    found["released"].update(run_over_lines(peers["released"], plain))
    found["here"].update(run_over_lines(sys.executable, with_package))
    for part in OF_THIS:
        rings = {"EXECNET_RINGS": "0"} if part == "sockets" else {}
        found["here"].update(run(sys.executable, "measure.py", [part], {**with_package, **rings}))
    mitogen = run(peers["mitogen"], "measure_mitogen.py", [], plain)
    found["floors"].update({f"mitogen: {name}": figure for name, figure in mitogen.items()})
    directory = ROOT / "build" / "bench-xdist-tests"
    xdist.write_tests(directory)
    ordinary, name = ["-n", str(xdist.WORKERS)], "pytest -n 8, 3,000 empty tests"
    found["released"][name] = xdist.session(peers["xdist"], plain, directory, *ordinary)
    found["here"][name] = xdist.session(peers["xdist"], with_package, directory, *ordinary)
    preload = ["--dist", "load", "--tx", f"{xdist.WORKERS}*popen//preload=pytest,_pytest"]
    found["here"]["pytest -n 8 with preload"] = xdist.session(peers["xdist"], with_package, directory, *preload)
    return found


def in_words(figure: float | None, name: str) -> str:
    if figure is None:
        return ""
    if name.startswith("memory"):
        return f"{figure / 1000:.0f} KB"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)):
        if figure * factor >= 1 or unit == "ns":
            return f"{figure * factor:.2f} {unit}"
    raise AssertionError


def against(ratio: float | None, goal: float | None, reached: bool) -> str:
    if ratio is None:
        return ""
    wanted = "" if goal is None else f" {'of' if reached else 'SHORT of'} {goal:g}"
    return f"{ratio:.2f}{wanted}" if ratio < 10 else f"{ratio:.0f}{wanted}"


def median_of(rounds: list[dict[str, Figures]], who: str, name: str) -> float | None:
    values = [figures[who][name] for figures in rounds if name in figures[who]]
    return statistics.median(values) if values else None


def spread_of(rounds: list[dict[str, Figures]], who: str, name: str) -> str:
    values = [figures[who][name] for figures in rounds]
    return f"{in_words(min(values), name)} .. {in_words(max(values), name)}"


def report(rounds: list[dict[str, Figures]]) -> dict[str, dict[str, object]]:
    def median(who: str, name: str) -> float | None:
        return median_of(rounds, who, name)

    print(f"{'':46} {'released':>10} {'here':>10}  {'times':16} {'floor':>10}  {'of the floor':16} spread here")
    table: dict[str, dict[str, object]] = {}
    for row in ROWS:
        here = median("here", row.figure)
        assert here is not None, row.figure
        released = median("released", row.figure if row.released is None else row.released)
        floor = median("floors", row.floor) if row.floor else row.below
        ratio = released / here if released is not None else None
        part = here / floor if floor is not None else None
        limit = 1.0 if row.below else row.at_most
        faster = ratio is None or row.at_least is None or ratio >= row.at_least
        near = part is None or limit is None or part <= limit
        print(
            f"{row.figure:46} {in_words(released, row.figure):>10} {in_words(here, row.figure):>10}  "
            f"{against(ratio, row.at_least, faster):16} {in_words(floor, row.figure):>10}  "
            f"{against(part, limit, near):16} {spread_of(rounds, 'here', row.figure)}"
        )
        for peer in PEERS.get(row.figure, []):
            print(f"{'  ' + peer:46} {in_words(median('floors', peer), row.figure):>10}")
        table[row.figure] = {"released": released, "here": here, "floor": floor, "reached": faster and near}
    short = [name for name, cells in table.items() if not cells["reached"]]
    print(f"{len(table) - len(short)} of {len(table)} as wanted; short: {'; '.join(short) or 'none'}")
    return table


def report_core(rounds: list[dict[str, Figures]]) -> dict[str, float | None]:
    """The C++ library, with the figure of the same name from Python beside it."""
    print(f"\n{'':46} {'C++':>10} {'Python':>10}  spread of C++")
    table = {name: median_of(rounds, "C++", name) for name in rounds[0]["C++"]}
    for name, figure in table.items():
        python = in_words(median_of(rounds, "here", name), name)
        print(f"{name:46} {in_words(figure, name):>10} {python:>10}  {spread_of(rounds, 'C++', name)}")
    return table


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        model = next(
            (line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), platform.machine()
        )
    return f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}, CPython {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json")
    parser.add_argument("--no-rsync", action="store_true")
    arguments = parser.parse_args()
    package = os.environ.get("PYTHONPATH", "").split(os.pathsep)[0]
    if not package:
        sys.exit("run this as `make bench`: PYTHONPATH must name the built package")
    peers = {
        "released": environment("bench-released", ["execnet"]),
        "mitogen": environment("bench-mitogen", ["mitogen"]),
        "xdist": environment("bench-xdist", ["execnet", "pytest", "pytest-xdist"]),
    }
    rounds = []
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        rounds.append(one_round(peers, Path(package)))
    print(machine())
    result: dict[str, object] = {"machine": machine(), "rows": report(rounds), "rounds": rounds}
    result["C++"] = report_core(rounds)
    if not arguments.no_rsync:
        result["RSync"] = rsync.compare(ROOT / "build" / "bench-rsync", peers["released"], package, arguments.rounds)
    arguments.json.write_text(json.dumps(result, indent=1))
    plots = ROOT / "build" / "performance.svg"
    plotter = environment("bench-plot", ["matplotlib"])
    subprocess.run([plotter, str(BENCH / "plot.py"), arguments.json, plots], env=clean_environ(), check=True)
    print("written to", arguments.json, "and", plots)


if __name__ == "__main__":
    main()
