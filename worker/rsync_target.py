"""The receiving side of RSync: makes a directory, or one file, like the one the other side describes.

Sent to a worker and run there as receive(channel). docs/rsync.md has the conversation. Three rules hold it together.

The other side names a thing once, by one component below a directory that was listed before, and from then on by
its number: no path comes from the wire. A file is written beside the one it replaces and renamed over it: whoever
looks sees the old one or the new one. And another user may change the destination at any moment: below it
everything is done by the descriptor of the directory that it is in, and no link is followed.

Runs on Python 2.7, 3.6 and later, with the standard library only. Names and paths are bytes throughout.
"""

import binascii
import collections
import errno
import hashlib
import os
import stat
import sys

SMALLEST_BLOCK = 256 * 1024
MOST_BLOCKS = 4096
PIECE = 256 * 1024  # what is read at once
OWNER = 0o700  # a directory that is worked in
MOST_OPEN = 100  # directories that were listed
DEEPEST = 64  # levels that are removed at once: each has a descriptor
SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)  # O_NONBLOCK: nobody waits for a FIFO
READING = os.O_RDONLY | SAFELY
ENTERING = READING | os.O_DIRECTORY
CREATING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY
# It leads to a directory that may not be read, too. Python 2.7 does not name it.
O_PATH = getattr(os, "O_PATH", 0o10000000 if sys.platform.startswith("linux") else 0)
# Whether all calls take the descriptor of a directory; those of Python 2.7 do not.
BY_DESCRIPTOR = {
    os.open, os.stat, os.mkdir, os.unlink, os.rmdir, os.rename, os.symlink, os.readlink
} <= getattr(os, "supports_dir_fd", set())  # fmt: skip


class Refused(Exception):
    """The other side asks for what it may not, or out of order; or somebody else is at work here."""


def strayed(path):
    return Refused("%r is another directory than it was" % (path,))


def block_size(size):
    """Of a file of that size: both sides reckon with it."""
    block = SMALLEST_BLOCK
    while size > block * MOST_BLOCKS:
        block *= 2
    return block


def identity(found):
    return found.st_dev, found.st_ino


def has_time(found, mtime):
    if sys.version_info[0] == 2:  # it knows and sets microseconds
        return abs(found.st_mtime - mtime / 1e9) < 2e-6
    return found.st_mtime_ns == mtime


def way_to(descriptor):
    """A path to what is open, for calls that take no descriptor: nobody can lead it elsewhere."""
    return ("/proc/self/fd/%d" % descriptor).encode("ascii")


def about(path, call, *arguments, **more):
    """A call of the system. An error of it has that path."""
    try:
        return call(*arguments, **more)
    except EnvironmentError as error:
        error.filename = path
        raise


def set_time(descriptor, place, name, mtime):
    """Of what is open, and had that name when it was opened."""
    path = os.path.join(place.path, name)
    if sys.version_info[0] == 2:
        about(path, os.utime, path if place.may_stray else way_to(descriptor), (mtime / 1e9, mtime / 1e9))
    else:
        about(path, os.utime, descriptor, ns=(mtime, mtime))


def set_mode(descriptor, path, found, mode):
    if stat.S_IMODE(found.st_mode) != mode:
        about(path, os.fchmod, descriptor, mode)


def read_pieces(descriptor, size):
    """The next `size` bytes, fewer at the end of the file, in pieces."""
    while size > 0:
        piece = os.read(descriptor, min(size, PIECE))
        if not piece:
            return
        size -= len(piece)
        yield piece


def temporary_name():
    return b".execnet-" + binascii.hexlify(os.urandom(8)) + b".tmp"


