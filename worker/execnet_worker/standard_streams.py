"""What descriptors 0 to 2 are to be, as HELLO says it; src/gateway/standard_streams.cpp is the same of a native worker.
"""

import os
import sys

from .system import PY3

STANDARD_STREAMS = {
    "stdin": ("inherit", "devnull", "close"),
    "stdout": ("inherit", "devnull", "close", "stderr", "callback"),
    "stderr": ("inherit", "devnull", "close"),
}


def names_no_stream(hello):
    """Which of its keys has a value that is none of these, or None."""
    wrong = [key for key in sorted(STANDARD_STREAMS) if hello[key] not in STANDARD_STREAMS[key]]
    return wrong[0] if wrong else None


def set_standard_streams(hello):
    """REQUIRES: descriptor 2 is the stderr of the code already."""
    for number, key in ((0, "stdin"), (2, "stderr"), (1, "stdout")):  # stdout may follow stderr
        wanted = hello[key]
        if wanted == "stderr":
            os.dup2(2, 1)
        elif wanted in ("devnull", "close"):
            # One that is closed is the null device the wrong way round: calls fail as of a closed one, with EBADF, but
            # the number is not given to the next file that is opened, for stray output to go into.
            for_reading = (number == 0) == (wanted == "devnull")
            null = os.open(os.devnull, os.O_RDONLY if for_reading else os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
            if PY3 and wanted == "close":
                setattr(sys, key, None)  # as an interpreter has it that is started without
