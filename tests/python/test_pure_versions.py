"""The tests of the pure worker's modules under the versions of Python that this package is not built for."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

import interpreters

WORKER = Path(__file__).parents[2] / "worker"
OLD = ("python2.7", "python3.6", "python3.7", "python3.8", "python3.9", "pypy3")


@pytest.mark.skipif("EXECNET_TEST_WORKERS" in os.environ, reason="once is enough")
@pytest.mark.timeout(200)
def test_the_worker_passes_its_own_tests_under_older_versions() -> None:
    paths = [path for path in map(interpreters.find, OLD) if path is not None]
    if not paths:
        pytest.skip("there are none here")
    command = ["-B", "-m", "unittest", "discover", "-s", WORKER, "-p", "*_test.py"]
    runs = []
    for path in paths:  # most of it is waiting
        report = tempfile.TemporaryFile("w+")  # noqa: SIM115
        runs.append((path, subprocess.Popen([path, *command], stdout=report, stderr=report), report))
    failed = []
    for path, process, report in runs:
        if process.wait(timeout=150) != 0:
            report.seek(0)
            failed.append(f"{path}:\n{report.read()}")
        report.close()
    assert not failed, "\n".join(failed)
