"""Copies a directory or a file to any number of gateways at once, and sends only what differs there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from execnet import _core
from execnet._core import Channel, Gateway

Path = str | os.PathLike[str]


class RSync:
    """Sends a directory or a file to the targets that were added.

        sync = execnet.RSync("build/report")
        sync.add_target(group["web1"], "/srv/report")
        sync.add_target(group["web2"], "/srv/report")
        sync.send()

    Programs override filter(), _report_send_file() and _report_unreadable().
    """

    def __init__(
        self,
        sourcedir: Path,
        callback: Callable[[str, int, Channel], object] | None = None,
        verbose: bool = True,
    ) -> None:
        """The callback reports progress: ("list", bytes that differ, channel) once for each
        target, then ("ack", bytes, channel) for each file that is done. `channel.gateway` is the target's.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        path = os.fsdecode(sourcedir)
        self._sourcedir = path.rstrip(os.sep) or path
        self._verbose = verbose
        self._callback = callback
        self._targets: list[_Target] = []

    def filter(self, path: str) -> bool:
        """Whether to copy this path and everything below it."""
        return True

    def _report_send_file(self, gateway: Gateway, modified_rel_path: str) -> None:
        """Called before the content of a file is sent."""
        if self._verbose:
            print(f"{gateway} <= {modified_rel_path}")

    def _report_unreadable(self, path: str) -> None:
        """This file, or what is in this directory, cannot be read: the targets keep what they have of it."""
        print(f"RSync leaves out what it cannot read: {path}", file=sys.stderr)

    def add_target(
        self,
        gateway: Gateway,
        destdir: Path,
        finishedcallback: Callable[[], object] | None = None,
        delete: bool = False,
        set_ids: bool = False,
    ) -> None:
        """Adds a target for the next send(): `destdir` there becomes like the source.

        It is relative to the working directory over there. With `delete`, what is not in the source is
        removed. `finishedcallback` is called when this target is done. With `set_ids`, files keep the bits by
        which they run as their owner or group.
        """
        channel = _core.start_rsync_target(gateway)
        self._targets.append(_Target(channel, os.fsencode(destdir), delete, set_ids, finishedcallback))

    def send(self, raises: bool = True, timeout: float | None = None) -> None:
        """Copies, and forgets the targets. When one of them fails the others are finished first.

        Targets that are not done after `timeout` seconds are told to stop: TimeoutError names them. Without a
        timeout, one that stands still is waited for.

        Raises OSError when there is no target, unless `raises` is false; OSError when the source cannot be
        read, ValueError when there is something in it that cannot be copied; RemoteError, GatewayGone, or
        DataFormatError for wrong answers, of the first target that failed.
        """
        targets, self._targets = self._targets, []
        if not targets:
            if raises:
                raise OSError("there is no target to send to: call add_target() before each send()")
            return
        _core.send_tree(
            os.fsencode(self._sourcedir),
            [(target.channel, target.destination, target.delete, target.set_ids) for target in targets],
            _Observer(self, targets),
            timeout,
        )


class _Target:
    def __init__(
        self,
        channel: Channel,
        destination: bytes,
        delete: bool,
        set_ids: bool,
        finished: Callable[[], object] | None,
    ) -> None:
        self.channel = channel
        self.destination = destination
        self.delete = bool(delete)
        self.set_ids = bool(set_ids)
        self.finished = finished


class _Observer:
    """Turns calls of the core into those of the program's methods and callbacks."""

    def __init__(self, sync: RSync, targets: list[_Target]) -> None:
        self._sync = sync
        self._targets = targets

    def filter(self, path: bytes) -> Any:
        return self._sync.filter(os.fsdecode(path))

    def on_list(self, target: int, size: int) -> None:
        if self._sync._callback is not None:
            self._sync._callback("list", size, self._targets[target].channel)

    def on_send_file(self, target: int, relative: bytes) -> None:
        self._sync._report_send_file(self._targets[target].channel.gateway, os.fsdecode(relative))

    def on_ack(self, target: int, size: int) -> None:
        if self._sync._callback is not None:
            self._sync._callback("ack", size, self._targets[target].channel)

    def on_finished(self, target: int) -> None:
        finished = self._targets[target].finished
        if finished is not None:
            finished()

    def on_unreadable(self, path: bytes) -> None:
        self._sync._report_unreadable(os.fsdecode(path))
