"""A server for gateways with `socket=HOST:PORT`. It has no password and runs code of whoever can connect.

    python -m execnet.script.socketserver [[HOST]:PORT]

Without an argument it listens on the loopback device, at port 8888; with `:PORT` on all devices. It serves one
connection after the other. From each it reads a line, the text of a string in Python, and runs that; the names
`clientsock`, `address` and `execmodel` are there.

Sent to a gateway by remote_exec(), the module receives where to listen, sends the address that it listens at, and
serves one connection.
"""

import ast
import contextlib
import os
import socket
import sys

DEFAULT = "127.0.0.1:8888"


def _say(*words: object) -> None:
    print("socketserver", *words, flush=True)


def _split(hostport: str) -> "tuple[str, int]":
    host, colon, port = hostport.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{hostport!r} is no address: it has the form HOST:PORT, for example {DEFAULT}")
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host, int(port)


def bind_and_listen(hostport: "str | tuple[str, int]", execmodel: object = None) -> socket.socket:
    """A socket that listens there. No host means all devices; ValueError for what is no address."""
    host, port = _split(hostport) if isinstance(hostport, str) else (hostport[0], hostport[1])
    # As long as nobody waits in another greenlet, any model can do with the socket of the standard library.
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(128)
    except OSError:
        server.close()
        raise
    return server


def _read_line(stream: socket.socket) -> bytes:
    """The bytes up to the first newline, or to the end. What follows is left to whoever gets the socket."""
    line = bytearray()
    while not line.endswith(b"\n"):
        ahead = stream.recv(65536, socket.MSG_PEEK)
        if not ahead:
            break
        line += stream.recv(ahead.find(b"\n") + 1 or len(ahead))
    return bytes(line)


def exec_from_one_connection(serversock: socket.socket, execmodel: object = None) -> None:
    """Waits for a connection, and runs what comes over it."""
    clientsock, address = serversock.accept()
    _say("has a connection from", address)
    text = ast.literal_eval(_read_line(clientsock).decode("utf-8").strip())
    code = compile(text + "\n", "<socket server>", "exec")
    exec(code, {"clientsock": clientsock, "address": address, "execmodel": execmodel})


def startserver(serversock: socket.socket, loop: bool = False, execmodel: object = None) -> None:
    """Serves one connection, or with `loop` one after the other, until code raises KeyboardInterrupt or SystemExit."""
    directory = os.getcwd()
    try:
        while True:
            _say("listens at", serversock.getsockname())
            try:
                exec_from_one_connection(serversock, execmodel)
            except Exception as error:
                _say(f"has caught {type(error).__name__}: {error}")
            os.chdir(directory)
            if not loop:
                break
    finally:
        serversock.close()


def main() -> None:
    """The command line."""
    if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
        del sys.path[0]  # where this file has the name of a module of the standard library
    from execnet.gateway_base import get_execmodel

    if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    try:
        server = bind_and_listen(sys.argv[1] if len(sys.argv) == 2 else DEFAULT)
    except (OSError, ValueError) as error:
        sys.exit(f"socketserver: {error}")
    with contextlib.suppress(KeyboardInterrupt):
        startserver(server, loop=True, execmodel=get_execmodel("thread"))


if __name__ == "__main__":
    main()
elif __name__ == "__channelexec__":
    channel = globals()["channel"]
    _listener = bind_and_listen(channel.receive())
    channel.send(_listener.getsockname())
    startserver(_listener, execmodel=channel.gateway.execmodel)
