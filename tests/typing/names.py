"""The types that a type checker sees for every public name. Never run: `make lint` has mypy check it."""

from __future__ import annotations

import io
import pathlib
import queue
from collections.abc import Callable, Iterator
from typing import Any

from typing_extensions import assert_type

import execnet

assert_type(execnet.__version__, str)
assert_type(execnet.default_group, execnet.Group)
assert_type(execnet.makegateway(), execnet.Gateway)
execnet.set_execmodel("thread", "main_thread_only")
execnet.set_profile("thread", "main_thread_only")
assert_type(execnet.can_send([1]), bool)


def task(channel: execnet.Channel, count: int, *, verbose: bool = False) -> None:
    for _ in range(count):
        channel.send(channel.receive())
    assert_type(channel.gateway.newchannel(), execnet.Channel)
    assert_type(channel.gateway.execmodel.backend, str)


# --- Groups ---


def groups(spec: execnet.XSpec) -> None:
    group = execnet.Group(["popen", spec, None], execmodel="main_thread_only")
    assert_type(len(group), int)
    assert_type(list(group), list[execnet.Gateway])
    assert_type(group[0], execnet.Gateway)
    assert_type(group["gw0"], execnet.Gateway)
    assert_type(group[group[0]], execnet.Gateway)
    assert_type("gw0" in group or group[0] in group, bool)
    assert_type(group.defaultspec, str | execnet.XSpec)
    group.defaultspec = "popen//nice=1"
    group.defaultspec = spec
    assert_type(group.makegateway(), execnet.Gateway)
    assert_type(group.makegateway(spec), execnet.Gateway)
    assert_type(group.makegateway("popen"), execnet.Gateway)
    spec.stdout = print
    spec.stdout = "devnull"
    assert_type(execnet.Group(grace=5).grace, float)
    group.grace = 5
    assert_type(group.execmodel.backend, str)
    assert_type(group.remote_execmodel.backend, str)
    assert_type(group._gateways, list[execnet.Gateway])
    group.allocate_id(spec)
    group.set_execmodel("thread")
    group._unregister(group[0])
    group._register(group[0])
    group.set_profile("thread")
    assert_type(group.profile, str)
    execnet.Group(profile="thread")
    assert_type(group.remote_exec("pass"), execnet.MultiChannel)
    assert_type(group.remote_exec(task, count=3, verbose=True), execnet.MultiChannel)
    group.terminate()
    assert_type(group.ended_by_themselves, bool)
    group.terminate(timeout=1.5)
    group._cleanup_atexit()
    with execnet.Group() as inside:
        assert_type(inside, execnet.Group)


class Recording(execnet.Group):
    """Groups are subclassed."""

    defaultspec = "popen//dont_write_bytecode"

    def makegateway(self, spec: execnet.XSpec | str | None = None) -> execnet.Gateway:
        return super().makegateway(spec)

    def terminate(self, timeout: float | None = None) -> None:
        super().terminate(timeout)


# --- Specifications ---


def specifications() -> None:
    spec = execnet.XSpec("popen//id=a")
    assert_type(spec._spec, str)
    assert_type(str(spec), str)
    assert_type(hash(spec), int)
    assert_type(spec == execnet.XSpec("popen"), bool)
    assert_type(spec.id, str | None)
    assert_type(spec.popen, bool | None)
    assert_type(spec.dont_write_bytecode, bool | None)
    assert_type(spec.ssh, str | None)
    assert_type(spec.via, str | None)
    assert_type(spec.env, dict[str, str])
    assert_type(spec.my_own_key, Any)
    assert_type(spec._samefilesystem(), bool)
    spec.id = None
    spec.chdir = "here"
    spec.execmodel = "thread"
    spec.ssh_config = "config"
    spec.env["LANG"] = "C"
    spec.my_own_key = 7


# --- Gateways ---


def gateways(gateway: execnet.Gateway) -> None:
    assert_type(gateway.id, str)
    assert_type(gateway.spec, execnet.XSpec)
    assert_type(gateway.remoteaddress, str)
    assert_type(gateway._group, execnet.Group)
    assert_type(gateway.execmodel, execnet.gateway_base.ExecModel)
    assert_type(gateway.hasreceiver(), bool)
    assert_type(gateway.newchannel(), execnet.Channel)
    assert_type(gateway.remote_exec("pass"), execnet.Channel)
    assert_type(gateway.remote_exec(task, count=1), execnet.Channel)
    assert_type(gateway.remote_exec(pathlib), execnet.Channel)
    info = gateway._rinfo(update=True)
    assert_type(info.executable, str)
    assert_type(info.version_info, tuple[int, int, int, str, int])
    assert_type((info.platform, info.cwd, info.implementation), tuple[str, str, str])
    assert_type(info.pid, int)
    assert_type(gateway.pid, int)
    assert_type(gateway.returncode, int | None)
    status = gateway.remote_status()
    assert_type((status.numchannels, status.numexecuting, status.execmodel), tuple[int, int, str])
    assert_type((status.numblocked, status.outstanding), tuple[int, int])
    gateway.reconfigure(py2str_as_py3str=False, py3str_as_py2str=True)
    gateway.exit()
    gateway.join()
    gateway.join(timeout=2)


# --- Channels ---


