"""The command lines that start interpreters.

A program may put functions of its own in the place of these: `makegateway` then runs what they return.

    def popen_args(spec):
        return ["sudo", "-n", "python3", "-c", gateway_io.popen_bootstrapline]

    gateway_io.popen_args = popen_args

It is asked for each gateway that is started from this machine. Without that, gateways are started with a line of
their own, which is faster.
"""

from __future__ import annotations

from execnet import _core
from execnet._core import XSpec
from execnet._membership import new_membership

__all__ = ["popen_args", "popen_bootstrapline", "ssh_args", "vagrant_ssh_args"]

popen_bootstrapline = _core.BOOTSTRAP_LINE
"""What an interpreter is to run: it gets a worker from its standard input. No quotes are in it."""


def popen_args(spec: XSpec) -> list[str]:
    """A command line for a `popen` specification. Raises ValueError for another one."""
    return new_membership().launch_args(spec)


def ssh_args(spec: XSpec) -> list[str]:
    """A command line for an `ssh=` specification. Raises ValueError for another one."""
    return new_membership().launch_args(spec)


def vagrant_ssh_args(spec: XSpec) -> list[str]:
    """A command line for a `vagrant_ssh=` specification. Raises ValueError for another one."""
    return new_membership().launch_args(spec)


_OURS = {function.__name__: function for function in (popen_args, ssh_args, vagrant_ssh_args)}


def _replaced_args(spec: XSpec) -> list[str]:
    """What a function returns that a program has put in the place of ours; without one, nothing."""
    name = "popen_args" if spec.popen else "ssh_args" if spec.ssh else "vagrant_ssh_args"
    function = globals()[name]
    if function is _OURS[name] or spec.via or spec.socket:
        return []
    if spec.preload is not None:
        raise ValueError(
            f"{spec!r} has preload, and the program has replaced execnet.gateway_io.{name}: one excludes the other"
        )
    argv = function(spec)
    if not isinstance(argv, (list, tuple)) or not argv or not all(isinstance(word, str) for word in argv):
        raise TypeError(
            f"execnet.gateway_io.{name}, which the program has replaced, has to return a list of str, not {argv!r}"
        )
    return list(argv)
