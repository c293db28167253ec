"""Finds the interpreters of the other supported versions and makes an environment for each.

Looks for python3.10 to python3.15 on PATH and among pyenv's versions. Of each version it takes the
first that runs (not all names that pyenv puts on PATH do) and can be built for. Writes a CMake cache file
that lists the environments, and what was found and what was not, by name, to standard error.

Run it by the interpreter of build/venv, in the project's directory.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
REQUIREMENTS = Path("tools/requirements-test.txt")

PROBE = """
import ensurepip, json, os, sys, sysconfig, venv
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "executable": os.path.realpath(sys.executable),
    "headers": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
}))
"""


def candidates(version: str) -> Iterator[Path]:
    """Files that may be an interpreter of the version, the likeliest first."""
    name = f"python{version}"
    for directory in os.get_exec_path():
        yield Path(directory, name)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/{name}"), reverse=True)


def find(version: str) -> tuple[Path | None, str]:
    """The interpreter to use for a version, or None and why there is none."""
    reason = "not found"
    for candidate in candidates(version):
        if not candidate.exists():
            continue
        probe = subprocess.run([candidate, "-c", PROBE], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if probe.returncode:
            reason = f"{candidate}: {(probe.stderr.strip().splitlines() or ['does not run'])[-1]}"
            continue
        found = json.loads(probe.stdout)
        if found["version"] == version and found["headers"]:
            return Path(found["executable"]), ""
        reason = f"{candidate}: has no headers (Python.h)"
    return None, reason


def make_environment(python: Path, environment: Path) -> None:
    """Makes a virtual environment with what the tests import, unless it is there already.

    One behind a link is somebody else's: it is used if it fits, and never changed.
    """
    stamp = environment / "installed.txt"
    content = f"{python}\n{REQUIREMENTS.read_text()}"
    if stamp.exists() and stamp.read_text() == content:
        return
    if environment.is_symlink():
        environment.unlink()
    print(f"setup: making {environment} for {python}", file=sys.stderr)
    subprocess.run([python, "-m", "venv", "--clear", environment], check=True, stdout=sys.stderr)
    pip = [str(environment / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True, stdout=sys.stderr)
    stamp.write_text(content)


def main() -> None:
    own = "{}.{}".format(*sys.version_info)
    environments = [Path("build/venv")]
    for version in VERSIONS:
        if version == own:
            print(f"setup: Python {version}: {os.path.realpath(sys.executable)}", file=sys.stderr)
            continue
        python, reason = find(version)
        if python is None:
            print(f"setup: Python {version}: skipped ({reason})", file=sys.stderr)
            continue
        print(f"setup: Python {version}: {python}", file=sys.stderr)
        environments.append(Path("build") / f"venv-{version}")
        make_environment(python, environments[-1])
    listed = ";".join(str(environment.absolute() / "bin" / "python") for environment in environments)
    print(f'set(EXECNET_PYTHONS "{listed}" CACHE STRING "" FORCE)')


if __name__ == "__main__":
    main()
