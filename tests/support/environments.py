"""Separate virtual environments, under build/, for programs that are tested or measured from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from belongings import MARK

ROOT = Path(__file__).resolve().parent.parent.parent


def environment(name: str, packages: Sequence[str | Path], interpreter: str = sys.executable) -> str:
    """The interpreter of build/<name>, which has these packages, from the index or from files.

    What is there already is not made again.
    """
    directory = ROOT / "build" / name
    python = directory / "bin" / "python"
    wanted = "\n".join([interpreter, *(_identity(package) for package in packages)])
    stamp = directory / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making build/{name}: {' '.join(map(str, packages))}", file=sys.stderr)
        if interpreter == sys.executable:
            venv.create(directory, with_pip=True, clear=True)
        else:
            subprocess.run([interpreter, "-m", "venv", "--clear", directory], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True, env=clean_environ())
        stamp.write_text(wanted)
    return str(python)


def _identity(package: str | Path) -> str:
    if isinstance(package, str):
        return package
    status = package.stat()
    return f"{package} {status.st_size} {status.st_mtime_ns}"


def clean_environ(**more: str) -> dict[str, str]:
    """The environment for a program of others: without the settings of the tests themselves, except their mark."""
    own = ("PYTHONPATH", "PYTEST_", "COV_CORE_", "EXECNET_")
    kept = {name: value for name, value in os.environ.items() if name == MARK or not name.startswith(own)}
    return {**kept, **more}


def run(python: str, arguments: Sequence[str | Path], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    """Runs an interpreter of one of the environments. Its standard output and error are captured together."""
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env=clean_environ(PATH=path, PYTHONDONTWRITEBYTECODE="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
