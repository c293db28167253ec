"""Imports of the worker's own.

The path of a worker begins with the working directory, for the code that runs there. A file there may have the name of
any module: what the worker itself imports must not come from there. So the line on the command line takes the
directory off the path, and it is put back when the worker is up. What is imported after that is imported with
INSTALLED, by which other threads still find their modules there:

    with INSTALLED:
        import socket
"""

import os
import sys

try:
    from _thread import get_ident
except ImportError:  # Python 2
    from thread import get_ident


class Installed(object):
    """A finder that leaves the working directory out, for threads that are inside of it. Any thread may enter it."""

    def __init__(self):
        self._inside = {}  # thread -> how often it has entered

    def __enter__(self):
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        me = get_ident()
        self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(self, *error):
        me = get_ident()
        self._inside[me] -= 1
        if not self._inside[me]:
            del self._inside[me]

    def find_spec(self, name, path=None, target=None):
        """As importlib calls it. Throws ModuleNotFoundError where another finder would look into the directory next."""
        if path is not None or get_ident() not in self._inside:
            return None
        path_finder = sys.modules["_frozen_importlib_external"].PathFinder
        installed = [entry for entry in sys.path if entry != ""]
        for finder in list(sys.meta_path):
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, installed if finder is path_finder else None, target)
                if spec is not None:
                    return spec
        raise ModuleNotFoundError("No module named %r" % name, name=name)  # noqa: F821 - of Python 3

    def find_module(self, name, path=None):
        """The same for Python 2."""
        if path is not None or get_ident() not in self._inside or name in sys.builtin_module_names:
            return None
        import imp

        return Found(imp, imp.find_module(name, [entry for entry in sys.path if entry != ""]))


class Found(object):
    """A module that Python 2 is to load."""

    def __init__(self, imp, place):
        self._imp, self._place = imp, place

    def load_module(self, name):
        try:
            return self._imp.load_module(name, *self._place)
        finally:
            if self._place[0] is not None:
                self._place[0].close()


INSTALLED = Installed()


def restore_working_directory():
    """Unless the interpreter was told (-I, -P) to leave it out."""
    only_at_start = os.environ.get("PYTHONSAFEPATH") == "execnet"  # kOnlyAtStart in bootstrap.hpp
    if only_at_start:
        del os.environ["PYTHONSAFEPATH"]
    left_out = getattr(sys.flags, "isolated", False) or getattr(sys.flags, "safe_path", False) and not only_at_start
    if "" not in sys.path and not left_out:
        sys.path.insert(0, "")
