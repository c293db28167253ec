"""The execution models of gevent and eventlet."""

from .system import get_ident

GREEN = ("gevent", "eventlet")


class Greenlets(object):
    """The greenlets of the main thread."""

    def __init__(self, execmodel):
        from greenlet import getcurrent

        package = __import__(execmodel)
        __import__("eventlet.hubs" if execmodel == "eventlet" else execmodel)
        (package.hubs if execmodel == "eventlet" else package).get_hub()  # imports what it needs, which has to be now
        self._main = get_ident()
        self.current, self.spawn, self.kill = getcurrent, package.spawn, package.kill
        self.late = type("Late", (Exception,), {})
        if execmodel == "gevent":
            from gevent.socket import wait_read

            self._wait = lambda fd, seconds: wait_read(fd, seconds, self.late())
        else:
            from eventlet.hubs import trampoline

            __import__("eventlet.green.threading")  # in a greenlet, on 3.13, it could not be

            self._wait = lambda fd, seconds: trampoline(fd, True, timeout=seconds, timeout_exc=self.late)

    def here(self):
        return get_ident() == self._main

    def wait_readable(self, fd, seconds):
        """Runs other greenlets until the descriptor is readable, or for so many seconds."""
        try:
            self._wait(fd, seconds)
        except self.late:
            pass
