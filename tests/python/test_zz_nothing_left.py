"""The whole suite leaves nothing behind."""

from __future__ import annotations

import contextlib

import pytest

import execnet
from belongings import Belongings, left_behind


@pytest.mark.runs_last
def test_the_whole_suite_leaves_no_process_no_descriptor_and_no_thread(
    long_lived: contextlib.ExitStack, at_the_start: Belongings
) -> None:
    long_lived.close()
    assert len(execnet.default_group) == 0
    assert left_behind(at_the_start) == []
