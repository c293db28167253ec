"""Groups of gateways, and the channels to all of a group's members."""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import importlib
import os
import queue
import time
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, overload

from execnet import _core, gateway_io
from execnet._core import NO_ENDMARKER_WANTED, Channel, Gateway, GatewayGone, RemoteError, XSpec
from execnet._execmodel import ExecModel, get_execmodel
from execnet._membership import new_membership
from execnet._pool import safe_terminate

__all__ = [
    "NO_ENDMARKER_WANTED",
    "Group",
    "MultiChannel",
    "Partial",
    "default_group",
    "makegateway",
    "safe_terminate",
    "set_execmodel",
    "set_profile",
]


class Group:
    """Owns the membership and the lifetime of its gateways.

    What a group has started is gone when it is terminated, when the last reference to it and its
    gateways goes, and when the interpreter exits.

        with Group(["popen"] * 2) as group:
            group.remote_exec("channel.send(1)").receive_each()
    """

    defaultspec: str | XSpec = "popen"
    """The specification of makegateway() without one, or with an empty one."""

    ended_by_themselves: bool = True
    """Whether all members of the last terminate() have ended by themselves in time; False if one had to be ended. It is
    no result of terminate(), since sessions of execnet 2.1, in doctests say, show none."""

    def __init__(
        self,
        xspecs: Iterable[XSpec | str | None] = (),
        execmodel: str | None = None,
        *,
        profile: str | None = None,
        grace: float = 1.0,
    ) -> None:
        """Starts a gateway for each specification, all at the same time.

        `execmodel` is the execution model of both sides: thread, the default, main_thread_only (code of
        remote_exec runs on the main thread only, one at a time), gevent or eventlet. `profile` is another name of it.
        `grace` is as the attribute.

        Raises ValueError before anything is started; HostNotFound when everything that had started is gone again.
        """
        if execmodel is not None and profile is not None and execmodel != profile:
            raise ValueError(
                f"both execmodel={execmodel!r} and profile={profile!r}: two names of the same; give one of them"
            )
        if execmodel is None:
            execmodel = "thread" if profile is None else profile
        self._execmodel = get_execmodel(execmodel)
        self._grace = float(grace)
        self._become_empty()
        self.set_execmodel(execmodel)
        _groups.add(self)
        if type(self).makegateway is Group.makegateway:
            self._start([self._complete(spec) for spec in xspecs])
        else:
            for spec in xspecs:
                self.makegateway(spec)

    def _become_empty(self) -> None:
        self._gateways: list[Gateway] = []
        self._by_id: dict[str, Gateway] = {}
        self._membership = new_membership()
        self._membership.set_execmodel(self._execmodel.backend)
        self._membership.set_grace(self._grace)

    @property
    def grace(self) -> float:
        """Seconds that running code of members to come has after it was interrupted because this program is gone.

        Then it is killed, with all that it has started. It holds for specifications without `grace`. Setting it raises
        ValueError for what is less than 0, or more than a million.
        """
        return self._grace

    @grace.setter
    def grace(self, seconds: float) -> None:
        self._membership.set_grace(seconds)
        self._grace = float(seconds)

    @property
    def execmodel(self) -> ExecModel:
        """The execution model of this side."""
        return self._execmodel

    @property
    def remote_execmodel(self) -> ExecModel:
        """The execution model of members whose specification names none."""
        return self._remote_execmodel

    def set_execmodel(self, execmodel: str, remote_execmodel: str | None = None) -> None:
        """Sets the execution model of this side, and that of the other side: by default the same.

        Raises ValueError when the group has members already or there is no such model.
        """
        if self._gateways:
            raise ValueError(f"{self!r} has members: set the execution model before the first of them")
        self._execmodel = get_execmodel(execmodel)
        self._membership.set_execmodel(self._execmodel.backend)
        self._remote_execmodel = self._execmodel if remote_execmodel is None else get_execmodel(remote_execmodel)

    @property
    def profile(self) -> str:
        """The name of `remote_execmodel`."""
        return self._remote_execmodel.backend

    def set_profile(self, profile: str, remote_profile: str | None = None) -> None:
        """Another name of set_execmodel()."""
        self.set_execmodel(profile, remote_profile)

    def __repr__(self) -> str:
        return f"<Group {[gateway.id for gateway in self]!r}>"

    def __len__(self) -> int:
        return len(self._gateways)

    def __iter__(self) -> Iterator[Gateway]:
        return iter(list(self._gateways))

    def __getitem__(self, key: int | str | Gateway) -> Gateway:
        """The member of that index or id. Raises IndexError, KeyError."""
        if isinstance(key, int):
            return self._gateways[key]
        member = self._find(key)
        if member is None:
            raise KeyError(key)
        return member

    def __contains__(self, key: object) -> bool:
        """Whether a gateway, or the one of an id, is a member."""
        return self._find(key) is not None

    def _find(self, key: object) -> Gateway | None:
        if isinstance(key, str):
            return self._by_id.get(key)
        return key if isinstance(key, Gateway) and self._by_id.get(key.id) is key else None

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate(timeout=1.0)

    def makegateway(self, spec: XSpec | str | None = None) -> Gateway:
        """Starts a gateway and makes it a member.

        The form of a specification is type[=value]//key[=value]//...; types are `popen`,
        `ssh=[user@]host`, `vagrant_ssh=machine` and `socket=host:port`. Keys:

            via=ID               the member that starts it and is its proxy
            installvia=ID        for a bare `socket`: the member on this machine that listens for it
            id=NAME              how the group knows it; gw0, gw1 ... if not given
            python=COMMAND       the interpreter to run
            chdir=PATH           its working directory, made if missing
            nice=NUMBER          is added to its niceness
            env:NAME=VALUE       sets an environment variable
            dont_write_bytecode  as python -B
            preload=A,B          for a local `popen`: forks it from an interpreter that has imported these
            grace=SECONDS        that running code has after it was interrupted because this program is gone
            detached=keep        what its code starts in a session of its own lives on when the worker ends
            transport=socket     the stream is on a socket that is its descriptor 3, and nowhere else; =stdio: on its
                                 standard input and output, and nothing else is passed on; by default on what there is
            stdin=inherit        its standard input is this program's, and not empty; =devnull, the default, or =close
            stdout=devnull       discards what is printed there; =close, =stderr, or =inherit, the default
            stderr=devnull       the same of its standard error; =close, or =inherit, the default
            ssh_config=PATH      configuration for ssh
            connect_timeout=SECONDS  that it may take to start; a minute if not given, or as long as others still come
            execmodel=MODEL      what its code runs in; profile= is another name of it
            limits=bytes=SIZE,channels=N,messages=N
                                 the most that the other side may make this one keep; then the gateway ends
            window=SIZE          bytes (or 8K, 8M, 8G) that may be on their way on each of its channels, each way,
                                 before send() waits for the other side to receive

        The attribute `stdout` of an XSpec may also be a function, for a local `popen`. It is called with the text that
        is printed there, in whole lines, on the thread of the gateway's callbacks. What it raises goes to
        sys.unraisablehook; then it is not called again.

            spec = XSpec("popen")
            spec.stdout = sys.stderr.write

        An XSpec becomes the gateway's `spec`, with `id` and `execmodel` filled in. Raises ValueError
        before anything is started, and HostNotFound, with the cause, when there is no usable interpreter.
        """
        return self._start([self._complete(spec)])[0]

    def _complete(self, spec: XSpec | str | None) -> XSpec:
        if not spec:  # a copy: the default is for more than one gateway
            spec = copy.copy(self.defaultspec)
        if not isinstance(spec, XSpec):
            spec = XSpec(spec)
        self.allocate_id(spec)
        if spec.execmodel is None:
            spec.execmodel = self._remote_execmodel.backend if spec.profile is None else spec.profile
        return spec

    def _start(self, specs: list[XSpec]) -> list[Gateway]:
        gateways = self._membership.start(specs, [gateway_io._replaced_args(spec) for spec in specs])
        for gateway in gateways:
            self._register(gateway)
        return gateways

    def allocate_id(self, spec: XSpec) -> None:
        """Gives the specification an id that is free in this group. If it has an id, it keeps that."""
        self._membership.allocate_id(spec)

    def _register(self, gateway: Gateway) -> None:
        if self._by_id.setdefault(gateway.id, gateway) is not gateway:
            raise ValueError(f"{self!r} already has a gateway with id {gateway.id!r}")
        self._gateways.append(gateway)
        gateway._group = self

    def _unregister(self, gateway: Gateway) -> None:
        if self._by_id.get(gateway.id) is gateway:
            self._by_id.pop(gateway.id, None)
        with contextlib.suppress(ValueError):
            self._gateways.remove(gateway)

    def remote_exec(
        self, source: str | types.FunctionType | Callable[..., object] | types.ModuleType, **kwargs: object
    ) -> MultiChannel:
        """Runs source on all members, in their order; see Gateway.remote_exec().

        Stops at the first member that it cannot run on. Channels to those before it are in the error's `partial`.
        """
        partial = Partial()
        with _keeping(partial):
            for gateway in self:
                partial.channels.append(gateway.remote_exec(source, **kwargs))
        return MultiChannel(partial.channels)

    def terminate(self, timeout: float | None = None) -> None:
        """Ends all members and waits until their processes are gone. Then the group is empty.

        They have `timeout` seconds to end (10 by default). Members that have not ended shortly before that are killed
        with everything they have started, so this returns at most 0.2 s after the timeout, whatever they do.
        `ended_by_themselves` says whether that was needed.
        """
        ending = list(self)
        self.ended_by_themselves = self._membership.terminate(timeout)
        for gateway in ending:
            self._unregister(gateway)

    def _cleanup_atexit(self, timeout: float = 1.0) -> None:
        self.terminate(timeout)


