"""Channels with their windows, as code in the worker sees them."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import os
import signal
import struct
import sys
import unittest

from worker_client import (
    ABORT,
    CLOSE,
    CLOSE_ERROR,
    CREDIT,
    DATA,
    LAST,
    MORE,
    PY3,
    RECONFIGURE,
    WINDOW,
    LiveTest,
    dump,
    frame,
    hello,
    load,
)


class Channels(LiveTest):
    def run_checks(self, source, *items):
        """Runs source that raises when something is wrong, after it was sent the items."""
        client = self.start()
        number = client.execute(source)
        for item in items:
            client.item(number, item)
        return client, number

    def test_any_number_is_a_timeout_but_nan(self):
        client, number = self.run_checks(
            """
            from fractions import Fraction
            for timeout in (-1e300, -(10**400), float("-inf"), Fraction(-1, 3), False, Fraction(1, 1000)):
                for call in (channel.receive, channel.waitclose):
                    try:
                        call(timeout=timeout)
                    except channel.TimeoutError:
                        pass
                    else:
                        assert False, timeout
            for call in (channel.receive, channel.waitclose, lambda timeout: channel.send(0, timeout=timeout)):
                try:
                    call(timeout=float("nan"))
                except ValueError as error:
                    assert "not nan" in str(error), error
                else:
                    assert False
            channel.send("asks")
            for timeout in (float("inf"), 1e300, 1e9, 10**400, Fraction(10**400, 3)):
                channel.send(channel.receive(timeout=timeout), timeout=timeout)
            """
        )
        self.assertEqual(client.receive(number), "asks")
        for item in range(5):
            client.item(number, item)
            self.assertEqual(client.receive(number), item)

    def test_receive_waits_no_longer_than_told(self):
        client, number = self.run_checks(
            """
            import time
            for timeout in (0, -1, 0.01):
                try:
                    channel.receive(timeout=timeout)
                except channel.TimeoutError as error:
                    assert isinstance(error, EnvironmentError), error
                else:
                    assert False
            try:
                channel.waitclose(timeout=0)
            except channel.TimeoutError:
                pass
            else:
                assert False
            channel.send(1)
            assert channel.receive(timeout=1000) == 5
            """
        )
        self.assertEqual(client.receive(number), 1)
        client.item(number, 5)
        client.closed(number)

    def test_remote_errors_are_raised_once(self):
        client, number = self.run_checks(
            """
            other = channel.gateway.newchannel()
            channel.send(other)
            assert other.receive() == 1
            try:
                other.receive()
            except other.RemoteError as error:
                assert error.formatted == u"went wrong", error
                assert str(error) == "went wrong"
            else:
                assert False
            try:
                other.receive()
            except EOFError:
                pass
            else:
                assert False
            other.waitclose()
            assert other.isclosed() and repr(other) == "<Channel id=2 closed>", repr(other)
            """
        )
        self.assertEqual(client.receive(number), ("channel", 2))
        client.item(2, 1)
        client.send(CLOSE_ERROR, 2, dump(u"went wrong"))
        self.assertEqual(sorted([client.read(), client.read()]), [(CLOSE, number, b""), (CLOSE, 2, b"")])

    def test_channels_over_channels_are_the_same_object(self):
        client = self.start()
        number = client.execute(
            """
            one, two = channel.receive()
            assert one is two and one is not channel
            assert channel.receive() is channel
            one.send(one.receive() + 1)
            channel.send([one])
            """
        )
        side = client.new_id()
        client.item(side, 41)  # before the reference has come
        reference = b"B" + struct.pack(">i", side)
        client.send(DATA, number, reference * 2 + b"@\0\0\0\x02Q")
        client.send(DATA, number, b"B" + struct.pack(">i", number) + b"Q")
        self.assertEqual(client.receive(side), 42)
        self.assertEqual(client.receive(number), [("channel", side)])

    def test_the_end_of_a_channel_that_was_not_referred_to_yet_is_kept(self):
        client = self.start()
        number = client.execute("side = channel.receive(); channel.send(list(side))")
        side = client.new_id()
        client.item(side, 1)
        client.item(side, 2)
        client.send(CLOSE, side)
        self.assertEqual(client.read(), (CLOSE, side, b""))
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        self.assertEqual(client.receive(number), [1, 2])
        client.closed(number)
        number = client.execute("side = channel.receive(); channel.send((side.isclosed(), list(side)))")
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        self.assertEqual(client.receive(number), (True, []))

    def test_a_dropped_channel_is_closed_once(self):
        client = self.start()
        number = client.execute(
            """
            import gc
            other = channel.gateway.newchannel()
            channel.send(other.id)
            channel.receive()
            del other
            gc.collect()
            channel.receive()
            """
        )
        other = client.receive(number)
        client.item(number, None)
        self.assertEqual(client.read(), (CLOSE, other, b""))
        client.item(other, 5)  # crosses the CLOSE, is ignored
        client.send(CLOSE, other)
        client.item(number, None)
        client.closed(number)
        self.assertEqual(client.status()["numchannels"], 0)

    def test_a_dropped_channel_with_a_callback_goes_on_receiving(self):
        client = self.start()
        number = client.execute(
            """
            import gc
            other = channel.gateway.newchannel()
            other.setcallback(channel.send, endmarker="end")
            channel.send(other.id)
            channel.receive()
            del other
            gc.collect()
            channel.receive()
            """
        )
        other = client.receive(number)
        client.item(other, 1)
        self.assertEqual(client.receive(number), 1)
        client.item(number, None)
        self.assertEqual(client.read(), (LAST, other, b""))
        client.item(other, 2)
        self.assertEqual(client.receive(number), 2)
        client.send(CLOSE, other)
        frames = sorted([client.read(), client.read()])
        self.assertEqual(frames, [(DATA, number, dump("end")), (CLOSE, other, b"")])
        client.item(number, None)
        client.closed(number)
        self.assertEqual(client.status()["numchannels"], 0)

    def test_channels_dropped_with_the_lock_held_do_no_harm(self):
        client = self.start()
        number = client.execute(
            """
            import gc, threading
            set_threshold = getattr(gc, "set_threshold", lambda count: None)  # PyPy has none
            set_threshold(1)
            class Holder(object): pass
            def drop(count):
                for _ in range(count):
                    holder = Holder()
                    holder.itself, holder.channel = holder, channel.gateway.newchannel()
            threads = [threading.Thread(target=drop, args=(100,)) for _ in range(3)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            del thread, threads
            set_threshold(700)
            for _ in range(6):  # PyPy takes one for every link
                gc.collect()
            channel.send("done")
            """
        )
        closed = set()
        done = False
        while not (done and len(closed) == 300):
            kind, other, _ = client.read()
            self.assertNotEqual(kind, CLOSE_ERROR)
            done = done or kind == CLOSE and other == number
            if kind == CLOSE and other != number:
                self.assertNotIn(other, closed)
                closed.add(other)
        self.assertEqual(closed, set(range(2, 602, 2)))

    def test_callbacks_get_everything_in_order_then_the_end_marker(self):
        client = self.start()
        number = client.execute(
            """
            import threading
            other = channel.receive()
            got, end, done = [], object(), threading.Event()
            threads = set()
            def callback(item):
                got.append(item)
                threads.add(threading.current_thread().name)
                if item is end:
                    got.append(type(other._getremoteerror()))
                    done.set()
            other.setcallback(callback, endmarker=end)
            for use in (other.receive, lambda: other.setcallback(callback)):
                try:
                    use()
                except EnvironmentError:
                    pass
                else:
                    assert False
            channel.send("set")
            assert done.wait(20)
            assert got[:-2] == list(range(20)) and got[-2] is end, got
            assert got[-1] is channel.RemoteError, got
            assert threads == set(["execnet dispatcher"]), threads
            """
        )
        side = client.new_id()
        for item in range(10):
            client.item(side, item)
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        self.assertEqual(client.receive(number), "set")
        for item in range(10, 20):
            client.item(side, item)
        client.send(CLOSE_ERROR, side, dump(u"error"))
        self.assertEqual(sorted([client.read(), client.read()]), [(CLOSE, number, b""), (CLOSE, side, b"")])

    def test_a_raising_callback_closes_with_the_error_on_both_sides(self):
        client = self.start()
        number = client.execute(
            """
            other = channel.gateway.newchannel()
            got = []
            def callback(item):
                got.append(item)
                if item != "end":
                    raise KeyError(item)
            other.setcallback(callback, endmarker="end")
            channel.send(other)
            try:
                other.waitclose()
            except other.RemoteError as error:
                assert "KeyError: 7" in error.formatted
            else:
                assert False
            while len(got) < 2:
                pass
            channel.send(got)
            """
        )
        _, other = client.receive(number)
        client.item(other, 7)
        client.item(other, 8)
        got = client.read()
        self.assertEqual(got[:2], (CLOSE_ERROR, other))
        self.assertIn('File "<remote exec>", line 7, in callback\n    raise KeyError(item)', load(got[2]))
        client.send(CLOSE, other)
        self.assertEqual(client.receive(number), [7, "end"])

    def test_last_ends_the_receiving_only(self):
        client, number = self.run_checks(
            """
            assert list(channel) == [1, 2]
            channel.waitclose()
            assert not channel.isclosed()
            assert repr(channel) == "<Channel id=1 sendonly>", repr(channel)
            channel.send(3)
            """,
            1,
            2,
        )
        client.send(LAST, number)
        self.assertEqual(client.receive(number), 3)
        client.closed(number)

    def test_close_with_an_error(self):
        client, number = self.run_checks(
            """
            other = channel.gateway.newchannel()
            channel.send(other)
            other.close(ValueError("why"))
            other.close()
            """
        )
        client.receive(number)
        kind, other, payload = client.read()
        self.assertEqual((kind, other, load(payload)), (CLOSE_ERROR, 2, "why"))
        client.closed(number)

    def test_files(self):
        client, number = self.run_checks(
            """
            source = channel.receive()
            reader = source.makefile("r")
            assert reader.readline() == u"ab\\n"
            assert reader.read(3) == u"cde"
            assert list(reader) == [u"f\\n", u"g"]
            assert reader.read() == u""
            other = channel.gateway.newchannel()
            channel.send(other)
            with other.makefile("w", proxyclose=True) as file:
                file.write("x")
                file.writelines(["y", "z"])
            assert other.isclosed()
            try:
                channel.makefile("rw")
            except ValueError:
                pass
            else:
                assert False
            """
        )
        side = client.new_id()
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        for text in (u"a", u"b\nc", u"def\n", u"g"):
            client.item(side, text)
        client.send(CLOSE, side)
        got = [client.read() for _ in range(7)]
        items = [load(payload) for kind, other, payload in got if (kind, other) == (DATA, 2)]
        self.assertEqual(items, ["x", "y", "z"])
        self.assertIn((CLOSE, 2, b""), got)
        self.assertIn((CLOSE, side, b""), got)
        self.assertIn((CLOSE, number, b""), got)

    def test_reconfigure_here_and_from_there(self):
        client = self.start()
        number = client.execute("for item in channel: channel.send(repr(item))")
        py2string, py3string = b"M\0\0\0\x01aQ", b"N\0\0\0\x01aQ"
        seen = []
        for config in ((True, False), (False, True)):
            client.send(RECONFIGURE, number, dump(config))
            for payload in (py2string, py3string):
                client.send(DATA, number, payload)
                seen.append(client.receive(number))
        self.assertEqual(seen, ["'a'", "'a'", "b'a'", "b'a'"] if PY3 else ["'a'", "u'a'", "'a'", "'a'"])
        client.send(CLOSE, number)
        self.assertEqual(client.read(), (CLOSE, number, b""))
        client.send(RECONFIGURE, 0, dump((False, False)))
        number = client.execute(
            "channel.send(repr(channel.receive())); channel.reconfigure(True, True); channel.gateway.reconfigure()"
        )
        client.send(DATA, number, py2string)
        self.assertEqual(client.receive(number), "b'a'" if PY3 else "'a'")
        self.assertEqual(client.read(), (RECONFIGURE, number, dump((True, True))))
        self.assertEqual(client.read(), (RECONFIGURE, 0, dump((True, False))))
        client.closed(number)

    def test_many_threads_send_whole_messages(self):
        client = self.start()
        number = client.execute(
            """
            import threading
            other = channel.gateway.newchannel()
            channel.send(other)
            def send(channel, base):
                for index in range(5):
                    channel.send([base + index] + [None] * 60000)
            threads = [threading.Thread(target=send, args=(c, b)) for c in (channel, other) for b in (0, 100, 200)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            """
        )
        client.receive(number)
        pending, seen = {}, {number: [], 2: []}
        while sum(len(items) for items in seen.values()) < 30:
            kind, flags, channel, payload, _ = client.read_frame()
            self.assertEqual(kind, DATA)
            pending.setdefault(channel, []).append(payload)
            if not flags:
                item = load(b"".join(pending.pop(channel)))
                self.assertEqual(len(item), 60001)
                seen[channel].append(item[0])
        for items in seen.values():
            for base in (0, 100, 200):
                part = [item for item in items if base <= item < base + 100]
                self.assertEqual(part, list(range(base, base + 5)))

    def test_a_big_message_does_not_hold_up_a_small_one(self):
        client = self.start()
        echo = client.execute("for item in channel: channel.send(item)")
        client.item(echo, 1)
        client.receive(echo)
        big = client.execute("channel.send('x' * 60000000)")
        self.assertEqual(client.read_frame()[:3], (DATA, MORE, big))
        client.item(echo, 2)
        frame = client.read_frame()
        while frame[2] == big:
            self.assertEqual(frame[1], MORE, "the whole big message came first")
            frame = client.read_frame()
        self.assertEqual(frame[2], echo)

    def test_an_interrupted_send_is_taken_back_or_whole(self):
        client = self.start()
        number = client.execute(
            """
            channel.send("ready")
            try:
                channel.send("x" * 20000000)
            except KeyboardInterrupt:
                channel.send("interrupted")
            """
        )
        self.assertEqual(client.receive(number), "ready")
        first = client.read_frame()
        self.assertEqual(first[:3], (DATA, MORE, number))
        os.kill(client.process.pid, signal.SIGINT)
        flags = MORE
        while flags == MORE:
            kind, flags, channel, payload, _ = client.read_frame()
            self.assertEqual((kind, channel), (DATA, number))
        self.assertEqual((flags, payload), (ABORT, b""))
        self.assertEqual(client.receive(number), "interrupted")
        client.closed(number)

    def test_execmodel_has_what_programs_use(self):
        client, number = self.run_checks(
            """
            model = channel.gateway.execmodel
            queue = model.queue.Queue()
            model.start(queue.put, (5,))
            assert queue.get(timeout=20) == 5
            model.RLock(), model.Event(), model.get_ident(), model.sleep(0), model.subprocess.Popen, model.socket.socket
            channel.send(model.backend)
            """
        )
        self.assertEqual(client.receive(number), "thread")
        client.closed(number)


class Windows(LiveTest):
    SOURCE = "for item in channel: channel.send(item)"

    def blocked(self, client):
        """Waits until a sender waits for room."""
        while client.status()["numblocked"] == 0:
            pass

    def test_a_sender_waits_for_credit(self):
        client = self.start(greeting=hello(window=800))
        number = client.execute("for i in range(5): channel.send(u'x' * 294)")
        for _ in range(2):
            self.assertEqual(len(client.receive(number)), 294)
        self.blocked(client)
        self.assertEqual(client.status()["outstanding"], 600)
        client.write(frame(CREDIT, number, credit=600))
        for _ in range(2):
            self.assertEqual(len(client.receive(number)), 294)
        self.blocked(client)
        client.write(frame(CREDIT, number, credit=100))
        self.assertEqual(len(client.receive(number)), 294)
        client.closed(number)

    def test_what_is_taken_is_told_by_eighths(self):
        client = self.start(greeting=hello(window=800))
        number = client.execute("for i in range(4): channel.receive()")
        for _ in range(3):
            client.item(number, u"x" * 54)
        self.assertEqual(client.read_frame(), (CREDIT, 0, number, b"", 120))
        client.item(number, None)
        client.closed(number)

    def test_without_a_window_nothing_is_told(self):
        client = self.start()
        number = client.execute("channel.send(len(channel.receive()))")
        client.item(number, u"x" * 100000)
        self.assertEqual(client.read_frame()[:3], (DATA, 0, number))

    def test_credit_that_crosses_with_a_close_or_is_for_nobody_is_ignored(self):
        client = self.start(greeting=hello(window=800))
        number = client.execute("channel.send(1)")
        self.assertEqual(client.receive(number), 1)
        client.closed(number)
        client.write(frame(CREDIT, number, credit=6) + frame(CREDIT, number + 100, credit=4000000000))
        self.assertEqual(client.status()["numchannels"], 0)
        self.assertEqual(client.terminate(), 0)

    def test_a_window_of_a_channel_is_told_to_the_other_end(self):
        client = self.start()
        source = """
            channel.set_window(1000)
            channel.send((channel.window, channel.outstanding))
            channel.set_window(None)
            channel.send(channel.window)
            """
        number = client.execute(source)
        self.assertEqual(client.read(), (WINDOW, number, dump(1000)))
        self.assertEqual(client.receive(number), (1000, 0))
        self.assertEqual(client.read(), (WINDOW, number, dump(None)))
        self.assertEqual(client.receive(number), None)
        client.closed(number)

    @unittest.skipUnless(PY3, "a signal does not interrupt a lock")
    def test_ctrl_c_ends_the_waiting_and_nothing_was_sent(self):
        client = self.start(greeting=hello(window=800))
        source = """
            channel.send(u"x" * 794)
            try:
                channel.send(u"late")
            except KeyboardInterrupt:
                outstanding = channel.outstanding
            channel.receive().send(outstanding)
            """
        number = client.execute(source)
        self.assertEqual(len(client.receive(number)), 794)
        self.blocked(client)
        client.wait_until_asleep()
        client.process.send_signal(signal.SIGINT)
        while client.status()["numblocked"]:
            pass
        answers = client.new_id()
        client.send(DATA, number, b"B" + struct.pack(">i", answers) + b"Q")
        self.assertEqual(client.receive(answers), 800)

    @unittest.skipUnless(
        sys.version_info >= (3, 10) and sys.implementation.name == "cpython",
        "a signal that comes at the end of a `with` keeps its lock taken",
    )
    def test_sends_interrupted_anywhere_leave_nothing_behind(self):
        client = self.start(greeting=hello(window=800))
        source = """
            import random, signal
            def interrupt(number, frame):
                if sending:
                    raise KeyboardInterrupt
            sending = False
            signal.signal(signal.SIGALRM, interrupt)
            for _ in range(5000):
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2e-4))
                try:
                    sending = True
                    channel.send(b"x" * 94)
                    sending = False
                except KeyboardInterrupt:
                    sending = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.send(None)
            channel.receive()
            """
        number = client.execute(source)
        payload = b""
        while payload != dump(None):
            kind, _, payload = client.read()
            self.assertEqual(kind, DATA)
            client.write(frame(CREDIT, number, credit=len(payload)))
        status = client.status()
        self.assertEqual((status["numblocked"], status["outstanding"]), (0, 0))


if __name__ == "__main__":
    unittest.main()
