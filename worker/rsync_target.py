"""The receiving side of RSync: makes a directory, or one file, like the one the other side describes.

Sent to a worker and run there as receive(channel). docs/rsync.md has the conversation. It stands on
two rules. The other side names a thing once, by one component below a directory that was listed
before, and from then on by its number: no path comes from the wire. And a file is written beside
the one it replaces and renamed over it, so that whoever looks sees the old one or the new one.

Runs on Python 2.7, 3.6 and later, with the standard library only. Paths are bytes throughout.
"""

import binascii
import hashlib
import os
import stat
import sys

SMALLEST_BLOCK = 256 * 1024
MOST_BLOCKS = 4096
PIECE = 256 * 1024  # what is read at once
OWNER = 0o700  # a directory that is worked in
SEPARATORS = tuple(separator.encode("ascii") for separator in (os.sep, os.altsep) if separator)
READING = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
CREATING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
rename_over = getattr(os, "replace", os.rename)


class Refused(Exception):
    """The other side asks for what it may not, or out of order."""


def block_size(size):
    """Of a file of that size: both sides reckon with it."""
    block = SMALLEST_BLOCK
    while size > block * MOST_BLOCKS:
        block *= 2
    return block


def look_at(path):
    """What is there, symbolic links not followed; None if nothing is."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def identity(found):
    return found.st_dev, found.st_ino


def has_time(found, mtime):
    if sys.version_info[0] == 2:  # it knows and sets microseconds
        return abs(found.st_mtime - mtime / 1e9) < 2e-6
    return found.st_mtime_ns == mtime


def set_time(path, mtime):
    if sys.version_info[0] == 2:
        os.utime(path, (mtime / 1e9, mtime / 1e9))
    else:
        os.utime(path, ns=(mtime, mtime))


def set_mode(path, found, mode):
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(path, mode)


def remove(path):
    """Whatever is there, directories with all that is in them; links are not followed."""
    found = look_at(path)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(path)
        return
    set_mode(path, found, stat.S_IMODE(found.st_mode) | OWNER)
    for name in os.listdir(path):
        remove(os.path.join(path, name))
    os.rmdir(path)


def make_directory(path, anchor=False):
    """A directory that can be worked in. The anchor may be a link to one: the program has named it."""
    found = look_at(path)
    if anchor and found is not None and stat.S_ISLNK(found.st_mode) and os.path.isdir(path):
        found = os.stat(path)
    if found is None or not stat.S_ISDIR(found.st_mode):
        remove(path)
        (os.makedirs if anchor else os.mkdir)(path)
        found = os.lstat(path)
    set_mode(path, found, stat.S_IMODE(found.st_mode) | OWNER)
    return found


def read_pieces(descriptor, size):
    """The next `size` bytes, fewer at the end of the file, in pieces."""
    while size > 0:
        piece = os.read(descriptor, min(size, PIECE))
        if not piece:
            return
        size -= len(piece)
        yield piece


def temporary_beside(path):
    return os.path.join(os.path.dirname(path), b".execnet-" + binascii.hexlify(os.urandom(8)) + b".tmp")


class Directory(object):
    """One that was listed. It gets its mode and time at the very end, as work in it changes them."""

    def __init__(self, path, mode, mtime, found):
        self.path = path
        self.mode = mode
        self.mtime = mtime
        self.names = set()  # of the source; None once all are known
        self._identity = identity(found)

    def check(self):
        """Raises if the path leads elsewhere by now."""
        found = os.stat(self.path)
        if identity(found) != self._identity:
            raise Refused("%r is another directory than it was" % (self.path,))

    def add(self, name):
        """The path of something in it."""
        if type(name) is not bytes or name in (b"", b".", b"..") or b"\0" in name:
            raise Refused("%r is no name of a file" % (name,))
        if any(separator in name for separator in SEPARATORS):
            raise Refused("%r is more than the name of a file" % (name,))
        if self.names is None or name in self.names:
            raise Refused("%r was listed before in %r" % (name, self.path))
        self.names.add(name)
        return os.path.join(self.path, name)


class File(object):
    """One that is wanted: the old one, for what can be taken from it, and the new one beside it."""

    def __init__(self, directory, path, size):
        self._directory = directory
        self._path = path
        self._block = block_size(size)
        self._count = -(-size // self._block)
        self._old = None  # descriptor
        self._digests = []
        self._new = None  # descriptor
        self._temporary = None  # path
        self._size = 0  # what the new one will have
        self._mtime = 0

    def hash(self):
        """The size of the old one, and the digests of its blocks; -1 if it cannot be read."""
        self.discard()
        self._directory.check()
        try:
            self._old = os.open(self._path, READING)
        except OSError:
            return -1, b""
        self._digests = []
        for _ in range(self._count):
            digest = hashlib.sha256()
            empty = True
            for piece in read_pieces(self._old, self._block):
                empty = False
                digest.update(piece)
            if empty:
                break
            self._digests.append(digest.digest())
        return os.fstat(self._old).st_size, b"".join(self._digests)

    def open(self, mode, size, mtime):
        self.discard_new()
        self._directory.check()
        temporary = temporary_beside(self._path)
        self._new = os.open(temporary, CREATING, 0o600)
        self._temporary = temporary
        os.chmod(temporary, mode)
        self._size = size
        self._mtime = mtime

    def write(self, data):
        if self._new is None or len(data) > self._size:
            raise Refused("more bytes for %r than announced" % (self._path,))
        self._size -= len(data)
        while data:
            data = data[os.write(self._new, data) :]

    def copy(self, first, count):
        """Takes blocks over from the old one, if they still are what was said of them."""
        for number in range(first, first + count):
            if not 0 <= number < len(self._digests):
                raise Refused("no block %d in %r" % (number, self._path))
            os.lseek(self._old, number * self._block, os.SEEK_SET)
            digest = hashlib.sha256()
            for piece in read_pieces(self._old, self._block):
                digest.update(piece)
                self.write(piece)
            if digest.digest() != self._digests[number]:
                raise Refused("%r was changed by someone else; it is left as it is" % (self._path,))

    def close(self):
        if self._new is None or self._size:
            raise Refused("%r is not complete" % (self._path,))
        os.close(self._new)
        self._new = None
        set_time(self._temporary, self._mtime)
        self._directory.check()
        found = look_at(self._path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            remove(self._path)
        rename_over(self._temporary, self._path)
        self._temporary = None
        self.discard()

    def keep(self, mode, mtime):
        """Nothing but mode and time of the old one were different."""
        self._directory.check()
        found = os.lstat(self._path)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("%r was changed by someone else" % (self._path,))
        set_mode(self._path, found, mode)
        set_time(self._path, mtime)
        self.discard()

    def discard_new(self):
        if self._new is not None:
            os.close(self._new)
            self._new = None
        if self._temporary is not None:
            os.unlink(self._temporary)
            self._temporary = None

    def discard(self):
        if self._old is not None:
            os.close(self._old)
            self._old = None
        self.discard_new()


class Receiver(object):
    """What the operations of the other side are done by. `answers` is for those of one message."""

    def __init__(self):
        self.finished = False
        self.answers = []
        self._destination = None
        self._delete = False
        self._count = 0  # of things that have a number
        self._directories = {}
        self._files = {}
        self._links = []  # made last, so that nothing is ever written through one

    def do(self, operation):
        handler = self.HANDLERS.get(operation[0])
        if handler is None or (self._destination is None) != (operation[0] == u"root"):
            raise Refused("%r is no operation here" % (operation[0],))
        handler(self, *operation[1:])

    def abandon(self):
        """Leaves no half of a file behind."""
        for file in self._files.values():
            try:
                file.discard()
            except OSError:
                pass  # the directory is gone, say

    def _number(self):
        self._count += 1
        return self._count - 1

    def _root(self, destination, delete, kind, mode, size, mtime):
        self._destination = os.path.abspath(destination)
        self._delete = delete
        if kind == u"directory":
            found = make_directory(self._destination, anchor=True)
            self._directories[self._number()] = Directory(self._destination, mode, mtime, found)
        else:
            parent, name = os.path.split(self._destination)
            if not os.path.isdir(parent):
                os.makedirs(parent)
            directory = Directory(parent, None, None, os.stat(parent))
            self._add_file(directory, name, mode, size, mtime)

    def _list(self, number, children, complete):
        directory = self._directories.get(number)
        if directory is None:
            raise Refused("%r is the number of no directory" % (number,))
        directory.check()
        for child in children:
            self.KINDS[child[0]](self, directory, *child[1:])
        if complete:
            if self._delete:
                for name in os.listdir(directory.path):
                    if name not in directory.names:
                        remove(os.path.join(directory.path, name))
            directory.names = None

    def _add_directory(self, directory, name, mode, mtime):
        path = directory.add(name)
        self._directories[self._number()] = Directory(path, mode, mtime, make_directory(path))

    def _add_file(self, directory, name, mode, size, mtime):
        path = directory.add(name)
        number = self._number()
        found = look_at(path)
        is_file = found is not None and stat.S_ISREG(found.st_mode)
        if is_file and found.st_size == size and has_time(found, mtime):
            set_mode(path, found, mode)
        else:
            self._files[number] = File(directory, path, size)
            self.answers.append((u"want", number, is_file))

    def _add_link(self, directory, name, target, is_inside):
        path = directory.add(name)
        self._number()
        if is_inside:
            target = os.path.join(self._destination, target) if target else self._destination
        self._links.append((directory, path, target))

    def _file(self, number):
        file = self._files.get(number)
        if file is None:
            raise Refused("%r is the number of no file that is wanted" % (number,))
        return file

    def _hash(self, number):
        size, digests = self._file(number).hash()
        self.answers.append((u"hashes", number, size, digests))

    def _open(self, number, mode, size, mtime):
        self._file(number).open(mode, size, mtime)

    def _data(self, number, data):
        self._file(number).write(data)

    def _copy(self, number, first, count):
        self._file(number).copy(first, count)

    def _close(self, number):
        self._file(number).close()
        self._done(number)

    def _keep(self, number, mode, mtime):
        self._file(number).keep(mode, mtime)
        self._done(number)

    def _abort(self, number):
        self._file(number).discard_new()

    def _drop(self, number):
        self._file(number).discard()
        self._done(number)

    def _done(self, number):
        del self._files[number]
        self.answers.append((u"done", number))

    def _finish(self):
        for directory, path, target in self._links:
            directory.check()
            found = look_at(path)
            if found is not None and stat.S_ISLNK(found.st_mode) and os.readlink(path) == target:
                continue
            temporary = temporary_beside(path)
            os.symlink(target, temporary)
            try:
                if found is not None and stat.S_ISDIR(found.st_mode):
                    remove(path)
                rename_over(temporary, path)
            except OSError:
                os.unlink(temporary)
                raise
        for number in sorted(self._directories, reverse=True):  # what is in a directory before itself
            directory = self._directories[number]
            directory.check()
            set_time(directory.path, directory.mtime)
            os.chmod(directory.path, directory.mode)
        self.finished = True

    HANDLERS = {
        u"root": _root,
        u"list": _list,
        u"hash": _hash,
        u"open": _open,
        u"data": _data,
        u"copy": _copy,
        u"close": _close,
        u"keep": _keep,
        u"abort": _abort,
        u"drop": _drop,
        u"finish": _finish,
    }
    KINDS = {u"directory": _add_directory, u"file": _add_file, u"link": _add_link}


def receive(channel):
    """Does what comes over the channel, a list of operations at a time, and answers each list with one."""
    receiver = Receiver()
    try:
        for operations in channel:
            for operation in operations:
                receiver.do(operation)
            answers, receiver.answers = receiver.answers, []
            channel.send(answers)
            if receiver.finished:
                break
    finally:
        receiver.abandon()
