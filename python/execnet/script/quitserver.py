"""Ends a server of execnet.script.socketserver:

python -m execnet.script.quitserver HOST:PORT
"""

from __future__ import annotations

import socket
import sys


def quit_server(hostport: str) -> None:
    """Has the server that listens there end. Raises OSError if nobody does, ValueError for what is no address."""
    host, _, port = hostport.rpartition(":")
    with socket.create_connection((host.strip("[]") or "localhost", int(port)), timeout=60) as connection:
        connection.sendall(b'"raise KeyboardInterrupt"\n')


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        quit_server(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"quitserver: {error}")
