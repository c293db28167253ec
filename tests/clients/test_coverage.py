"""Coverage that begins at the start of an interpreter sees forked workers as it sees fresh ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from environments import run

PROJECT = {
    "sitecustomize.py": "import coverage; coverage.process_startup()",
    "coveragerc": "[run]\nparallel = true\ndata_file = {directory}/data\ninclude = {directory}/library.py",
    "library.py": "def both(): return 1\ndef first():\n    return 2\ndef second():\n    return 3\n",
}
SESSION = """
import os, sys
import execnet
os.environ.update(COVERAGE_PROCESS_START=sys.argv[2] + "/coveragerc", PYTHONPATH=sys.argv[2])
group = execnet.Group([sys.argv[1]] * 2)
for gateway, name in zip(group, ["first", "second"]):
    gateway.remote_exec(f"import library; library.both(); library.{name}()").waitclose()
group.terminate()
"""
REPORT = """
import glob, json, os, sys
import coverage
files = glob.glob(sys.argv[1] + "/data.*")
seen = []
for file in files:
    data = coverage.CoverageData(file)
    data.read()
    seen.append(sorted(data.lines(sys.argv[1] + "/library.py")))
print(json.dumps(sorted(seen)))
"""


@pytest.mark.parametrize("spec", ["popen", "popen//preload=library"])
def test_each_worker_writes_a_file_of_what_it_has_run(here: str, tmp_path: Path, spec: str) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text.format(directory=tmp_path))
    session = run(here, ["-c", SESSION, spec, tmp_path], tmp_path, timeout=60)
    assert session.returncode == 0, session.stdout
    report = run(here, ["-I", "-c", REPORT, tmp_path], tmp_path, timeout=60)
    assert json.loads(report.stdout) == [[1, 2, 3, 4], [1, 2, 4, 5]], report.stdout