class Place(object):
    """A directory that is open. Whatever becomes of its name, what is done here is done in this one.

    Python 2.7 reaches it through /proc. Without that it has nothing but the path, and looks before each step.
    """

    def __init__(self, descriptor, path):
        self.descriptor = descriptor
        self.path = path  # for errors
        self.found = os.fstat(descriptor)
        self.may_stray = False
        if BY_DESCRIPTOR:
            self._way = b""
            self._at = {"dir_fd": descriptor}
            return
        self._way = os.path.join(way_to(descriptor), b"")
        self._at = {}
        if not self._leads_here(self._way):
            self.may_stray = True
            self._way = os.path.join(path, b"")

    def _leads_here(self, path):
        try:
            return identity(os.stat(path)) == identity(self.found)
        except OSError:
            return False

    def do(self, call, name, *arguments):
        """A call of the system about that name. An error of it has the whole path."""
        if self.may_stray and not self._leads_here(self.path):
            raise strayed(self.path)
        try:
            return call(self._way + name, *arguments, **self._at)
        except EnvironmentError as error:
            error.filename = os.path.join(self.path, name)
            raise

    def look_at(self, name):
        """What is there, symbolic links not followed; None if nothing is."""
        try:
            return os.lstat(self._way + name, **self._at)
        except EnvironmentError:
            return None

    def names(self):
        if BY_DESCRIPTOR:
            return [os.fsencode(name) for name in os.listdir(self.descriptor)]
        return self.do(os.listdir, b"")

    def open_file(self, name):
        """None if it is no regular file, or cannot be read."""
        try:
            descriptor = self.do(os.open, name, READING)
        except EnvironmentError:
            return None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    def enter(self, name):
        """The directory of that name, which we may work in afterwards."""
        try:
            descriptor = self.do(os.open, name, ENTERING)
        except EnvironmentError as error:
            if error.errno != errno.EACCES or not self._unlock(name):
                raise
            descriptor = self.do(os.open, name, ENTERING)
        place = Place(descriptor, os.path.join(self.path, name))
        place.unlock()
        return place

    def unlock(self):
        """Closes it if that may not be."""
        try:
            set_mode(self.descriptor, self.path, self.found, stat.S_IMODE(self.found.st_mode) | OWNER)
        except EnvironmentError:
            self.close()
            raise

    def _unlock(self, name):
        """A directory that may not even be read; false if that cannot be changed."""
        try:
            descriptor = self.do(os.open, name, ENTERING | O_PATH)
        except EnvironmentError:
            return False
        try:  # a descriptor of this kind takes no fchmod
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            os.chmod(way_to(descriptor), mode | OWNER)
            return True
        except EnvironmentError:
            return False
        finally:
            os.close(descriptor)

    def close(self):
        os.close(self.descriptor)

    def make_directory(self, name):
        """A directory in place of whatever else is there."""
        found = self.look_at(name)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            self.remove(name)
            found = None
        if found is None:
            try:
                self.do(os.mkdir, name)
            except EnvironmentError as error:
                if error.errno != errno.EEXIST:  # someone else was faster
                    raise
        return self.enter(name)

    def rename(self, name, new_name, to=None):
        to = to or self
        both = {"src_dir_fd": self.descriptor, "dst_dir_fd": to.descriptor} if BY_DESCRIPTOR else {}
        self.do(lambda old, **_: os.rename(old, to._way + new_name, **both), name)

    def put(self, temporary, name):
        """Renames it to that name, in place of whatever is there."""
        found = self.look_at(name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            self.remove(name)
        self.rename(temporary, name)

    def remove(self, name):
        """Whatever is there, directories with all that is in them; links are not followed."""
        doomed = [name]
        while doomed:
            self._remove(self, doomed.pop(), 0, doomed)

    def _remove(self, place, name, depth, doomed):
        """What is in `place`, so many levels below this one. What is too deep is moved here, and is doomed."""
        try:
            found = place.do(os.lstat, name)
            if not stat.S_ISDIR(found.st_mode):
                place.do(os.unlink, name)
                return
            inner = place.enter(name)
            try:
                if depth == DEEPEST:
                    doomed.append(temporary_name())
                    place.rename(name, doomed[-1], self)
                    return
                for each in inner.names():
                    self._remove(inner, each, depth + 1, doomed)
            finally:
                inner.close()
            place.do(os.rmdir, name)
        except EnvironmentError as error:
            if error.errno != errno.ENOENT:  # someone else was faster
                raise


def make_directory(path):
    """The one of that path, with those above it. The program has named it, so links on the way are followed."""
    try:
        os.makedirs(path)
    except EnvironmentError:
        if not os.path.isdir(path):
            raise
    return Place(os.open(path, (ENTERING | O_PATH) & ~os.O_NOFOLLOW), path)


class Directory(object):
    """One that was listed. It gets its mode and time at the very end, as work in it changes them."""

    def __init__(self, parent, name, place, mode, mtime):
        self.path = place.path
        self.mode = mode
        self.mtime = mtime
        self.names = set()  # of the source; None once all are known
        self._parent = parent
        self._name = name
        self._identity = identity(place.found)
        self._place = place
        self._open = collections.deque() if parent is None else parent._open  # all that are, but the root
        self._has_opened()

    def place(self):
        """For use at once: the next one that is opened may have this one closed. Opened again, if it was."""
        if self._place is None:
            closed = []
            directory = self
            while directory._place is None:
                closed.append(directory)
                directory = directory._parent
            for directory in reversed(closed):
                directory._reopen()
        return self._place

    def check(self):
        """Raises if it is no longer where it was listed: nobody would find there what is written to it."""
        if self._parent is not None:
            found = self._parent.place().look_at(self._name)
            if found is None or identity(found) != self._identity:
                raise strayed(self.path)

    def close_all(self):
        """This and those below it."""
        for directory in [self] + list(self._open):
            directory._place.close()

    def _reopen(self):
        place = self._parent._place.enter(self._name)
        if identity(place.found) != self._identity:
            place.close()
            raise strayed(self.path)
        self._place = place
        self._has_opened()

    def _has_opened(self):
        if self._parent is None:
            return
        self._open.append(self)
        if len(self._open) > MOST_OPEN:
            longest = self._open.popleft()
            longest._place.close()
            longest._place = None

    def add(self, name):
        """Something in it is called so."""
        if type(name) is not bytes or name in (b"", b".", b"..") or b"\0" in name:
            raise Refused("%r is no name of a file" % (name,))
        if b"/" in name:
            raise Refused("%r is more than the name of a file" % (name,))
        if self.names is None or name in self.names:
            raise Refused("%r was listed before in %r" % (name, self.path))
        self.names.add(name)


class File(object):
    """One that is wanted: the old one, for what can be taken from it, and the new one beside it."""

    def __init__(self, directory, name, size):
        self._directory = directory
        self._name = name
        self._path = os.path.join(directory.path, name)  # for errors
        self._block = block_size(size)
        self._count = -(-size // self._block)
        self._old = None  # descriptor
        self._digests = []
        self._new = None  # descriptor
        self._temporary = None  # name
        self._size = 0  # what the new one will have
        self._mode = 0
        self._mtime = 0

    def hash(self):
        """The size of the old one, and the digests of its blocks; -1 if it cannot be read."""
        self.discard()
        self._digests = []
        self._old = self._directory.place().open_file(self._name)
        if self._old is None:
            return -1, b""
        digests = []
        try:
            for _ in range(self._count):
                digest = hashlib.sha256()
                empty = True
                for piece in read_pieces(self._old, self._block):
                    empty = False
                    digest.update(piece)
                if empty:
                    break
                digests.append(digest.digest())
        except EnvironmentError:
            self.discard()
            return -1, b""
        self._digests = digests
        return os.fstat(self._old).st_size, b"".join(digests)

    def open(self, mode, size, mtime):
        self.discard_new()
        self._directory.check()
        temporary = temporary_name()
        self._new = self._directory.place().do(os.open, temporary, CREATING, 0o600)
        self._temporary = temporary
        self._mode = mode
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
                raise self._changed()

    def close(self):
        if self._new is None or self._size:
            raise Refused("%r is not complete" % (self._path,))
        place = self._directory.place()
        about(self._path, os.fchmod, self._new, self._mode)  # writing takes set-id bits away
        set_time(self._new, place, self._temporary, self._mtime)
        self._close_new()
        place.put(self._temporary, self._name)
        self._temporary = None
        self.discard()

    def keep(self, mode, mtime):
        """Nothing but mode and time of the old one were different."""
        place = self._directory.place()
        found = place.look_at(self._name)
        if self._old is None or found is None or identity(found) != identity(os.fstat(self._old)):
            raise self._changed()
        if found.st_nlink > 1:  # its other names may be anywhere, and anybody's
            self.open(mode, found.st_size, mtime)
            self.copy(0, len(self._digests))
            self.close()
            return
        set_mode(self._old, self._path, found, mode)
        set_time(self._old, place, self._name, mtime)
        self.discard()

    def _changed(self):
        return Refused("%r was changed by someone else; it is left as it is" % (self._path,))

    def _close_new(self):
        descriptor, self._new = self._new, None
        if descriptor is not None:
            os.close(descriptor)

    def discard_new(self):
        self._close_new()
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            self._directory.place().do(os.unlink, temporary)

    def discard(self):
        descriptor, self._old = self._old, None
        if descriptor is not None:
            os.close(descriptor)
        self.discard_new()


def give_mode(place, name, found, mode):
    """To a file that is as it should be but for that; false if it is to be replaced."""
    descriptor = place.open_file(name)
    if descriptor is None:
        return False
    try:
        opened = os.fstat(descriptor)
        if identity(opened) != identity(found) or opened.st_nlink > 1:  # keep() says why
            return False
        set_mode(descriptor, os.path.join(place.path, name), opened, mode)
        return True
    finally:
        os.close(descriptor)


class Receiver(object):
    """What the operations of the other side are done by. `answers` is for those of one message."""

    def __init__(self):
        self.finished = False
        self.answers = []
        self._destination = None
        self._delete = False
        self._file_bits = 0o777  # of the modes that are taken over
        self._directory_bits = 0o1777  # the sticky bit gives nobody more: it takes away
        self._root_directory = None
        self._count = 0  # of things that have a number
        self._directories = {}
        self._files = {}
        self._links = []  # made last, so that nothing is ever written through one

    def do(self, operation):
        handler = self.HANDLERS.get(operation[0])
        if handler is None or (self._destination is None) != (operation[0] == u"root"):
            raise Refused("%r is no operation here" % (operation[0],))
        handler(self, *operation[1:])

    def end(self):
        """Leaves no half of a file behind, and nothing open."""
        for file in self._files.values():
            try:
                file.discard()
            except (EnvironmentError, Refused):
                pass  # the directory is gone, say
        if self._root_directory is not None:
            self._root_directory.close_all()

    def _number(self):
        self._count += 1
        return self._count - 1

    def _root(self, destination, delete, kind, mode, size, mtime, set_ids=False):
        """The program has named the destination, so links in its path are followed: now, once."""
        self._destination = os.path.abspath(destination)
        self._delete = delete
        if set_ids:
            self._file_bits = self._directory_bits = 0o7777
        parent, name = os.path.split(self._destination)
        outer = make_directory(parent)
        if kind != u"directory":
            self._root_directory = Directory(None, None, outer, None, None)
            self._add_file(self._root_directory, name, mode, size, mtime)
            return
        try:
            if os.path.islink(self._destination) and os.path.isdir(self._destination):
                place = Place(os.open(self._destination, ENTERING & ~os.O_NOFOLLOW), self._destination)
                place.unlock()
            else:
                place = outer.make_directory(name or b".")
        finally:
            outer.close()
        self._root_directory = Directory(None, None, place, mode & self._directory_bits, mtime)
        self._directories[self._number()] = self._root_directory

    def _list(self, number, children, complete):
        directory = self._directories.get(number)
        if directory is None:
            raise Refused("%r is the number of no directory" % (number,))
        for child in children:
            self.KINDS[child[0]](self, directory, *child[1:])
        if complete:
            if self._delete:
                place = directory.place()
                for name in place.names():
                    if name not in directory.names:
                        place.remove(name)
            directory.names = None

    def _add_directory(self, directory, name, mode, mtime):
        directory.add(name)
        place = directory.place().make_directory(name)
        self._directories[self._number()] = Directory(directory, name, place, mode & self._directory_bits, mtime)

    def _add_file(self, directory, name, mode, size, mtime):
        directory.add(name)
        number = self._number()
        place = directory.place()
        found = place.look_at(name)
        is_file = found is not None and stat.S_ISREG(found.st_mode)
        if is_file and found.st_size == size and has_time(found, mtime):
            mode &= self._file_bits
            if stat.S_IMODE(found.st_mode) == mode or give_mode(place, name, found, mode):
                return
        self._files[number] = File(directory, name, size)
        self.answers.append((u"want", number, is_file))

    def _add_link(self, directory, name, target, is_inside):
        directory.add(name)
        self._number()
        if is_inside:
            target = os.path.join(self._destination, target) if target else self._destination
        self._links.append((directory, name, target))

    def _file(self, number):
        file = self._files.get(number)
        if file is None:
            raise Refused("%r is the number of no file that is wanted" % (number,))
        return file

    def _hash(self, number):
        size, digests = self._file(number).hash()
        self.answers.append((u"hashes", number, size, digests))

    def _open(self, number, mode, size, mtime):
        self._file(number).open(mode & self._file_bits, size, mtime)

    def _data(self, number, data):
        self._file(number).write(data)

    def _copy(self, number, first, count):
        self._file(number).copy(first, count)

    def _close(self, number):
        self._file(number).close()
        self._done(number)

    def _keep(self, number, mode, mtime):
        self._file(number).keep(mode & self._file_bits, mtime)
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
        for directory, name, target in self._links:
            self._make_link(directory.place(), name, target)
        for number in sorted(self._directories, reverse=True):  # what is in a directory before itself
            directory = self._directories[number]
            directory.check()
            place = directory.place()
            set_time(place.descriptor, place, b".", directory.mtime)
            about(place.path, os.fchmod, place.descriptor, directory.mode)
        self.finished = True

    def _make_link(self, place, name, target):
        found = place.look_at(name)
        if found is not None and stat.S_ISLNK(found.st_mode) and place.do(os.readlink, name) == target:
            return
        temporary = temporary_name()
        place.do(lambda path, **at: os.symlink(target, path, **at), temporary)
        try:
            place.put(temporary, name)
        except EnvironmentError:
            place.do(os.unlink, temporary)
            raise

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
        receiver.end()
