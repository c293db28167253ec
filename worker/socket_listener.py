"""Listens on the loopback device for the coordinator and starts a worker on its connection, for `socket//installvia=`.

Sent to the gateway that is to do it, and run there as listen(channel, ...) (src/gateway/socket_start.cpp). Other users
of the machine find the port and can connect to it, as often as they like. So the coordinator has bound its own socket
before: nobody else can connect from its address. Who connects from another one is closed at once, and on Linux the
kernel does not let him into the queue. Nothing that comes in is looked at before the token has come: the coordinator
may have ended, and another have its address.

Runs on Python 2.7, 3.6 and later, with the standard library only.
"""

import array
import errno
import hmac
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

MOST_WAITING = 4096  # connections; the kernel may allow fewer
# Of Linux, which Python does not name: SO_ATTACH_FILTER, the instructions of its filters (classic BPF), and where the
# IP header is for them (SKF_NET_OFF). For the socket of a listener the TCP header is at 0.
ATTACH_FILTER = 26
LOAD_HALF, LOAD_WORD, IF_EQUAL, RETURN = 0x28, 0x20, 0x15, 0x06
IP_HEADER = 0xFFF00000
now = getattr(time, "monotonic", time.time)


class Patience(object):
    """How long the coordinator is waited for: some seconds, and only while it wants the worker."""

    def __init__(self, channel, seconds):
        self._channel, self._seconds, self._end = channel, seconds, now() + seconds

    def check(self):
        if now() >= self._end or self._channel.isclosed():
            raise ValueError("nobody has said the token within %s seconds" % self._seconds)

    def wait_for(self, stream):
        """Until there is something to read, or to accept."""
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        while not poll.poll(int(max(0, min(self._end - now(), 1)) * 1000) + 1):
            self.check()


def place():
    """Where processes have the same one, they share the loopback device and the numbers of processes. Else empty."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot:
            names = [boot.read().strip()] + [os.readlink("/proc/self/ns/" + name) for name in ("net", "pid")]
        return " ".join(names)
    except EnvironmentError:
        return ""


def let_nobody_else_in(server, peer):
    """Has the kernel drop what does not come from that address, before it takes room in the queue."""
    host, port = peer
    address = socket.inet_pton(server.family, host)
    words = struct.unpack("!%dI" % (len(address) // 4), address)
    source = IP_HEADER + (12 if server.family == socket.AF_INET else 8)
    wanted = [(LOAD_HALF, 0, port)] + [(LOAD_WORD, source + 4 * i, word) for i, word in enumerate(words)]
    code = []
    for number, (load, where, value) in enumerate(wanted):
        to_the_last = 2 * (len(wanted) - number) - 1
        code += [(load, 0, 0, where), (IF_EQUAL, 0, to_the_last, value)]
    code += [(RETURN, 0, 0, 0xFFFFFFFF), (RETURN, 0, 0, 0)]  # all of it; nothing
    memory = array.array("B", b"".join(struct.pack("=HBBI", *one) for one in code))
    server.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HP", len(code), memory.buffer_info()[0]))


def serve(peer):
    """A socket that listens for that address. The filter stays with what is accepted, and lets all of it in."""
    server = socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.bind((peer[0], 0))
        try:
            if sys.platform.startswith("linux"):
                let_nobody_else_in(server, peer)
        except (AttributeError, EnvironmentError):
            pass  # then accept() alone tells them apart
        server.listen(MOST_WAITING)
        server.setblocking(False)
        return server
    except EnvironmentError:
        server.close()
        raise


def accept(server, peer, patience):
    """The connection from that address. Closes all others."""
    while True:
        patience.check()
        try:
            stream, address = server.accept()
        except EnvironmentError as error:
            if error.errno == errno.EAGAIN:
                patience.wait_for(server)
            elif error.errno != errno.ECONNABORTED:
                time.sleep(0.02)  # no descriptor is left
            continue
        if address[:2] == peer:
            stream.setblocking(True)
            return stream
        stream.close()


def check_token(stream, token, patience):
    said = b""
    while len(said) < len(token):
        patience.wait_for(stream)
        more = stream.recv(len(token) - len(said))
        if not more:
            break
        said += more
    if not hmac.compare_digest(said, token):
        raise ValueError("who has the address of the coordinator has not said the token")


def listen(channel, peer, token, argv, env, seconds):
    """Starts `argv` for who connects from `peer`, an address and a port, and says the token within so many seconds.

    Says (port, place) on the channel, then the pid.
    """
    peer = str(peer[0]), peer[1]
    patience = Patience(channel, seconds)
    server = serve(peer)
    try:
        channel.send((server.getsockname()[1], place()))
        stream = accept(server, peer, patience)
    finally:
        server.close()
    try:
        check_token(stream, token, patience)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        environ = dict(getattr(os, "environb", os.environ))
        environ.update(env)
        process = subprocess.Popen(argv, stdin=stream, stdout=stream, env=environ, close_fds=True)
    finally:
        stream.close()
    # A thread collects it, so that this ends and the gateway is free.
    collector = threading.Thread(target=process.wait)
    collector.daemon = True
    collector.start()
    channel.send(process.pid)
