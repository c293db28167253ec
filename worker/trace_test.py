"""What a pure worker tells of its frames. What both ends tell is in tests/python/test_debug.py."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import io
import os
import shutil
import tempfile
import unittest

from worker_client import CLOSE, CREDIT, DATA, EXEC, HELLO, MORE, LiveTest, dump, frame, hello, worker


class TraceTest(unittest.TestCase):
    def setUp(self):
        self.reading, writing = os.pipe()
        self.trace = worker["Trace"](writing, u"gw0-worker")
        self.addCleanup(os.close, self.reading)
        self.addCleanup(os.close, writing)

    def said(self):
        before = u" %d gw0-worker " % os.getpid()
        lines = os.read(self.reading, 65536).decode("utf-8").splitlines()
        return [line.split(before, 1)[1] for line in lines]

    def receive(self, kind, number, payload=b"", **more):
        data = frame(kind, number, payload, **more)
        self.trace.received(data[:16], data[16:])

    def test_a_line_has_direction_type_channel_and_size(self):
        self.trace.sends(frame(DATA, 3, b"payload"))
        self.trace.sends(b"EXECNET\x01" + frame(HELLO, 0, dump({u"error": u"no\nway"})))
        self.receive(CLOSE, 3)
        self.receive(DATA, 3, b"part", flags=MORE)
        self.receive(CREDIT, 3, credit=42)
        size = len(dump({u"error": u"no\nway"}))
        self.assertEqual(self.said(), [
            u"-> DATA 3 7", u"-> HELLO 0 %d error: no way" % size, u"<- CLOSE 3 0", u"<- DATA 3 4 more",
            u"<- CREDIT 3 0 credit 42"
        ])

    def test_of_code_it_says_only_where_it_is_from(self):
        named = dump((u"secret = 1", u"/\xe4.py", 12, u"task", {u"key": u"hidden"}))
        text = dump((u"secret = 1", None, 1, None, {}))
        self.receive(EXEC, 1, named)
        self.receive(EXEC, 1, text)
        self.receive(EXEC, 1, b"L")
        self.assertEqual(self.said(), [
            u"<- EXEC 1 %d /\xe4.py:12 task" % len(named), u"<- EXEC 1 %d text" % len(text), u"<- EXEC 1 1"
        ])

    def test_a_note_is_one_line_that_a_terminal_shows_as_it_is(self):
        self.trace.note("gone\x1b[31m\nmore")
        self.assertEqual(self.said(), [u"-- gone\\x1b[31m"])


class FileTest(LiveTest):
    def setUp(self):
        LiveTest.setUp(self)
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def path(self, client):
        return os.path.join(self.directory, "execnet-debug-%d" % client.hello["pid"])

    def test_the_worker_traces_if_the_coordinator_says_so(self):
        client = self.start(greeting=hello(debug=1, env={u"TMPDIR": u"%s" % self.directory}))
        number = client.execute(u"channel.send(channel.receive())")
        client.item(number, 1)
        self.assertEqual(client.receive(number), 1)
        client.closed(number)
        client.terminate()
        with io.open(self.path(client), encoding="utf-8") as file:
            said = [line.split(u" ")[3:6] for line in file.read().splitlines()]
        self.assertEqual(said[0][:2], [u"->", u"HELLO"])
        self.assertEqual([words for words in said[1:] if words[0] == u"<-"], [
            [u"<-", u"EXEC", u"1"], [u"<-", u"DATA", u"1"], [u"<-", u"CLOSE", u"1"], [u"<-", u"TERMINATE", u"0"]
        ])
        self.assertEqual([words for words in said[1:] if words[0] == u"->"], [
            [u"->", u"DATA", u"1"], [u"->", u"CLOSE", u"1"]
        ])
        self.assertEqual(os.stat(self.path(client)).st_mode & 0o777, 0o600)

    def test_it_does_not_unless_told_to(self):
        client = self.start(greeting=hello(env={u"TMPDIR": u"%s" % self.directory}))
        client.terminate()
        self.assertEqual(os.listdir(self.directory), [])

    def test_what_is_there_already_is_left_alone(self):
        os.environ["TMPDIR"], before = self.directory, os.environ.get("TMPDIR")
        name = os.path.join(self.directory, "execnet-debug-%d" % os.getpid())
        target = os.path.join(self.directory, "target")
        os.symlink(target, name)
        try:
            os.close(worker["new_file"]())
        finally:
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before
        self.assertFalse(os.path.exists(target))
        self.assertEqual(os.stat(name + "-2").st_mode & 0o777, 0o600)


if __name__ == "__main__":
    unittest.main()
