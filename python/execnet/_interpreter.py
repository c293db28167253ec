"""How this interpreter was started, for workers that are to be started alike."""

from __future__ import annotations

import _imp
import os
import sys

# Field of sys.flags -> the letter that raises it by one.
COUNTED = {
    "debug": "d",
    "optimize": "O",
    "dont_write_bytecode": "B",
    "no_site": "S",
    "verbose": "v",
    "bytes_warning": "b",
}
# What -I stands for.
ISOLATION = {"ignore_environment": "E", "no_user_site": "s"}


def options() -> list[str]:
    """The command line's options that bring another interpreter of this executable into the same state."""
    flags = sys.flags
    letters = [letter * int(getattr(flags, name)) for name, letter in COUNTED.items()]
    if flags.isolated:
        letters.append("I")
    else:
        letters += [letter for name, letter in ISOLATION.items() if getattr(flags, name)]
        # A worker of 3.13 and later may have it from its start: see kSafePath in transport.hpp.
        letters.append("P" if getattr(flags, "safe_path", False) and "" not in sys.path else "")
    words = [f"-{letter}" for letter in letters if letter]
    for name, value in sys._xoptions.items():
        words += ["-X", name if value is True else f"{name}={value}"]
    for filter_ in own_warning_filters():
        words += ["-W", filter_]
    if _imp.check_hash_based_pycs != "default":
        words += ["--check-hash-based-pycs", _imp.check_hash_based_pycs]
    return words


def own_warning_filters() -> list[str]:
    """Those of -W. The others come of other options, or of the environment, which workers inherit."""
    filters = list(sys.warnoptions)
    implied = ["default"] if "dev" in sys._xoptions else []
    if not sys.flags.ignore_environment:
        implied += ["default"] if os.environ.get("PYTHONDEVMODE") and not implied else []
        implied += [one.strip() for one in os.environ.get("PYTHONWARNINGS", "").split(",") if one.strip()]
    if filters[: len(implied)] == implied:
        del filters[: len(implied)]
    if sys.flags.bytes_warning and filters and filters[-1].endswith("::BytesWarning"):
        del filters[-1]
    return filters
