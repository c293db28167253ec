"""The Python interpreters of this machine that the pure worker is tested on."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAMES = ("python2.7", *(f"python3.{minor}" for minor in range(6, 16)), "pypy3")

_PROBE = "import sys; print('%s %d.%d' % ((sys.subversion[0] if sys.version_info[0] == 2 else sys.implementation.name,)"
_PROBE += " + tuple(sys.version_info[:2])))"


@functools.cache
def find(name: str) -> str | None:
    """The path of a working interpreter of that name, or None. The running one serves its own version.

    Looks among the versions of pyenv first, as what pyenv puts on PATH may not run.
    """
    if name == "python{}.{}".format(*sys.version_info):
        return sys.executable
    return next((str(path) for path in _candidates(name) if _is(name, path)), None)


def _candidates(name: str) -> Iterator[Path]:
    if root := _pyenv_root():
        pattern = "pypy3*" if name == "pypy3" else f"{name.removeprefix('python')}.*"
        for version in sorted(root.glob(f"versions/{pattern}"), reverse=True):
            yield version / "bin" / name
    for directory in os.get_exec_path():
        yield Path(directory, name)


@functools.cache
def _pyenv_root() -> Path | None:
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return None
    done = subprocess.run([pyenv, "root"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None


def _is(name: str, path: Path) -> bool:
    if not path.exists():
        return False
    done = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if name == "pypy3":
        return done.stdout.startswith("pypy 3.")
    return done.stdout.lower().split() == ["cpython", name.removeprefix("python")]