def channels(channel: execnet.Channel) -> None:
    assert_type(channel.id, int)
    assert_type(channel.gateway, execnet.Gateway)
    channel.send({"a": [1, channel]})
    channel.send(None, timeout=0.5)
    channel.set_window(8 * 2**20)
    channel.set_window(None)
    assert_type((channel.window, channel.outstanding), tuple[int | None, int | None])
    assert_type(channel.receive(), Any)
    assert_type(channel.receive(timeout=0.5), Any)
    assert_type(next(channel), Any)
    assert_type(channel.next(), Any)
    assert_type([item for item in channel], list[Any])  # noqa: C416
    iterator: Iterator[Any] = iter(channel)
    channel.setcallback(print)
    channel.setcallback(list(iterator).append, endmarker=None)
    channel.setcallback(callback=lambda item: item)
    assert_type(channel._getremoteerror(), Exception | None)
    assert_type(channel.isclosed(), bool)
    channel.reconfigure(py2str_as_py3str=True, py3str_as_py2str=True)
    channel.waitclose(timeout=1)
    channel.close()
    channel.close(error="because")
    assert_type(channel.RemoteError, type[execnet.RemoteError])
    assert_type(channel.TimeoutError, type[execnet.TimeoutError])
    try:
        channel.receive()
    except channel.RemoteError as error:
        assert_type(error.formatted, str)


def files(channel: execnet.Channel) -> None:
    writer = channel.makefile()
    assert_type(writer, execnet.gateway_base.ChannelFileWrite)
    assert_type(channel.makefile("w", proxyclose=True), execnet.gateway_base.ChannelFileWrite)
    assert_type(channel.makefile("r", encoding="latin-1"), execnet.gateway_base.ChannelFileRead)
    writer.write("text")
    writer.writelines(["a", "b"])
    writer.flush()
    writer.close()
    reader = channel.makefile("r")
    assert_type(reader, execnet.gateway_base.ChannelFileRead)
    assert_type(reader.read(3), Any)
    assert_type(reader.readline(), Any)
    assert_type(list(reader), list[Any])
    assert_type(reader.isatty(), bool)
    assert_type(reader.channel, execnet.Channel)
    print("text", file=writer)


def many_channels(channels: list[execnet.Channel], withchannel: bool) -> None:
    many = execnet.MultiChannel(channels)
    assert_type(len(many), int)
    assert_type(many[0], execnet.Channel)
    assert_type(list(many), list[execnet.Channel])
    assert_type(channels[0] in many, bool)
    many.send_each({"any": "thing"})
    assert_type(many.receive_each(), list[Any])
    assert_type(many.receive_each(False), list[Any])
    assert_type(many.receive_each(withchannel=True), list[tuple[execnet.Channel, Any]])
    received = many.make_receive_queue(endmarker=None)
    assert_type(received, queue.Queue[Any])
    assert_type(many.make_receive_queue(), queue.Queue[Any])
    assert_type(received.get(timeout=1), Any)
    many.waitclose()


# --- Errors ---


def errors(error: Exception) -> None:
    if isinstance(error, execnet.LoadError):
        assert_type(error.offset, int)
    elif isinstance(error, execnet.RemoteError):
        assert_type(error.formatted, str)
    dump: type[execnet.DataFormatError] = execnet.DumpError
    not_found: type[ConnectionError] = execnet.HostNotFound
    timeout: type[TimeoutError] = execnet.TimeoutError
    end: type[EOFError] = execnet.GatewayGone
    broken: type[OSError] = execnet.GatewayGone
    closed: type[OSError] = execnet.ChannelClosed
    forked: type[execnet.GatewayGone] = execnet.ForkedResourceError
    misused: tuple[type[RuntimeError], type[OSError]] = (execnet.ExecnetStateError, execnet.ExecnetStateError)
    print(dump, not_found, timeout, end, broken, closed, forked, misused)


def what_was_got(partial: execnet.Partial) -> None:
    assert_type(partial.channels, list[execnet.Channel])
    assert_type(partial.received, list[tuple[execnet.Channel, Any]])
    assert_type(partial.queue, queue.Queue[Any] | None)


# --- Dumps ---


class Pipe:
    """Everything that load() and dump() need of a file."""

    def read(self, size: int) -> bytes:
        return bytes(size)

    def write(self, data: bytes) -> int:
        return len(data)


def dumps(path: pathlib.Path) -> None:
    data = execnet.dumps({"a": 1})
    assert_type(data, bytes)
    assert_type(execnet.loads(data), Any)
    assert_type(execnet.loads(bytearray(data), py2str_as_py3str=True, py3str_as_py2str=False), Any)
    assert_type(execnet.loads(memoryview(data)), Any)
    execnet.dump(io.BytesIO(), [1, 2])
    execnet.dump(Pipe(), [1, 2])
    assert_type(execnet.load(Pipe(), py2str_as_py3str=True), Any)
    with path.open("rb") as file:
        assert_type(execnet.load(file), Any)
    with path.open("wb") as file:
        execnet.dump(file, None)


# --- RSync ---


class Mine(execnet.RSync):
    """Programs override these."""

    def filter(self, path: str) -> bool:
        return super().filter(path) and not path.endswith("~")

    def _report_send_file(self, gateway: execnet.Gateway, modified_rel_path: str) -> None:
        super()._report_send_file(gateway, modified_rel_path)

    def _report_unreadable(self, path: str) -> None:
        super()._report_unreadable(path)


def rsync(gateway: execnet.Gateway, path: pathlib.Path, finished: Callable[[], None]) -> None:
    def progress(kind: str, size: int, channel: execnet.Channel) -> None:
        print(kind, size, channel.gateway.id)

    sync = Mine("source")
    sync = Mine(path, callback=progress, verbose=False)
    sync.add_target(gateway, "there")
    sync.add_target(gateway, path, finishedcallback=finished, delete=True)
    sync.send()
    sync.send(raises=False)
    sync.add_target(gateway, "there", set_ids=True)
    sync.send(timeout=2.5)
    assert_type(sync._sourcedir, str)
    assert_type(sync._verbose, bool)
