"""The part of bench/run.py about pytest-xdist: 3,000 tests that do nothing, eight workers."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

TESTS = 3000
WORKERS = 8


def write_tests(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    directory.joinpath("pytest.ini").write_text("[pytest]\n")  # not this repository's
    directory.joinpath("test_empty.py").write_text(
        f"import pytest\n\n\n@pytest.mark.parametrize('number', range({TESTS}))\ndef test_empty(number):\n    pass\n"
    )


def session(python: str, environment: dict[str, str], directory: Path, *options: str) -> float:
    """Seconds for one session, from start to end."""
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode != 0 or f"{TESTS} passed" not in done.stdout:
        raise RuntimeError(done.stdout + done.stderr)
    return seconds
