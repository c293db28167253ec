"""Tests of the receiving side of RSync, by pytest or on its own: python worker/rsync_target_test.py

They run under every interpreter that a worker runs under, 2.7 and 3.6 included.
"""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import errno
import hashlib
import os
import shutil
import signal
import socket
import stat
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCK = 256 * 1024
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of small files are made
EVERYTHING = bool(os.environ.get("EXECNET_SOAK_RUNS"))

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


class TargetTestCase(unittest.TestCase):
    def setUp(self):
        self.addCleanup(signal.alarm, 0)
        signal.alarm(300)  # a hang is a failure, too
        base = os.path.realpath(tempfile.mkdtemp(dir=MEMORY))
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


class RSyncTargetTest(TargetTestCase):
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

    def test_an_old_file_that_fails_while_it_is_read_is_replaced_as_a_whole(self):
        path = self.write(b"a", b"1" * BLOCK)
        read = os.read

        def failing_read(descriptor, size):
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(descriptor, size)

        self.addCleanup(setattr, os, "read", read)
        os.read = failing_read
        answers = self.receive(
            [self.root, (u"list", 0, [(u"file", b"a", 0o600, 3, 1)], True)],
            [(u"hash", 1)],
            [(u"open", 1, 0o600, 3, 1), (u"data", 1, b"new"), (u"close", 1), (u"finish",)],
        )
        self.assertEqual(answers, [[(u"want", 1, True)], [(u"hashes", 1, -1, b"")], [(u"done", 1)]])
        self.assertEqual(tree(self.path), {b"a": b"new"})

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

    def test_set_id_bits_are_given_only_if_the_other_side_asks_for_them(self):
        dropped, taken = (0o755, 0o1777), (0o6755, 0o3777)
        for asked, (file_mode, directory_mode) in (((), dropped), ((False,), dropped), ((True,), taken)):
            root = self.root + asked
            self.write(b"kept", b"12345")
            os.chmod(self.write(b"same", b"12345"), 0o644)
            os.utime(os.path.join(self.path, b"same"), (7, 7))
            self.receive([
                root,
                (u"list", 0, [
                    (u"directory", b"sub", 0o3777, 0), (u"file", b"new", 0o6755, 3, 1), (u"file", b"kept", 0o644, 5, 1),
                    (u"file", b"same", 0o6755, 5, 7 * 10 ** 9),
                ], True),
                (u"open", 2, 0o6755, 3, 1), (u"data", 2, b"123"), (u"close", 2),
                (u"hash", 3), (u"keep", 3, 0o6755, 1), (u"finish",),
            ])
            for name in (b"new", b"kept", b"same", b"sub"):
                mode = directory_mode if name == b"sub" else file_mode
                self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.path, name)).st_mode), mode)
            shutil.rmtree(self.path)

    def test_a_file_with_another_name_elsewhere_is_replaced_and_not_changed(self):
        elsewhere = os.path.join(self.base, b"elsewhere")
        for name in (b"same", b"kept"):
            path = self.write(name, b"12345")
            os.chmod(path, 0o600)
            os.utime(path, (7, 7))
            os.link(path, elsewhere + name)
        answers = self.receive(
            [
                self.root,
                (u"list", 0, [(u"file", b"same", 0o644, 5, 7 * 10 ** 9), (u"file", b"kept", 0o644, 5, 8)], True),
            ],
            [(u"hash", 1), (u"keep", 1, 0o644, 7 * 10 ** 9), (u"hash", 2), (u"keep", 2, 0o644, 8 * 10 ** 9)],
        )
        self.assertEqual(answers[0], [(u"want", 1, True), (u"want", 2, True)])
        for name, time in ((b"same", 7), (b"kept", 8)):
            found = os.stat(os.path.join(self.path, name))
            self.assertEqual((stat.S_IMODE(found.st_mode), found.st_mtime, found.st_nlink), (0o644, time, 1))
            found = os.stat(elsewhere + name)
            self.assertEqual((stat.S_IMODE(found.st_mode), found.st_mtime), (0o600, 7))
        self.assertEqual(tree(self.path), {b"same": b"12345", b"kept": b"12345"})

    def test_more_directories_than_are_kept_open(self):
        count = 2 * target["MOST_OPEN"]
        before = len(os.listdir("/proc/self/fd"))
        names = [("d%d" % number).encode("ascii") for number in range(count)]
        self.receive(
            [self.root, (u"list", 0, [(u"directory", name, 0o750, 10 ** 18) for name in names], True)],
            [(u"list", 1 + number, [(u"file", b"f", 0o640, 1, 1)], True) for number in range(count)],
            [operation for number in range(1 + count, 1 + 2 * count)
             for operation in ((u"open", number, 0o640, 1, 1), (u"data", number, b"x"), (u"close", number))],
            [(u"finish",)],
        )
        self.assertEqual(tree(self.path), {name: {b"f": b"x"} for name in names})
        for name in names:
            self.assertEqual(os.stat(os.path.join(self.path, name)).st_mtime, 1e9)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_a_tree_that_is_deeper_than_there_are_descriptors_is_removed(self):
        os.makedirs(self.path)
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(self.path)
            for _ in range(3000):  # deeper than paths can say, and than Python can call
                os.mkdir(b"d")
                os.chdir(b"d")
        finally:
            os.fchdir(here)
            os.close(here)
        self.receive([self.root, (u"list", 0, [], True), (u"finish",)])
        self.assertEqual(tree(self.path), {})

    def test_with_neither_directory_descriptors_nor_proc_it_looks_before_each_step(self):
        """What Python 2.7 is left with, in a chroot say."""
        whole = dict(target)
        self.addCleanup(target.update, whole)
        target.update(BY_DESCRIPTOR=False, way_to=lambda descriptor: b"/nowhere")
        self.write(b"old/x", b"")
        outside = os.path.join(self.base, b"outside")
        os.mkdir(outside)

        def messages():
            listing = [(u"directory", b"sub", 0o755, 0), (u"file", b"a", 0o640, 1, 1)]
            yield [self.root, (u"list", 0, listing, True), (u"list", 1, [(u"file", b"b", 0o640, 1, 1)], True)]
            yield [(u"open", 2, 0o640, 1, 1), (u"data", 2, b"x"), (u"close", 2)]
            os.rename(os.path.join(self.path, b"sub"), os.path.join(self.base, b"aside"))
            os.symlink(outside, os.path.join(self.path, b"sub"))
            yield [(u"open", 3, 0o640, 1, 1)]

        with self.assertRaises(Refused) as raised:
            self.receive_from(messages())
        self.assertIn("another directory", str(raised.exception))
        self.assertEqual(tree(outside), {})
        self.assertEqual(tree(self.path), {b"a": b"x", b"sub": ("->", outside)})

    def test_links_on_the_way_to_the_destination_are_followed(self):
        os.makedirs(self.path)
        os.symlink(self.path, os.path.join(self.base, b"link"))
        root = (u"root", os.path.join(self.base, b"link")) + self.root[2:]
        self.receive([root, (u"list", 0, [(u"directory", b"sub", 0o755, 0)], True), (u"finish",)])
        self.assertTrue(os.path.islink(os.path.join(self.base, b"link")))
        self.assertEqual(tree(self.path), {b"sub": {}})

    def test_directories_that_someone_else_makes_at_the_same_moment_are_used(self):
        """Another receiver say, which was given up while it stood still."""
        mkdir = os.mkdir
        self.addCleanup(setattr, os, "mkdir", mkdir)

        def make_twice(*arguments, **more):
            mkdir(*arguments, **more)
            mkdir(*arguments, **more)

        os.mkdir = make_twice
        self.path = os.path.join(self.base, b"outer", b"target")
        root = self.root[:1] + (self.path,) + self.root[2:]
        self.receive([root, (u"list", 0, [(u"directory", b"sub", 0o755, 0)], True), (u"finish",)])
        self.assertEqual(tree(self.path), {b"sub": {}})

    def test_both_sides_reckon_with_the_same_blocks(self):
        self.assertEqual(target["block_size"](0), BLOCK)
        self.assertEqual(target["block_size"](4096 * BLOCK), BLOCK)
        self.assertEqual(target["block_size"](4096 * BLOCK + 1), 2 * BLOCK)
        self.assertEqual(target["block_size"](1 << 40), 1 << 28)


