"""make instructions: counts the instructions of the hot paths, and fails when there are more than in figures.ini.

    python count.py [--update] [BUILD]

Counted by callgrind, they are the same at each run and on each machine, whatever else that does: 5 % more are a change
of the source. They are not time; for that there is `make bench`. A figure holds for one compiler, C library and
architecture. With others nothing is compared, and that is said.
"""

from __future__ import annotations

import argparse
import configparser
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCH = HERE.parent
ROOT = BENCH.parent
FIGURES = HERE / "figures.ini"
HEADER = "# Instructions of the hot paths, written by count.py --update.\n\n"
MADE_WITH = "made with"
TOLERANCE = 0.05

# The C library chooses its variant of memcpy and the like by the processor, unless some features are hidden from it.
PLAIN_PROCESSOR = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-SSSE3"


@dataclass(frozen=True)
class Program:
    command: list[str | Path]
    # Only this shared object, if one is named: the interpreter's own instructions depend on how it was built.
    within: str | None = None


def programs(build: Path) -> dict[str, Program]:
    return {
        "C++": Program([build / "bench" / "instructions" / "hot_paths"]),
        "Python": Program(
            [sys.executable, HERE / "hot_paths.py", build / "bench" / "instructions" / "libcounting.so"],
            within="/execnet/_core.",
        ),
    }


def instructions(dump: str, within: str | None) -> int:
    """The sum of the lines of all functions, without the line after `calls=`, which is a sum of others."""
    total = 0
    counts = within is None
    is_call = False
    for line in dump.splitlines():
        if line.startswith("ob="):
            counts = within is None or within in line
        elif line.startswith("calls="):
            is_call = True
        elif line[:1].isdigit():
            if counts and not is_call:
                total += int(line.split()[1])
            is_call = False
    return total


def count(program: Program, package: Path) -> dict[str, str]:
    """Path -> instructions, preceded by what the program was made with."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{package}{os.pathsep}{BENCH}",
        "PYTHONHASHSEED": "0",
        "GLIBC_TUNABLES": PLAIN_PROCESSOR,
    }
    with tempfile.TemporaryDirectory() as directory:
        options = [
            "--tool=callgrind",
            "--quiet",
            "--collect-atstart=no",
            "--compress-strings=no",
            "--compress-pos=no",
            f"--callgrind-out-file={directory}/dump",
        ]
        done = subprocess.run(
            ["valgrind", *options, *program.command],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
        counted = {MADE_WITH: f"{platform.machine()}, {done.stdout.strip()}"}
        for path in sorted(Path(directory).glob("dump.*"), key=lambda path: int(path.suffix[1:])):
            dump = path.read_text()
            if name := re.search(r"^desc: Trigger: Client Request: (.*)$", dump, re.MULTILINE):
                counted[name[1]] = str(int(counted.get(name[1], 0)) + instructions(dump, program.within))
    return counted


def compare(counted: dict[str, str], expected: dict[str, str]) -> bool:
    """Prints the table of one program. Returns whether all figures are as they should be."""
    if counted[MADE_WITH] != expected[MADE_WITH]:
        print(f"  skipped: figures are for {expected[MADE_WITH]}; this is {counted[MADE_WITH]}")
        return True
    good = True
    for path in dict.fromkeys([*counted, *expected]):
        if path == MADE_WITH:
            continue
        here, there = counted.get(path), expected.get(path)
        if here is None or there is None:
            print(f"  {path:38} {here or '':>12} {there or '':>12}  FAILED: not in both")
            good = False
            continue
        change = int(here) / int(there) - 1
        verdict = ""
        if change > TOLERANCE:
            verdict = "FAILED: more than 5 % above"
            good = False
        elif change < -TOLERANCE:
            verdict = "better: lower the figure, by --update"
        print(f"  {path:38} {int(here):12,} {int(there):12,} {change:+9.2%}  {verdict}".rstrip())
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path, nargs="?", default=ROOT / "build" / "release")
    parser.add_argument("--update", action="store_true", help="write down what is counted")
    arguments = parser.parse_args()
    package = arguments.build / f"python-{sys.version_info[0]}.{sys.version_info[1]}"
    figures = configparser.ConfigParser(delimiters="=", interpolation=None)
    figures.optionxform = str  # type: ignore[assignment,method-assign]
    figures.read(FIGURES)
    good = True
    print(f"{'instructions of':40} {'counted':>12} {'expected':>12} {'change':>9}")
    for name, program in programs(arguments.build).items():
        counted = count(program, package)
        print(f"{name}, {counted[MADE_WITH]}")
        good = compare(counted, dict(figures[name])) and good
        if arguments.update:
            figures[name] = counted
    if arguments.update:
        with FIGURES.open("w") as file:
            file.write(HEADER)
            figures.write(file)
    elif not good:
        sys.exit("not the instructions that were expected: find out why; count.py --update writes down what is counted")


if __name__ == "__main__":
    main()
