"""Fork servers for tests, in every place where there can be one."""

from __future__ import annotations

from pathlib import Path

import pytest

import execnet
from preload import ELSEWHERE, HERE, Preload
from sshd import PrivateSshd


@pytest.fixture(params=HERE)
def preload(request: pytest.FixtureRequest, group: execnet.Group, tmp_path: Path) -> Preload:
    """Forked workers whose fork server is on this host, without a proxy."""
    return Preload(group, tmp_path, request.param)


@pytest.fixture(params=ELSEWHERE)
def far(request: pytest.FixtureRequest, sshd: PrivateSshd, group: execnet.Group, tmp_path: Path) -> Preload:
    """Forked workers whose fork server was started by a proxy."""
    return Preload(group, tmp_path, request.param)


@pytest.fixture(params=[*HERE, *ELSEWHERE])
def anywhere(request: pytest.FixtureRequest, sshd: PrivateSshd, group: execnet.Group, tmp_path: Path) -> Preload:
    return Preload(group, tmp_path, request.param)
