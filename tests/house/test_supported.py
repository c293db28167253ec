"""Where it cannot be built, that is said at once, and nothing is compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import interpreters

HERE = Path(__file__).parents[2]
CMAKE = Path(sys.executable).with_name("cmake")


@pytest.mark.parametrize("where", ["pypy on Linux", "cpython on Darwin", "cpython on Windows"])
def test_a_build_that_cannot_succeed_ends_with_a_sentence(where: str, tmp_path: Path) -> None:
    implementation, _, system = where.split()
    options = [f"-DCMAKE_SYSTEM_NAME={system}"]
    if implementation == "pypy":
        pypy = interpreters.find("pypy3") or pytest.skip("pypy3: not found")
        options = [f"-DPython_EXECUTABLE={pypy}"]
    # As pip runs it. A compiler that is not there would be named, if it were looked for.
    command = [CMAKE, "-S", HERE, "-B", tmp_path, "-DSKBUILD=2", "-DCMAKE_CXX_COMPILER=/no/such/compiler", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = " ".join(done.stderr.split())
    assert done.returncode != 0
    assert f"execnet is for CPython 3.10 or later on Linux, and this is {where}; workers may run on PyPy" in said
    assert "/no/such/compiler" not in said
