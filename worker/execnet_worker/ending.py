"""What an interpreter does at its end, in the same order, for a process that ends without it."""

import sys

from .system import PY3


def wait_for_threads(threading, executor, lost):
    """Waits for the threads of the code that are no daemons, executors included.

    That is over at a KeyboardInterrupt. It is not shown if the coordinator was `lost`.
    """
    try:
        if PY3:
            # Patched from within a greenlet, `threading` takes that for the main thread, and would wait for this one.
            threading.main_thread()._ident = threading.get_ident()
            threading._shutdown()
        else:
            executor.wait_for(threading._shutdown)
    except BaseException:
        error = sys.exc_info()
        if not (lost and error[0] is KeyboardInterrupt):
            sys.excepthook(*error)


def run_exit_handlers():
    """Those of atexit."""
    if PY3:
        import atexit

        atexit._run_exitfuncs()
        return
    try:
        getattr(sys, "exitfunc", int)()  # nothing is imported for it: there may be no descriptor left
    except SystemExit:
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
