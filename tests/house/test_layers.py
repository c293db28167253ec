"""The layers of ARCHITECTURE.md hold, and the check of that finds violations."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/layers.py"), str(root)], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in ("src", "include", "python/bindings", "examples/cpp"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_every_include_goes_down_the_layers() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "included"),
    [
        ("src/base/fd.cpp", "wire/frame.hpp"),  # from the bottom
        ("src/connection/connection.cpp", "gateway/membership.hpp"),  # one up
        ("src/connection/link.hpp", "transport/transport.hpp"),  # to the side
        ("src/gateway/membership.hpp", "execnet/group.hpp"),  # to the public face of a higher one
        ("include/execnet/value.hpp", "execnet/channel.hpp"),  # between public headers
        ("examples/cpp/word_count.cpp", "gateway/membership.hpp"),  # from outside to the inside
        ("src/utils/strings.cpp", "base/fd.hpp"),  # from a folder that nobody has placed
    ],
)
def test_an_include_against_the_layers_is_found(copy: Path, path: str, included: str) -> None:
    source = copy / path
    source.parent.mkdir(exist_ok=True)
    source.write_text(f"#include <{included}>\n" + (source.read_text() if source.exists() else ""))
    done = check(copy)
    assert done.returncode == 1
    assert path in done.stdout
