"""What remote_exec runs."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import sys
import unittest

from worker_client import CHUNK, DATA, LAST, MORE, PY3, LiveTest, hello, load, status


class Executing(LiveTest):
    def test_echo_and_close(self):
        client = self.start()
        number = client.execute("for item in channel: channel.send(item)")
        for value in (1, None, [1, {u"a": (2.5, u"\xe4")}], 10**50, frozenset([1]), b"" if PY3 else u""):
            client.item(number, value)
            self.assertEqual(client.receive(number), value)
        client.send(LAST, number)
        client.closed(number)
        self.assertEqual(client.status()["numexecuting"], 0)

    def test_big_messages_travel_in_chunks(self):
        client = self.start()
        number = client.execute("channel.send(channel.receive())")
        value = u"\xe4bcdefgh" * 100000
        client.item(number, value)
        sizes, chunks = [], []
        while True:
            kind, flags, channel, payload, credit = client.read_frame()
            self.assertEqual((kind, channel), (DATA, number))
            sizes.append((flags, len(payload), credit))
            chunks.append(payload)
            if not flags:
                break
        total = 5 + 900000 + 1
        self.assertEqual(sizes, [(MORE, CHUNK, 0)] * 3 + [(0, total - 3 * CHUNK, 0)])
        self.assertEqual(load(b"".join(chunks)), value)
        client.closed(number)

    def test_functions_get_channel_and_arguments(self):
        client = self.start()
        source = "def f(channel, a, b=2):\n    channel.send((a, b))\n"
        number = client.execute(source, function=u"f", kwargs={u"a": 5})
        self.assertEqual(client.receive(number), (5, 2))
        client.closed(number)

    def test_one_in_the_main_thread_others_beside_it(self):
        client = self.start()
        source = """
            import threading
            channel.send(threading.current_thread().name)
            channel.receive()
            """
        first = client.execute(source)
        self.assertEqual(client.receive(first), "MainThread")
        second = client.execute(source)
        self.assertEqual(client.receive(second), "execnet exec %d" % second)
        self.assertEqual(client.status(), status(2))
        client.item(first, 1)
        client.closed(first)
        third = client.execute(source)
        self.assertEqual(client.receive(third), "MainThread")
        for number in (second, third):
            client.item(number, 1)
            client.closed(number)
        for _ in range(20):
            number = client.execute("import threading; channel.send(threading.current_thread().name)")
            self.assertEqual(client.receive(number), "MainThread")
            client.closed(number)
        self.assertEqual(client.status(), status(0))

    def test_main_thread_only_refuses_a_second_after_a_grace(self):
        client = self.start(greeting=hello(execmodel=u"main_thread_only"))
        source = "import threading; channel.send(threading.current_thread().name); channel.receive()"
        first = client.execute(source)
        self.assertEqual(client.receive(first), "MainThread")
        second = client.execute(source)
        error = client.error(second)
        self.assertEqual(error, "concurrent remote_exec would cause deadlock for main_thread_only execmodel")
        self.assertEqual(client.status()["numexecuting"], 1)
        third = client.execute(source)  # comes to its turn in time
        client.item(first, None)
        client.closed(first)
        self.assertEqual(client.receive(third), "MainThread")
        client.item(third, None)
        client.closed(third)
        self.assertEqual(client.terminate(), 0)

    def test_closing_the_executing_channel_is_refused(self):
        client = self.start()
        number = client.execute(
            """
            try:
                channel.close()
            except EnvironmentError as error:
                channel.send(str(error))
            """
        )
        self.assertEqual(client.receive(number), "cannot explicitly close channel within remote_exec")
        client.closed(number)

    def test_forked_children_are_cut_off(self):
        if sys.version_info < (3, 7):
            self.skipTest("os.register_at_fork is new in 3.7")
        client = self.start()
        number = client.execute(
            """
            import os
            child = os.fork()
            if child == 0:
                try:
                    channel.send("from the child")
                except OSError as error:
                    assert "forked child" in str(error)
                else:
                    assert False
            else:
                channel.send(os.waitpid(child, 0)[1])
            """
        )
        self.assertEqual(client.receive(number), 0)
        client.closed(number)
        self.assertEqual(client.terminate(), 0)


if __name__ == "__main__":
    unittest.main()
