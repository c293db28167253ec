"""Workers at a socketserver.py: what the coordinator's line does there."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import base64
import io
import os
import socket
import subprocess
import sys
import tempfile
import unittest

from worker_client import HELLO, PATIENCE, Client, LiveTest, compressed, dump, frame, hello, load

HERE = os.path.dirname(os.path.abspath(__file__))

with io.open(os.path.join(HERE, "line_worker.py"), encoding="ascii") as file:
    SOURCE = file.read()
# Runs a line for one connection, its stdin, like the released server: by the name it has there.
SERVER = """
import socket, sys
clientsock = socket.fromfd(0, socket.AF_INET, socket.SOCK_STREAM)
with open(sys.argv[1]) as file:
    exec(compile(file.read(), "<socket server>", "exec"), {"clientsock": clientsock})
sys.stdout.write("the server goes on")
"""


def connection():
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(1)
    here = socket.create_connection(server.getsockname())
    there = server.accept()[0]
    server.close()
    return here, there


class ServerClient(Client):
    def __init__(self):
        self.socket, there = connection()
        self.socket.settimeout(PATIENCE)
        self._buffer, self.next_id = b"", 1
        self.out, self.err, self.real_err = (tempfile.TemporaryFile() for _ in range(3))
        with tempfile.NamedTemporaryFile() as line:
            words = [base64.b64encode(part).decode() for part in (frame(HELLO, 0, dump(hello())), compressed())]
            line.write((SOURCE + 'run(clientsock,"%s","%s")' % tuple(words)).encode())
            line.flush()
            argv = [sys.executable, "-c", SERVER, line.name]
            self.process = subprocess.Popen(argv, stdin=there, stdout=self.out, stderr=self.err)
            there.close()
            assert self.take(8) == b"EXECNET\x01", self.captured(self.err)
        kind, number, payload = self.read()
        assert (kind, number) == (HELLO, 0), (kind, number)
        self.hello = load(payload)


class Serving(LiveTest):
    def start(self):
        client = ServerClient()
        self.addCleanup(client.close)
        return client

    def test_another_process_than_the_server_is_the_worker(self):
        client = self.start()
        number = client.execute(
            """
            import os, sys
            channel.send((os.getpid(), sys.argv))
            channel.send(channel.receive())
            """
        )
        pid, argv = client.receive(number)
        self.assertNotEqual(pid, client.process.pid)
        self.assertEqual(argv, ["-c"])
        client.item(number, b"x" * 1000000)
        self.assertEqual(client.receive(number), b"x" * 1000000)
        client.closed(number)
        self.assertEqual(client.terminate(), 0)
        self.assertEqual(client.captured(client.out), "the server goes on")

    def test_it_runs_its_exit_handlers_and_not_the_code_of_the_server(self):
        client = self.start()
        number = client.execute("import atexit, os; atexit.register(os.write, 2, b'handled')")
        client.closed(number)
        self.assertEqual(client.terminate(), 0)
        self.assertEqual(client.captured(client.err), "handled")
        self.assertEqual(client.captured(client.out), "the server goes on")

    def test_it_ends_with_its_connection(self):
        client = self.start()
        client.socket.shutdown(socket.SHUT_RDWR)
        self.assertEqual(client.wait(), 0)
        self.assertEqual(client.captured(client.out), "the server goes on")


if __name__ == "__main__":
    unittest.main()