CALLS = (
    "open lstat stat mkdir unlink rmdir rename replace symlink readlink listdir chmod fchmod utime fstat close".split()
)


class Meddler(object):
    """The module os as the target sees it. Before the n-th call somebody is faster, with what that call is about."""

    def __init__(self, turn, meddle):
        self.turn = turn  # what is left of n
        self._meddle = meddle

    def __getattr__(self, name):
        value = getattr(os, name)
        return self._wrapped(name, value) if name in CALLS else value

    def _wrapped(self, name, call):
        def wrapper(*arguments, **more):
            self.turn -= 1
            if self.turn == 0:
                for argument in arguments[:2]:
                    path = self._path(argument, more)
                    if path is not None:
                        self._meddle(path)
            return call(*arguments, **more)

        return wrapper

    def _path(self, argument, more):
        if type(argument) is int and argument < 1000:  # not flags
            way = b"/proc/self/fd/%d" % argument if argument > 2 else b""
            return os.readlink(way) if os.path.lexists(way) else None
        if type(argument) is not bytes:
            return None
        descriptor = more.get("dir_fd", more.get("src_dir_fd"))
        if descriptor is not None:
            argument = os.path.join(b"/proc/self/fd/%d" % descriptor, argument)
        directory, name = os.path.split(argument)
        return os.path.join(os.path.realpath(directory), name)


