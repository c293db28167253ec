"""Runs execnet.script.socketserver with the same arguments, and starts it again whenever it ends:

python -m execnet.script.loop_socketserver [[HOST]:PORT]
"""

from __future__ import annotations

import subprocess
import sys
import time


def main() -> None:
    """The command line."""
    while True:
        print("loop_socketserver starts a server", flush=True)
        status = subprocess.call([sys.executable, "-m", "execnet.script.socketserver", *sys.argv[1:]])
        if status != 0:  # the port is taken, say
            time.sleep(1)


if __name__ == "__main__":
    main()
