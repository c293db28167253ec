"""The tests of the pure worker's modules under the versions of Python that this package is not built for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

import interpreters

WORKER = Path(__file__).parents[2] / "worker"
OLD = ("python2.7", "python3.6", "python3.7", "python3.8", "python3.9")


@pytest.mark.skipif("EXECNET_TEST_WORKERS" in os.environ, reason="the first interpreter's tests do it")
@pytest.mark.timeout(1200)
def test_the_worker_passes_its_own_tests_under_older_versions() -> None:
    paths = [path for path in map(interpreters.find, OLD) if path is not None]
    if not paths:
        pytest.skip("no older version of Python on this machine")
    command = ["-B", "-m", "unittest", "discover", "-s", WORKER, "-p", "*_test.py"]
    failed = []
    with contextlib.ExitStack() as stack:
        runs = []
        for path in paths:  # most of it is waiting
            report = stack.enter_context(tempfile.TemporaryFile("w+"))
            run = subprocess.Popen([path, *command], stdin=subprocess.DEVNULL, stdout=report, stderr=report)
            stack.enter_context(run)
            stack.callback(run.kill)
            runs.append((path, run, report))
        for path, run, report in runs:
            try:
                status = run.wait(timeout=1000)
            except subprocess.TimeoutExpired:
                status = -1
            if status != 0:
                report.seek(0)
                failed.append(f"{path}: {status}\n{report.read()}")
    assert not failed, "\n".join(failed)