class NeighbourTest(TargetTestCase):
    """Another user can write to the destination, and swaps what is there at each moment of a whole conversation."""

    CONVERSATION = (
        [(u"list", 0, [
            (u"directory", b"sub", 0o755, 10 ** 18), (u"file", b"same", 0o644, 5, 7 * 10 ** 9),
            (u"file", b"kept", 0o644, 5, 8 * 10 ** 9), (u"file", b"changed", 0o644, 6, 1),
            (u"link", b"link", b"x", False),
        ], True)],
        [
            (u"list", 1, [(u"file", b"inner", 0o644, 3, 1), (u"directory", b"deep", 0o755, 1)], True),
            (u"list", 7, [], True),
        ],
        [(u"hash", 3), (u"keep", 3, 0o644, 8 * 10 ** 9), (u"hash", 4)],
        [(u"open", 4, 0o644, 6, 1), (u"data", 4, b"change"), (u"close", 4)],
        [(u"open", 6, 0o644, 3, 1), (u"data", 6, b"new"), (u"close", 6)],
        [(u"finish",)],
    )

    def setUp(self):
        super(NeighbourTest, self).setUp()
        self.outside = os.path.join(self.base, b"outside")
        self.aside = os.path.join(self.base, b"aside")
        self.count = 0

    def make(self):
        """A destination, and what must not be touched: it has the names and looks of what is at the destination."""
        for directory in (self.path, self.outside):
            os.makedirs(os.path.join(directory, b"sub/deep"))
            os.makedirs(os.path.join(directory, b"doomed/deep"))
            names = (b"same", b"kept", b"changed", b"sub/inner", b"doomed/file", b"doomed/deep/file", b"doomed-file")
            for name in names:
                path = os.path.join(directory, name)
                with open(path, "wb") as file:
                    file.write(b"12345")
                os.chmod(path, 0o600)
                os.utime(path, (7, 7))
            os.symlink(b"y", os.path.join(directory, b"link"))
        os.mkdir(self.aside)

    def outside_now(self):
        found = {}
        for directory, directories, files in os.walk(self.outside):
            for name in directories + files + [b"."]:
                path = os.path.join(directory, name)
                seen = os.lstat(path)
                found[path] = (seen.st_mode, seen.st_size, seen.st_mtime, seen.st_ino)
                if stat.S_ISREG(seen.st_mode):
                    with open(path, "rb") as file:
                        found[path] += (file.read(),)
        return found

    def swap(self, path, make):
        """Whatever is there goes, and something else comes."""
        if not path.startswith(self.path + b"/"):
            return
        self.count += 1
        try:
            if os.path.lexists(path):
                os.rename(path, os.path.join(self.aside, b"%d" % self.count))
            make(path)
        except EnvironmentError:  # what was there is gone, with the directory
            pass

    def kinds(self):
        def link_to_file(path):
            os.symlink(os.path.join(self.outside, b"kept"), path)

        def link_to_directory(path):
            os.symlink(self.outside, path)

        def link_to_the_same(path):
            os.symlink(os.path.join(self.outside, path[len(self.path) + 1 :]), path)

        def other_name_of_a_file(path):
            os.link(os.path.join(self.outside, b"kept"), path)

        def fifo(path):
            os.mkfifo(path)

        def listening_socket(path):
            server = socket.socket(socket.AF_UNIX)
            server.bind(os.path.relpath(path) if len(path) > 100 else path)
            server.close()

        def device(path):
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))

        def directory(path):
            os.mkdir(path)
            os.mkdir(os.path.join(path, b"more"))

        def file(path):
            with open(path, "wb") as file:
                file.write(b"other")

        def nothing(path):
            pass

        return [
            link_to_the_same, other_name_of_a_file, fifo,
            link_to_file, link_to_directory, listening_socket, device, directory, file, nothing,
        ]

    def whole_run(self, turn, meddle):
        """Whether the turn came. Nothing outside has changed, and nothing is left open."""
        self.make()
        before = self.outside_now()
        descriptors = len(os.listdir("/proc/self/fd"))
        meddler = Meddler(turn, meddle)
        target["os"] = meddler
        try:
            self.receive([self.root], *self.CONVERSATION)
        except (Refused, EnvironmentError) as error:
            self.assertTrue(str(error))
        finally:
            target["os"] = os
        self.assertEqual(self.outside_now(), before)
        self.assertEqual(len(os.listdir("/proc/self/fd")), descriptors)
        for directory in (self.path, self.outside, self.aside):
            shutil.rmtree(directory, ignore_errors=True)
        return meddler.turn <= 0

    def each_moment(self, place):
        """Every kind at every moment in the soak; else three of them, and one of the others at each."""
        kinds = self.kinds()
        first = kinds if EVERYTHING else kinds[:3]
        for make in first + [None]:
            turn = 1
            while True:
                kind = make or kinds[3 + turn % (len(kinds) - 3)]
                if not self.whole_run(turn, lambda path, kind=kind: self.swap(place(path), kind)):
                    break
                turn += 1
            self.assertGreater(turn, 60)

    def test_nothing_outside_is_touched_if_what_a_call_is_about_is_swapped_before_it(self):
        self.each_moment(lambda path: path)

    def test_nothing_outside_is_touched_if_the_directory_that_a_call_works_in_is_swapped_before_it(self):
        self.each_moment(os.path.dirname)

    def test_without_a_neighbour_that_conversation_ends_well(self):
        self.assertFalse(self.whole_run(10000, None))
        self.make()
        self.receive([self.root], *self.CONVERSATION)
        self.assertEqual(tree(self.path), {
            b"sub": {b"inner": b"new", b"deep": {}}, b"same": b"12345", b"kept": b"12345", b"changed": b"change",
            b"link": ("->", b"x"),
        })
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.path, b"same")).st_mode), 0o644)


if __name__ == "__main__":
    unittest.main()
