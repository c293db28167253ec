"""Tests of the receiving side of RSync, by pytest or on its own: python worker/rsync_target_test.py

They run under every interpreter that a worker runs under, 2.7 and 3.6 included.
"""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import hashlib
import os
import shutil
import stat
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCK = 256 * 1024

with open(os.path.join(HERE, "rsync_target.py"), "rb") as file:
    SOURCE = file.read()
target = {"__name__": "rsync_target"}
exec(compile(SOURCE, "rsync_target.py", "exec"), target)
Refused = target["Refused"]


def digest(data):
    return hashlib.sha256(data).digest()


def tree(path):
    """Names and what they are of all below a directory."""
    found = {}
    for name in os.listdir(path):
        inner = os.path.join(path, name)
        if os.path.islink(inner):
            found[name] = ("->", os.readlink(inner))
        elif os.path.isdir(inner):
            found[name] = tree(inner)
        else:
            with open(inner, "rb") as file:
                found[name] = file.read()
    return found


class FakeChannel(object):
    """Gives the messages of the other side, and takes the answers."""

    def __init__(self, messages):
        self._messages = messages
        self.answers = []

    def __iter__(self):
        return iter(self._messages)

    def send(self, answers):
        self.answers.append(answers)


class RSyncTargetTest(unittest.TestCase):
    def setUp(self):
        base = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, base)
        self.base = base.encode("ascii")
        self.path = os.path.join(self.base, b"target")
        self.root = (u"root", self.path, True, u"directory", 0o755, 0, 10 ** 18)

    def write(self, name, data):
        path = os.path.join(self.path, name)
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(data)
        return path

    def receive(self, *messages):
        return self.receive_from(messages)

    def receive_from(self, messages):
        channel = FakeChannel(messages)
        target["receive"](channel)
        return channel.answers

    def refused(self, *operations):
        """What is said to operations that are not allowed. Nothing half-written stays."""
        with self.assertRaises(Refused) as raised:
            self.receive([self.root] + list(operations))
        if os.path.isdir(self.path):
            self.assertEqual([name for name in os.listdir(self.path) if name.startswith(b".execnet")], [])
        return str(raised.exception)

    def test_a_conversation(self):
        answers = self.receive(
            [self.root],
            [(u"list", 0, [(u"directory", b"sub", 0o500, 2 * 10 ** 18), (u"file", b"a", 0o640, 5, 1)], True)],
            [(u"list", 1, [(u"file", b"b", 0o600, 0, 1), (u"link", b"l", b"sub/b", True)], True)],
            [(u"open", 2, 0o640, 5, 3 * 10 ** 18), (u"data", 2, b"hel"), (u"open", 3, 0o600, 0, 1), (u"close", 3)],
            [(u"data", 2, b"lo"), (u"close", 2)],
            [(u"finish",)],
        )
        wanted = [[], [(u"want", 2, False)], [(u"want", 3, False)], [(u"done", 3)], [(u"done", 2)], []]
        self.assertEqual(answers, wanted)
        link = ("->", os.path.join(self.path, b"sub/b"))
        self.assertEqual(tree(self.path), {b"sub": {b"b": b"", b"l": link}, b"a": b"hello"})
        found = os.stat(os.path.join(self.path, b"a"))
        self.assertEqual((stat.S_IMODE(found.st_mode), found.st_mtime), (0o640, 3e9))
        found = os.stat(os.path.join(self.path, b"sub"))
        self.assertEqual((stat.S_IMODE(found.st_mode), found.st_mtime), (0o500, 2e9))
        self.assertEqual(os.stat(self.path).st_mtime, 1e9)

    def test_what_has_size_and_time_is_not_wanted(self):
        path = self.write(b"a", b"12345")
        os.utime(path, (7, 7))
        listing = [(u"file", b"a", 0o600, 5, 7 * 10 ** 9), (u"file", b"b", 0o600, 5, 7 * 10 ** 9)]
        self.assertEqual(self.receive([self.root, (u"list", 0, listing, True)]), [[(u"want", 2, False)]])
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        listing = [(u"file", b"a", 0o600, 5, 8 * 10 ** 9)]
        self.assertEqual(self.receive([self.root, (u"list", 0, listing, True)]), [[(u"want", 1, True)]])

    def test_blocks_of_the_old_file_are_taken_over(self):
        old = b"1" * BLOCK + b"2" * BLOCK + b"3" * 10
        path = self.write(b"a", old)
        answers = self.receive(
            [self.root, (u"list", 0, [(u"file", b"a", 0o600, 2 * BLOCK + 10, 1)], True)],
            [(u"hash", 1)],
            [(u"open", 1, 0o600, 2 * BLOCK + 10, 1), (u"data", 1, b"x" * BLOCK), (u"copy", 1, 1, 2), (u"close", 1)],
        )
        digests = digest(b"1" * BLOCK) + digest(b"2" * BLOCK) + digest(b"3" * 10)
        self.assertEqual(answers[1], [(u"hashes", 1, len(old), digests)])
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"x" * BLOCK + old[BLOCK:])

    def test_an_old_file_that_changes_meanwhile_is_left_as_it_is(self):
        path = self.write(b"a", b"1" * BLOCK + b"2" * BLOCK)

        def messages():
            yield [self.root, (u"list", 0, [(u"file", b"a", 0o600, 2 * BLOCK, 1)], True), (u"hash", 1)]
            with open(path, "r+b") as file:
                file.write(b"changed")
            yield [(u"open", 1, 0o600, 2 * BLOCK, 1), (u"copy", 1, 0, 1)]

        with self.assertRaises(Refused) as raised:
            self.receive_from(messages())
        self.assertIn("changed by someone else", str(raised.exception))
        self.assertEqual(os.listdir(self.path), [b"a"])

    def test_only_mode_and_time(self):
        path = self.write(b"a", b"same")
        inode = os.stat(path).st_ino
        answers = self.receive(
            [self.root, (u"list", 0, [(u"file", b"a", 0o600, 4, 1)], True)],
            [(u"hash", 1)],
            [(u"keep", 1, 0o711, 5 * 10 ** 9)],
        )
        self.assertEqual(answers[2], [(u"done", 1)])
        found = os.stat(path)
        self.assertEqual((found.st_ino, stat.S_IMODE(found.st_mode), found.st_mtime), (inode, 0o711, 5))

    def test_an_end_in_the_middle_leaves_the_old_file_and_nothing_else(self):
        self.write(b"a", b"old")
        self.receive([
            self.root, (u"list", 0, [(u"file", b"a", 0o600, 5, 1), (u"file", b"b", 0o600, 5, 1)], True),
            (u"open", 1, 0o600, 5, 1), (u"data", 1, b"new"), (u"open", 2, 0o600, 5, 1),
        ])
        self.assertEqual(tree(self.path), {b"a": b"old"})

    def test_abort_begins_again_and_drop_gives_up(self):
        answers = self.receive([
            self.root, (u"list", 0, [(u"file", b"a", 0o600, 5, 1), (u"file", b"b", 0o600, 5, 1)], True),
            (u"open", 1, 0o600, 5, 1), (u"data", 1, b"x"), (u"abort", 1),
            (u"open", 1, 0o600, 2, 1), (u"data", 1, b"ok"), (u"close", 1), (u"open", 2, 0o600, 5, 1), (u"drop", 2),
        ])
        self.assertEqual(answers[0][2:], [(u"done", 1), (u"done", 2)])
        self.assertEqual(tree(self.path), {b"a": b"ok"})

    def test_others_are_removed_only_if_told_to(self):
        self.write(b"sub/x", b"")
        self.write(b"y", b"")
        self.receive([self.root[:2] + (False,) + self.root[3:], (u"list", 0, [], True)])
        self.assertEqual(tree(self.path), {b"sub": {b"x": b""}, b"y": b""})
        self.receive([self.root, (u"list", 0, [(u"directory", b"sub", 0o755, 0)], False)])  # there is more to come
        self.assertEqual(tree(self.path), {b"sub": {b"x": b""}, b"y": b""})
        self.receive([self.root, (u"list", 0, [(u"directory", b"sub", 0o755, 0)], True), (u"list", 1, [], True)])
        self.assertEqual(tree(self.path), {b"sub": {}})

    def test_names_that_lead_elsewhere_are_refused(self):
        for name in (b"..", b".", b"", b"/", b"/etc/x", b"a/b", b"../x", b"a/../../x", b"a\0", u"text", None, 5):
            for child in (
                (u"file", name, 0o644, 3, 0),
                (u"directory", name, 0o755, 0),
                (u"link", name, b"/etc", False),
            ):
                self.assertIn("name of a file", self.refused((u"list", 0, [child], True)))
        self.assertEqual(tree(self.base), {b"target": {}})

    def test_nothing_goes_through_a_link(self):
        outside = os.path.join(self.base, b"outside")
        os.mkdir(outside)
        link = (u"link", b"x", outside, False)
        file = (u"file", b"y", 0o644, 3, 0)
        directory = (u"directory", b"x", 0o755, 0)
        self.assertIn("no directory", self.refused((u"list", 0, [link], True), (u"list", 1, [file], True)))
        self.assertIn("listed before", self.refused((u"list", 0, [directory, link], True)))
        self.assertIn("listed before", self.refused((u"list", 0, [directory], True), (u"list", 0, [link], True)))

        def messages():
            yield [self.root, (u"list", 0, [directory], True), (u"list", 1, [file], True)]
            os.rmdir(os.path.join(self.path, b"x"))
            os.symlink(outside, os.path.join(self.path, b"x"))
            yield [(u"open", 2, 0o644, 3, 0)]

        with self.assertRaises(Refused) as raised:
            self.receive_from(messages())
        self.assertIn("another directory", str(raised.exception))
        self.assertEqual(os.listdir(outside), [])

    def test_what_is_out_of_order_is_refused(self):
        listing = (u"list", 0, [(u"file", b"a", 0o600, 5, 1)], True)
        opened = (u"open", 1, 0o600, 5, 1)
        self.assertIn("no operation", self.refused(self.root))
        self.assertIn("no operation", self.refused((u"format", 1)))
        self.assertIn("number of no directory", self.refused((u"list", 1, [], True)))
        self.assertIn("number of no directory", self.refused(listing, (u"list", 1, [], True)))
        self.assertIn("number of no file", self.refused(listing, (u"open", 0, 0o600, 5, 1)))
        self.assertIn("more bytes", self.refused(listing, (u"data", 1, b"x")))
        self.assertIn("more bytes", self.refused(listing, opened, (u"data", 1, b"123456")))
        self.assertIn("not complete", self.refused(listing, (u"close", 1)))
        self.assertIn("not complete", self.refused(listing, opened, (u"data", 1, b"1234"), (u"close", 1)))
        self.assertIn("no block 0", self.refused(listing, opened, (u"copy", 1, 0, 1)))
        with self.assertRaises(Refused):
            self.receive([listing])
        self.assertEqual(tree(self.path), {})

    def test_both_sides_reckon_with_the_same_blocks(self):
        self.assertEqual(target["block_size"](0), BLOCK)
        self.assertEqual(target["block_size"](4096 * BLOCK), BLOCK)
        self.assertEqual(target["block_size"](4096 * BLOCK + 1), 2 * BLOCK)
        self.assertEqual(target["block_size"](1 << 40), 1 << 28)


if __name__ == "__main__":
    unittest.main()
