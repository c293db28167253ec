"""Who reads: the receiver, or the thread that waits."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import os
import signal
import struct
import textwrap
import unittest

from worker_client import CHUNK, CLOSE, DATA, LAST, PY3, LiveTest, dump, frame, load, text_type, worker


class Reading(LiveTest):
    """What the main thread waits for it reads itself, where it has waited for the last item, too: worker's Incoming."""

    SOURCE = """
        def answer(item):
            channel.send((item, incoming._reads_made))

        incoming = channel._connection.incoming
        other = channel.gateway.newchannel()
        channel.send(other)
        for item in channel:
            if item == u"call":
                for call in other:  # on the main thread
                    exec(call)
            answer(item)
    """

    def setUp(self):
        LiveTest.setUp(self)
        self.client = self.start()
        self.number = self.client.execute(self.SOURCE)
        self.other = self.received_channel(self.number)

    def received_channel(self, number):
        """The id of the channel that is the next item, which has to be on that channel."""
        kind, at, payload = self.client.read()
        self.assertEqual((kind, at), (DATA, number))
        return struct.unpack(">i", payload[-5:-1])[0]

    def echo(self):
        """How many reads the main thread has made, at all."""
        self.client.item(self.number, u"echo")
        item, reads = self.client.receive(self.number)
        self.assertEqual(item, u"echo")
        return reads

    def lend(self):
        """Until the main thread has read one item itself, where it does, and then waits for the next one."""
        if worker["Incoming"].LENDS:
            before = self.echo()
            while self.echo() == before:
                pass

    def call(self, *sources):
        """Has the main thread run that, one after the other."""
        self.client.item(self.number, u"call")
        for source in sources:
            self.client.item(self.other, text_type(textwrap.dedent(source)))

    def test_all_else_is_still_heard(self):
        self.lend()
        self.assertEqual(self.client.status()["numexecuting"], 1)
        self.lend()
        beside = self.client.execute("for item in channel: channel.send(item)")
        self.client.item(beside, 1)
        self.assertEqual(self.client.receive(beside), 1)
        self.echo()
        self.client.item(beside, 2)
        self.assertEqual(self.client.receive(beside), 2)
        self.client.send(LAST, beside)
        self.client.closed(beside)
        self.lend()
        self.client.item(self.number, u"x" * 3 * CHUNK)
        self.assertEqual(len(self.client.receive(self.number)[0]), 3 * CHUNK)
        self.lend()
        self.assertEqual(self.client.terminate(), 0)

    def test_several_items_at_once_come_in_order(self):
        for round in range(20):
            self.lend()
            items = [u"%d" % i for i in range(round)]
            self.client.write(b"".join([frame(DATA, self.number, dump(item)) for item in items]))
            self.assertEqual([self.client.receive(self.number)[0] for _ in items], items)

    def test_a_frame_in_pieces(self):
        self.lend()
        data = frame(DATA, self.number, dump(u"in pieces"))
        for at in range(len(data)):
            self.client.write(data[at : at + 1])
            if at % 5 == 0:
                self.client.wait_until_asleep()
        self.assertEqual(self.client.receive(self.number)[0], u"in pieces")
        self.lend()

    def test_other_threads_get_theirs(self):
        self.call("""
            import threading
            third = channel.gateway.newchannel()
            other.send(third)
            def echo():
                for item in third:
                    third.send(item)
            threading.Thread(target=echo).start()
        """)
        third = self.received_channel(self.other)
        for i in range(100):
            self.client.item(third, i)
            self.assertEqual(self.client.receive(third), i)
        self.client.send(CLOSE, third)
        self.assertEqual(self.client.read(), (CLOSE, third, b""))

    def test_what_comes_while_the_main_thread_works_is_read(self):
        self.lend()
        self.call("""
            import threading
            incoming.may_go_on = threading.Event()
            other.send(u"works")
            incoming.may_go_on.wait()
            other.send(u"goes on")
        """)
        self.assertEqual(self.client.receive(self.other), u"works")
        beside = self.client.execute("channel._connection.incoming.may_go_on.set()")
        got = [self.client.read(), self.client.read()]
        self.assertEqual(set([got[0][:2], got[1][:2]]), set([(CLOSE, beside), (DATA, self.other)]))

    def test_a_channel_that_is_closed_beside_it(self):
        self.lend()
        self.call("""
            import threading, time
            third = channel.gateway.newchannel()
            other.send(third)
            def close():
                while not third._state.waiters:  # which is all that tells that the main thread waits
                    time.sleep(0.001)
                third.close()
            for item in third:
                other.send(item)
                if item == 9:
                    threading.Thread(target=close).start()
            other.send(u"ended")
        """)
        third = self.received_channel(self.other)
        for i in range(10):
            self.client.item(third, i)
            self.assertEqual(self.client.receive(self.other), i)
        got = [self.client.read(), self.client.read()]
        self.assertEqual(set([got[0][:2], got[1][:2]]), set([(CLOSE, third), (DATA, self.other)]))

    @unittest.skipUnless(PY3, "no handler runs there while the main thread waits for a lock")
    def test_a_signal_handler_may_receive(self):
        self.call("""
            import signal
            third = channel.gateway.newchannel()
            other.send(third)
            def handle(*_):
                third.send(u"handling")
                third.send(third.receive())
            signal.signal(signal.SIGUSR1, handle)
            for item in other:
                other.send(item)
        """)
        third = self.received_channel(self.other)
        for i in range(30):
            for _ in range(i % 3):
                self.client.item(self.other, u"before")
                self.assertEqual(self.client.receive(self.other), u"before")
            self.client.wait_until_asleep()
            os.kill(self.client.process.pid, signal.SIGUSR1)
            self.assertEqual(self.client.receive(third), u"handling")
            if i % 2:
                self.client.item(self.other, i)
                self.client.item(third, -i)
            else:
                self.client.item(third, -i)
                self.assertEqual(self.client.receive(third), -i)
                self.client.item(self.other, i)
            got = [self.client.read() for _ in range(1 + i % 2)]
            expected = [(self.other, i)] + [(third, -i)] * (i % 2)
            self.assertEqual(sorted((number, load(payload)) for _, number, payload in got), sorted(expected))

    @unittest.skipUnless(PY3, "no handler runs there while the main thread waits for a lock")
    def test_a_signal_handler_may_wait_for_what_a_callback_gets(self):
        self.lend()
        self.call("""
            import signal, threading
            third, there = channel.gateway.newchannel(), threading.Event()
            other.send(third)
            third.setcallback(lambda item: there.set())
            def handle(*_):
                other.send(u"handling")
                there.wait()
            signal.signal(signal.SIGUSR1, handle)
            for item in other:
                other.send(item)
        """)
        third = self.received_channel(self.other)
        for i in range(10):
            self.client.item(self.other, i)
            self.assertEqual(self.client.receive(self.other), i)
        self.client.wait_until_asleep()
        os.kill(self.client.process.pid, signal.SIGUSR1)
        self.assertEqual(self.client.receive(self.other), u"handling")
        self.client.item(third, u"go on")
        self.client.item(self.other, u"after it")
        self.assertEqual(self.client.receive(self.other), u"after it")

    def test_an_item_with_a_channel(self):
        self.lend()
        number = self.client.new_id()
        written = struct.pack(">Bi", worker["CHANNEL"], number)
        self.client.send(DATA, self.number, written + struct.pack(">B", worker["STOP"]))
        self.assertEqual(self.client.read()[2][:5], written)
        self.client.send(CLOSE, number)
        self.assertEqual(self.client.read(), (CLOSE, number, b""))
        self.lend()

    @unittest.skipUnless(worker["Incoming"].LENDS, "there the end of a `with` block may be interrupted")
    def test_nothing_gets_out_of_step_by_interrupts(self):
        self.call("""
            import signal, threading, time
            main, armed, over = threading.get_ident(), threading.Event(), []
            def interrupt():
                delay = 0
                while not over:
                    armed.wait()
                    armed.clear()
                    delay = (delay + 0.000017) % 0.0007
                    time.sleep(delay)  # each time it hits another step of what the main thread does
                    signal.pthread_kill(main, signal.SIGINT)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            threading.Thread(target=interrupt).start()
            interrupts, got, coming = 0, [-1], False
            while got[-1] != 1000:
                item = None
                if not coming:  # never two at once
                    coming = True
                    armed.set()
                try:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
                    item = other.receive()
                    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
                except KeyboardInterrupt:
                    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
                    interrupts += 1
                    coming = False
                if item is not None:
                    got.append(item)
                other.send(item)
            over.append(1)
            armed.set()
            other.send((got[1:], interrupts))
        """)
        sent = 0
        self.client.item(self.other, sent)
        while sent < 1000:
            # None: interrupted. The item may have got lost in it, when receive() was about to return it.
            if self.client.receive(self.other) in (sent, None):
                sent += 1
                self.client.item(self.other, sent)
        got = self.client.receive(self.other)
        while type(got) is not tuple:
            got = self.client.receive(self.other)
        got, interrupts = got
        self.assertEqual(got, sorted(set(got)))
        self.assertGreaterEqual(len(got) + interrupts, 1000)
        self.assertGreater(interrupts, 0)


class ReadingAlone(LiveTest):
    """Where nothing can be lent to the main thread."""

    SOURCE = "for item in channel: channel.send(item)"

    def check(self, before):
        client = self.start()
        number = client.execute(textwrap.dedent(before) + self.SOURCE)
        for i in range(20):
            client.item(number, i)
            self.assertEqual(client.receive(number), i)
        client.send(LAST, number)
        client.closed(number)
        self.assertEqual(client.terminate(), 0)

    def test_without_a_descriptor_left(self):
        self.check("""
            import os, resource
            descriptor = os.dup(2)
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        """)

    def test_where_poll_was_replaced(self):
        self.check("""
            import select
            select.poll = lambda: 1 // 0
        """)


if __name__ == "__main__":
    unittest.main()
