"""make bench: this execnet against the released one, side by side in one run.

The released one is installed from the package index into an environment of its own under build/.
Both are measured in turn, several rounds; the table shows medians, the spread and the ratio.
Machines are noisy: believe the ratios of one run, not figures from two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import rsync

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from environments import environment  # noqa: E402

MEASURE = Path(__file__).with_name("measure.py")


def measure(python: str, package: str | None, options: list[str]) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if package is not None:
        environment["PYTHONPATH"] = package
    command = [python, str(MEASURE), *options]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout)["figures"]
    return figures


def in_words(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1 or unit == "us":
            return f"{seconds * factor:8.2f} {unit:2}"
    raise AssertionError


def report(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    print(f"{'':34} {'released':>12} {'here':>12} {'ratio':>8}  spread here")
    table = {}
    for name in rounds["here"][0]:
        released = statistics.median(figures[name] for figures in rounds["released"])
        values = [figures[name] for figures in rounds["here"]]
        here = statistics.median(values)
        spread = f"{in_words(min(values)).strip()} .. {in_words(max(values)).strip()}"
        print(f"{name:34} {in_words(released):>12} {in_words(here):>12} {released / here:7.1f}x  {spread}")
        table[name] = {"released": released, "here": here, "ratio": released / here}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json")
    arguments, options = parser.parse_known_args()
    package = os.environ.get("PYTHONPATH", "").split(os.pathsep)[0]
    if not package:
        sys.exit("run this as `make bench`: PYTHONPATH must name the built package")
    peer = environment("bench-released", ["execnet"])
    rounds: dict[str, list[dict[str, float]]] = {"released": [], "here": []}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        rounds["released"].append(measure(peer, None, options))
        rounds["here"].append(measure(sys.executable, package, options))
    table = report(rounds)
    synced = rsync.compare(ROOT / "build" / "bench-rsync", peer, package, arguments.rounds)
    arguments.json.write_text(json.dumps({**table, "RSync": synced}, indent=1))
    print("written to", arguments.json)


if __name__ == "__main__":
    main()