class Partial:
    """What a call for several channels or gateways had got when it failed, so that nothing of it is lost.

    It is the `partial` of the error that the call raises, of whatever type that is:

        try:
            items = channels.receive_each()
        except (EOFError, execnet.RemoteError) as error:
            for channel, item in error.partial.received: ...
    """

    channels: list[Channel]
    """Those that the call was done for, in order. Of Group.remote_exec() they are the ones that it has made, of
    waitclose() those that were closed without an error. Any other call stops at the one behind them."""

    received: list[tuple[Channel, Any]]
    """Of receive_each(): what came from each of them."""

    queue: queue.Queue[Any] | None
    """Of make_receive_queue(): where their items go."""

    def __init__(self) -> None:
        self.channels = []
        self.received = []
        self.queue = None

    def __reduce__(self) -> tuple[type[Partial], tuple[()]]:
        # Errors are sent to other processes, which have none of these channels.
        return Partial, ()


@contextlib.contextmanager
def _keeping(partial: Partial) -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # Ctrl-C, too
        error.partial = partial  # type: ignore[attr-defined]
        raise


class MultiChannel:
    """The channels to several gateways, used as one.

    When a call of it fails at one of the channels, the error has what the call had got until then; see Partial.
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._channels = channels

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels)

    def __getitem__(self, key: int) -> Channel:
        return self._channels[key]

    def __contains__(self, channel: object) -> bool:
        return channel in self._channels

    def send_each(self, item: object) -> None:
        """Sends a value over every channel. Stops at the first that it cannot be sent over."""
        partial = Partial()
        with _keeping(partial):
            for channel in self._channels:
                channel.send(item)
                partial.channels.append(channel)

    @overload
    def receive_each(self, withchannel: Literal[False] = ...) -> list[Any]: ...

    @overload
    def receive_each(self, withchannel: Literal[True]) -> list[tuple[Channel, Any]]: ...

    def receive_each(self, withchannel: bool = False) -> list[Any] | list[tuple[Channel, Any]]:
        """A value from every channel, in the order of the channels; with its channel if `withchannel` is true.

        Stops at the first channel that has none; those behind it keep theirs.
        """
        partial = Partial()
        with _keeping(partial):
            for channel in self._channels:
                partial.received.append((channel, channel.receive()))
                partial.channels.append(channel)
        return partial.received if withchannel else [item for _, item in partial.received]

    def make_receive_queue(self, endmarker: object = NO_ENDMARKER_WANTED) -> queue.Queue[Any]:
        """A queue of (channel, item) from all channels, as items arrive; if given, with an endmarker for each channel.

        It is a queue of the execution model, whose get() takes any time-out that receive() takes.
        """
        model = self._channels[0].gateway.execmodel if self._channels else get_execmodel("thread")
        received: queue.Queue[Any] = _receive_queue(model.queue.Queue)()
        partial = Partial()
        partial.queue = received
        with _keeping(partial):
            for channel in self._channels:
                # The queue keeps the channel, and the channel until its end the callback.
                channel.setcallback(functools.partial(_put, received, channel), endmarker=endmarker)
                partial.channels.append(channel)
        return received

    def waitclose(self) -> None:
        """Waits until every channel is closed, and then raises the first RemoteError or GatewayGone."""
        partial = Partial()
        with _keeping(partial):
            first: RemoteError | GatewayGone | None = None
            for channel in self._channels:
                try:
                    channel.waitclose()
                    partial.channels.append(channel)
                except (RemoteError, GatewayGone) as error:
                    first = first or error
            if first is not None:
                raise first


@functools.cache
def _receive_queue(base: Any) -> Any:
    class ReceiveQueue(base):  # type: ignore[misc]
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            return super().get(block, _core.seconds_to_wait(timeout))

    return ReceiveQueue


def _put(received: queue.Queue[Any], channel: Channel, item: object) -> None:
    received.put((channel, item))


_groups: weakref.WeakSet[Group] = weakref.WeakSet()


@atexit.register
def _terminate_groups() -> None:
    _core.end_greenlets()  # hubs may be gone already, and others are not to run any more
    groups = list(_groups)
    deadline = time.monotonic() + 1.0
    for group in groups:
        group._membership.tell_to_exit()
    for group in groups:
        group._cleanup_atexit(max(0.0, deadline - time.monotonic()))
    _core.keep_states()


def _import_before_fork() -> None:
    # The modules that the first remote_exec() imports. If a thread were importing them during a fork, their locks would
    # stay locked in the child.
    if any(group._gateways for group in list(_groups)):
        importlib.import_module("execnet._source")


def _leave_gateways_to_parent() -> None:
    # In a forked child: the gateways belong to the parent. Groups are empty and can be used.
    for group in list(_groups):
        group._become_empty()


os.register_at_fork(before=_import_before_fork, after_in_child=_leave_gateways_to_parent)

default_group = Group()
makegateway = default_group.makegateway
set_execmodel = default_group.set_execmodel
set_profile = default_group.set_profile
