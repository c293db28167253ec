"""The command lines that gateways are started with, as the launcher makes them."""

from __future__ import annotations

from execnet._core import XSpec
from execnet.multi import new_membership

__all__ = ["popen_args", "popen_bootstrapline", "ssh_args", "vagrant_ssh_args"]


def popen_args(spec: XSpec) -> list[str]:
    """The command line for a `popen` specification. Raises ValueError for another one."""
    return new_membership().launch_args(spec)


def ssh_args(spec: XSpec) -> list[str]:
    """The command line for an `ssh=` specification. Raises ValueError for another one."""
    return new_membership().launch_args(spec)


def vagrant_ssh_args(spec: XSpec) -> list[str]:
    """The command line for a `vagrant_ssh=` specification. Raises ValueError for another one."""
    return new_membership().launch_args(spec)


popen_bootstrapline = popen_args(XSpec("popen"))[-1]
"""The line of Python that a plain `popen` gateway's interpreter is given."""
