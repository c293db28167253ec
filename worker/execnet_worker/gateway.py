"""What the code that runs here sees of its gateway."""

import os
import sys
import time

from .frames import RECONFIGURE
from .greenlets import GREEN
from .imports import INSTALLED
from .system import PY3, get_ident, start_new_thread
from .values import dump


class ExecModel(object):
    """What programs look for at gateway.execmodel: the modules and functions of its model."""

    def __init__(self, backend):
        self.backend = backend
        self.fdopen = os.fdopen
        self.get_ident, self.start, source = get_ident, self._start_thread, time
        if backend in GREEN:
            source = __import__(backend)
            current = __import__("greenlet").getcurrent
            self.get_ident = lambda: id(current())
            self.start = lambda function, args=(): source.spawn(function, *args)
        self.sleep = source.sleep

    def __repr__(self):
        return "<ExecModel %r>" % self.backend

    def __getattr__(self, name):
        gevent, eventlet = self.backend == "gevent", self.backend == "eventlet"
        modules = {
            "queue": "queue" if gevent or PY3 and not eventlet else "Queue",
            "Lock": "threading",
            "RLock": "lock" if gevent else "threading",
            "Event": "event" if gevent else "threading",
        }
        if name not in modules and name not in ("subprocess", "socket"):
            raise AttributeError(name)
        module = ("gevent." if gevent else "eventlet.green." if eventlet else "") + modules.get(name, name)
        with INSTALLED:
            __import__(module)
        found = sys.modules[module]
        return getattr(found, name) if name in ("Lock", "RLock", "Event") else found

    def _start_thread(self, function, args=()):
        start_new_thread(function, args)


class Gateway(object):
    """The gateway as the code that runs here sees it: `channel.gateway`."""

    def __init__(self, connection, gateway_id, execmodel):
        self._connection = connection
        self.id = gateway_id
        self.execmodel = ExecModel(execmodel)

    def __repr__(self):
        return "<WorkerGateway id=%r>" % self.id

    def newchannel(self):
        """A channel nobody uses yet, to be sent over another one."""
        return self._connection.newchannel()

    def reconfigure(self, py2str_as_py3str=True, py3str_as_py2str=False):
        """How strings between Python 2 and 3 are loaded, at both ends, where a channel says nothing."""
        config = (bool(py2str_as_py3str), bool(py3str_as_py2str))
        self._connection.strconfig = config
        self._connection.call(self._connection.write, RECONFIGURE, 0, dump(config))
