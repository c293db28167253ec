"""The inside of a group."""

from __future__ import annotations

import os
import sys

from execnet import _core, _interpreter


def new_membership() -> _core.Membership:
    """Its plain `popen` members run this interpreter, with its options, and this extension."""
    origin = _core.__spec__.origin if _core.__spec__ else None
    return _core.Membership(
        python=os.fsencode(sys.executable or ""),
        native_module=os.fsencode(origin or ""),
        options=[os.fsencode(option) for option in _interpreter.options()],
    )
