"""`without_pidfds.py PROGRAM [ARGUMENT ...]`: runs a Python program for which pidfd_open(2) fails, and for all that it
starts: as with an old kernel or in a sandbox.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
MODE_FILTER = 2
PIDFD_OPEN = 434
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # instructions: a word of the call, a comparison, the end
ALLOW, REFUSE = 0x7FFF0000, 0x00050000


def refuse() -> None:
    code = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (LOAD, 0, 0, 0),
            (EQUAL, 0, 1, PIDFD_OPEN),
            (RETURN, 0, 0, REFUSE | errno.ENOSYS),
            (RETURN, 0, 0, ALLOW),
        )
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(PR_SET_SECCOMP, MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
