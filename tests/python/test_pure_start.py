"""What a pure worker compiles at its start, and what it does not."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

import execnet
import interpreters

# Python runs it before anything else.
HOOK = """
import sys
sys.compiled = []
def note(event, arguments):
    if event == "compile":
        sys.compiled.append(arguments[1])
sys.addaudithook(note)
"""
OTHERS = [name for name in interpreters.NAMES if name != "python{}.{}".format(*sys.version_info)]


def compiled_by(group: execnet.Group, python: str, directory: Path) -> list[str]:
    """The files that a worker with that interpreter has compiled at its start, or their stand-ins."""
    (directory / "sitecustomize.py").write_text(HOOK)
    spec = f"popen//python={shlex.quote(python)}//env:PYTHONPATH={directory}"
    channel = group.makegateway(spec).remote_exec("import sys; channel.send([str(f) for f in sys.compiled])")
    return channel.receive(timeout=20)


def test_an_interpreter_of_our_version_does_not_compile_the_worker(group: execnet.Group, tmp_path: Path) -> None:
    compiled = compiled_by(group, sys.executable, tmp_path)
    assert "<remote exec>" in compiled, "the hook is there"
    assert "<execnet worker>" not in compiled


@pytest.mark.skipif("EXECNET_TEST_WORKERS" in os.environ, reason="the first interpreter's tests do it")
@pytest.mark.parametrize("name", OTHERS)
def test_an_interpreter_of_another_version_compiles_it(group: execnet.Group, tmp_path: Path, name: str) -> None:
    path = interpreters.find(name)
    if path is None:
        pytest.skip(f"{name}: not found")
    if name in ("python2.7", "python3.6", "python3.7", "pypy3"):
        pytest.skip(f"{name} has no audit hooks, or none for what is compiled")
    assert "<execnet worker>" in compiled_by(group, path, tmp_path)
