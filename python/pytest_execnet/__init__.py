"""For pytest-xdist: its workers are forked from an interpreter that has imported some modules already.

It is off until the configuration of pytest asks for it and names modules:

    [pytest]
    addopts = -p pytest_execnet
    execnet_preload = pytest, numpy

The workers of `-n`, and those of `--tx` that are started here or over ssh, then start in milliseconds, and have the
modules' memory in common until they write to it. docs/forkserver.md says what differs from a fresh worker. A module
with assertions that pytest is to explain (`register_assert_rewrite`, plugins, `conftest`) should not be named: pytest
can rewrite only what is imported after its start.

It is no entry point: pytest would want to rewrite all of the distribution then, and warn in each worker that execnet
is imported already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from execnet import XSpec


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "execnet_preload",
        "modules that an interpreter imports from which pytest-xdist's workers are forked, with commas between them",
        default="",
    )


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[XSpec]) -> None:
    modules = ",".join(config.getini("execnet_preload").replace(",", " ").split())
    for spec in specs:
        if modules and spec.preload is None and can_preload(spec):
            spec.preload = modules


def can_preload(spec: XSpec) -> bool:
    return not spec.isolate and bool(spec.popen or (spec.ssh and not spec.via))
