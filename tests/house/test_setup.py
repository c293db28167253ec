"""What tools/setup does on machines that have less than this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What every Debian has.
ESSENTIAL = ("bash", "cat", "chmod", "cmp", "cp", "dirname", "env", "mkdir", "rm", "tee", "true")


class Machine:
    """A copy of the tools, and a PATH with few programs on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.programs = directory / "programs"
        self.programs.mkdir()
        shutil.copytree(ROOT / "tools", directory / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ESSENTIAL:
            self.has(name)

    def has(self, name: str, path: str | None = None) -> None:
        """A program of this machine is there, too."""
        found = path or shutil.which(name)
        assert found, f"this machine has no {name}"
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).write_text(f'#!/bin/sh\nexec {found} "$@"\n')
        (self.programs / name).chmod(0o755)

    def fakes(self, name: str, script: str) -> None:
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def setup(self, *groups: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [shutil.which("bash") or "bash", self.directory / "tools/setup", *groups],
            env={"PATH": str(self.programs), "HOME": str(self.directory), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def named(self, *groups: str) -> set[str]:
        """The packages in the line that it prints where it may not install them."""
        done = self.setup(*groups)
        assert done.returncode == 1, done
        (line,) = [line for line in done.stderr.splitlines() if "apt-get install" in line]
        return {word for word in line.split()[2:] if not word.startswith("-")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_that_is_missing_is_named_at_once(machine: Machine) -> None:
    named = machine.named("demo")
    assert named == machine.named("test")
    assert {"g++", "libssl-dev", "zlib1g-dev", "libgtest-dev", "valgrind", "strace"} <= named


def test_without_a_python_its_packages_are_named(machine: Machine) -> None:
    assert {"python3", "python3-venv", "python3-dev"} <= machine.named("demo")


def test_with_a_python_that_is_too_old_packages_are_named_too(machine: Machine) -> None:
    machine.fakes("python3", "exit 1")
    assert "python3" in machine.named("demo")


def test_the_library_alone_needs_no_python(machine: Machine) -> None:
    assert machine.named("library") == {"g++", "libssl-dev", "zlib1g-dev", "cmake", "ninja-build"}


def test_the_library_alone_is_set_up_without_a_python(machine: Machine, build_tools: Callable[[str], str]) -> None:
    machine.has("g++")
    for name in ("cmake", "ninja"):
        machine.has(name, build_tools(name))
    done = machine.setup("library")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in (machine.directory / "build").iterdir()) == ["library.cmake"]


def test_the_library_needs_a_new_cmake(machine: Machine, build_tools: Callable[[str], str]) -> None:
    machine.has("g++")
    machine.has("ninja", build_tools("ninja"))
    for version, status in (("3.24.9", 1), ("3.25.1", 0), ("4.0.0", 0)):
        machine.fakes("cmake", f"echo cmake version {version}")
        done = machine.setup("library")
        assert done.returncode == status, (version, done)
        assert ("CMake 3.25 or later is needed" in done.stderr) == bool(status)


@pytest.fixture
def build_tools() -> Callable[[str], str]:
    """The path of a program that the build uses: of the environment, or of this machine."""

    def find(name: str) -> str:
        found = shutil.which(name, path=f"{ROOT / 'build/venv/bin'}{os.pathsep}{os.environ['PATH']}")
        assert found, f"there is no {name}"
        return found

    return find


def test_it_says_what_it_installs_and_services_are_forbidden_meanwhile(machine: Machine) -> None:
    policy = machine.directory / "policy-rc.d"
    if os.geteuid() != 0:
        machine.fakes("sudo", 'shift; exec "$@"')
    machine.fakes("apt-get", f'echo "apt-get $*"; if [ "$1" = install ]; then {policy}; echo "policy $?"; exit 100; fi')
    done = machine.setup("demo", EXECNET_POLICY_RC_D=str(policy))
    assert done.returncode == 100, done
    said, update, installs, allowed = [
        line for line in done.stdout.splitlines() if line.startswith(("setup: these", "apt-get", "policy"))
    ]
    assert said.startswith("setup: these system packages are missing")
    assert update.startswith("apt-get update")
    named = set(said.partition("now: ")[2].split())
    assert "g++" in named
    assert named <= set(installs.split())
    assert allowed == "policy 101"
    assert not policy.exists()


def test_the_ssh_service_is_disabled_by_the_helper_of_debian(machine: Machine) -> None:
    """The real one refuses whoever is no script of dpkg's."""
    (line,) = [line for line in (ROOT / "tools/setup").read_text().splitlines() if "deb-systemd-helper disable" in line]
    helper = Path("/usr/bin/deb-systemd-helper")
    if os.geteuid() != 0 or not helper.exists():
        pytest.skip("for root of a Debian")
    command = f'as_root() {{ "$@"; }}; {line.replace("ssh.service ssh.socket", "execnet-has-none.service")}'
    done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def make_environment(directory: Path) -> None:
    """As tools/setup has made it, of this interpreter, with nothing installed."""
    (directory / "bin").mkdir(parents=True)
    (directory / "bin/python").symlink_to(sys.executable)
    (directory / "made-for").write_text(os.path.realpath(sys.executable) + "\n")
    (directory / "installed-build.txt").write_text("")


@pytest.fixture
def linked(machine: Machine) -> Path:
    """Somebody else's environment, which build/venv leads to."""
    for name in ("g++", "rm"):
        machine.has(name)
    machine.has("python3", sys.executable)
    (machine.directory / "tools/requirements-build.txt").write_text("")
    environment = machine.directory / "elsewhere"
    make_environment(environment)
    (machine.directory / "build").mkdir()
    (machine.directory / "build/venv").symlink_to(environment)
    return environment


def test_an_environment_behind_a_link_is_used(machine: Machine, linked: Path) -> None:
    done = machine.setup()
    assert (done.returncode, done.stdout) == (0, ""), done
    assert (machine.directory / "build/venv").resolve() == linked


@pytest.mark.parametrize("stamp", ["made-for", "installed-build.txt"])
def test_an_environment_behind_a_link_is_not_changed(machine: Machine, linked: Path, stamp: str) -> None:
    (linked / stamp).write_text("another\n")
    done = machine.setup()
    assert done.returncode == 0, done
    assert not (machine.directory / "build/venv").is_symlink()
    assert (linked / stamp).read_text() == "another\n"
    assert (linked / "bin/python").is_symlink()
