"""The same for the Python package: dumps and loads. count.py runs this under callgrind.

python hot_paths.py LIBRARY, which is counting.cpp
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable

from work import report

import execnet

VALUES: dict[str, object] = {"10,000 ints": list(range(10_000)), "a nested report": report(500)}


def main() -> None:
    counting = ctypes.CDLL(sys.argv[1])
    counting.tool_chain.restype = ctypes.c_char_p
    print(f"{counting.tool_chain().decode()}, CPython {'.'.join(map(str, sys.version_info[:2]))}")

    def count(name: str, path: Callable[[], object]) -> None:
        path()  # what comes only once
        counting.begin_counting()
        path()
        counting.end_counting(name.encode())

    gc.disable()
    for name, value in VALUES.items():
        data = execnet.dumps(value)
        assert execnet.loads(data) == value
        count(f"dumps {name}", lambda value=value: execnet.dumps(value))
        count(f"loads {name}", lambda data=data: execnet.loads(data))


if __name__ == "__main__":
    main()
