"""Gateways, and what they tell of the other side. Gateway itself lives in the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from execnet._core import Gateway

__all__ = ["Gateway", "RInfo", "RemoteStatus", "rinfo_source"]


class _Facts:
    """Names and values, as attributes; programs may add their own."""

    def __init__(self, kwargs: Mapping[str, Any]) -> None:
        self.__dict__.update(kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(f'{name}={value!r}' for name, value in vars(self).items())}>"


class RInfo(_Facts):
    """What the other side is."""

    executable: str
    """Path of the interpreter."""
    version_info: tuple[int, int, int, str, int]
    """As sys.version_info there."""
    platform: str
    """As sys.platform there."""
    cwd: str
    """The working directory."""
    pid: int
    implementation: str
    """Of the worker: 'native' or 'pure'."""


class RemoteStatus(_Facts):
    """What the other side is doing."""

    numchannels: int
    """Channels that are open."""
    numexecuting: int
    """Sources that run."""
    execmodel: str
    numblocked: int
    """Sends there that wait for room in the window of their channel."""
    outstanding: int
    """Bytes of items sent there, on channels with a window, and not yet received here."""


# Without annotations, for workers on versions of Python that know none.
def rinfo_source(channel):  # type: ignore[no-untyped-def]
    """For remote_exec: sends a dict that describes the interpreter."""
    import os
    import sys

    channel.send(
        {
            "executable": sys.executable,
            "version_info": tuple(sys.version_info),
            "platform": sys.platform,
            "cwd": os.getcwd(),
            "pid": os.getpid(),
        }
    )


def _rinfo_of(gateway: Gateway, update: bool) -> RInfo:
    cached = vars(gateway)
    if update:
        channel = gateway.remote_exec(rinfo_source)
        facts = channel.receive()
        channel.waitclose()
        cached["_cache_rinfo"] = RInfo({**gateway._hello, **facts})
    info: RInfo = cached.get("_cache_rinfo") or cached.setdefault("_cache_rinfo", RInfo(gateway._hello))
    return info
