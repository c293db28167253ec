"""Names that programs import from here. They live in the package itself."""

from __future__ import annotations

from execnet._core import Channel, Gateway, RemoteStatus, RInfo

__all__ = ["Gateway", "RInfo", "RemoteStatus", "rinfo_source"]


def rinfo_source(channel: Channel) -> None:
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
