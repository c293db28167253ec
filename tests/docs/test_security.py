"""Each promise of docs/security.md names a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()


def names_of_tests() -> set[str]:
    names: set[str] = set()
    for path in ROOT.glob("tests/**/*.py"):
        names.update(re.findall(r"^def (test_\w+)\(", path.read_text(), re.M))
    for path in [*ROOT.glob("src/*/*_test.cpp"), *ROOT.glob("tests/cpp/*.cpp")]:
        for suite, name in re.findall(r"^TEST(?:_F|_P)?\((\w+), (\w+)\)", path.read_text(), re.M):
            names.add(f"{suite}.{name}")
    return names


def test_each_test_that_a_promise_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+|[A-Z]\w+\.[A-Z]\w+)`", TEXT))
    assert len(named) > 20
    assert named <= names_of_tests(), f"there are no such tests: {named - names_of_tests()}"


def test_each_row_of_a_table_of_promises_names_a_test() -> None:
    tables = re.findall(r"^\|[^\n]*shown by \|\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.M)
    assert len(tables) >= 3
    for row in "".join(tables).splitlines():
        assert re.search(r"`(test_\w+|[A-Z]\w+\.[A-Z]\w+)` \|$|`\w+(\.\w+)?`(, `\w+(\.\w+)?`)* \|$", row), row
