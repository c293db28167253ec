"""Code that fails: its tracebacks."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import os
import signal
import struct
import unittest

from worker_client import CLOSE, DATA, LAST, PY3, LiveTest, dump


class Failing(LiveTest):
    def fail_with(self, source, **options):
        client = self.start()
        number = client.execute(source, **options)
        error = client.error(number)
        again = client.execute("channel.send(1)")
        self.assertEqual(client.receive(again), 1)
        return error

    def test_the_traceback_has_file_line_and_source_of_what_was_sent(self):
        source = "def f(channel):\n    def inner():\n        raise KeyError('gone')\n    inner()\n"
        error = self.fail_with(source, filename=u"/no/such/file.py", first_line=41, function=u"f")
        self.assertIn('File "/no/such/file.py", line 44, in f\n    inner()\n', error)
        self.assertIn("File \"/no/such/file.py\", line 43, in inner\n    raise KeyError('gone')\n", error)
        self.assertIn("KeyError: 'gone'", error)
        self.assertTrue(error.startswith("Traceback (most recent call last):\n"))
        self.assertNotIn("execnet worker", error)

    def test_sources_of_the_same_name_are_not_mixed_up(self):
        client = self.start()
        waits = client.execute("channel.send(0)\nchannel.receive()\nassert 1 == 2, 'first'")
        client.receive(waits)
        number = client.execute("1\n2\nassert 3 == 4, 'second'")
        error = client.error(number)
        self.assertIn('File "<remote exec>", line 3, in <module>\n    assert 3 == 4', error)
        client.item(waits, None)
        self.assertIn('File "<remote exec>", line 3, in <module>\n    assert 1 == 2', client.error(waits))

    def test_worker_frames_are_cut_off(self):
        error = self.fail_with("channel.send([object])")
        self.assertNotIn("execnet worker", error)
        self.assertIn('File "<remote exec>", line 1, in <module>\n    channel.send([object])\n', error)
        self.assertIn("DumpError: can't serialize %r at [0]" % type, error)

    def test_syntax_errors(self):
        error = self.fail_with("a = 1\nb = = 2\n", filename=u"/no/file.py", first_line=10)
        self.assertIn('File "/no/file.py", line 11', error)
        self.assertIn("b = = 2", error)
        self.assertIn("SyntaxError", error)

    def test_null_bytes_in_the_source(self):
        self.assertIn("null byte", self.fail_with("a = '\0'"))

    def test_chained_exceptions(self):
        error = self.fail_with("try:\n    1 / 0\nexcept Exception:\n    raise ValueError(u'\\xe4')\n")
        self.assertIn("ValueError", error)
        if PY3:
            self.assertIn("ZeroDivisionError", error)
            self.assertIn("    1 / 0\n", error)
            self.assertIn(u"\xe4", error)

    def test_errors_with_odd_text(self):
        error = self.fail_with("class Odd(Exception):\n    def __str__(self): raise KeyError\nraise Odd")
        self.assertIn("Odd", error)
        if PY3:
            self.assertIn("\\ud800", self.fail_with("raise ValueError('\\ud800')"))
        else:
            self.assertIn("Classic", self.fail_with("class Classic: pass\nraise Classic()"))

    def test_exit_and_interrupts_are_reported(self):
        self.assertIn("SystemExit: 3", self.fail_with("import sys; sys.exit(3)"))
        self.assertIn("KeyboardInterrupt", self.fail_with("raise KeyboardInterrupt"))
        self.assertIn("GeneratorExit", self.fail_with("raise GeneratorExit"))

    def test_sigint_interrupts_the_main_thread_only_when_it_is_busy(self):
        client = self.start()
        for _ in range(3):
            os.kill(client.process.pid, signal.SIGINT)
        number = client.execute("import time; channel.send(1); time.sleep(1000)")
        self.assertEqual(client.receive(number), 1)
        client.wait_until_asleep()
        os.kill(client.process.pid, signal.SIGINT)
        self.assertIn("KeyboardInterrupt", client.error(number))
        self.assertEqual(client.terminate(), 0)

    def test_deep_recursion(self):
        error = self.fail_with("def f(n):\n    return f(n + 1)\nf(0)")
        self.assertIn("ecursion", error)
        self.assertIn('File "<remote exec>", line 3, in <module>\n    f(0)\n', error)

    def test_eof_of_the_channel_is_no_error_but_others_are(self):
        client = self.start()
        number = client.execute("channel.receive()")
        client.send(LAST, number)
        client.closed(number)
        number = client.execute("raise EOFError('of a file')")
        self.assertIn("EOFError: of a file", client.error(number))

    def test_sending_on_a_closed_channel(self):
        client = self.start()
        side = client.new_id()
        client.send(DATA, side, dump(5))
        client.send(CLOSE, side)
        self.assertEqual(client.read(), (CLOSE, side, b""))
        number = client.execute(
            """
            side = channel.receive()
            channel.send((side.isclosed(), side.receive()))
            side.send(1)
            """
        )
        client.send(DATA, number, b"B" + struct.pack(">i", side) + b"Q")
        self.assertEqual(client.receive(number), (True, 5))
        self.assertIn("cannot send to <Channel id=1 closed>", client.error(number))

    def test_declared_encodings_do_not_matter(self):
        client = self.start()
        number = client.execute(u"# -*- coding: latin-1 -*-\nchannel.send(u'\xe4')\n")
        self.assertEqual(client.receive(number), u"\xe4")
        client.closed(number)


if __name__ == "__main__":
    unittest.main()
