"""The types that a type checker sees for the modules of execnet that programs import. Never run."""

from __future__ import annotations

import io
import queue
from typing import IO, Any

from typing_extensions import assert_type

import execnet
import execnet.gateway
import execnet.gateway_base
import execnet.gateway_bootstrap
import execnet.gateway_io
import execnet.multi
import execnet.rsync
import execnet.xspec
from execnet.gateway import Gateway, RemoteStatus, RInfo, rinfo_source
from execnet.gateway_base import (
    DUMPFORMAT_VERSION,
    MAIN_THREAD_ONLY_DEADLOCK_TEXT,
    BaseGateway,
    Channel,
    ChannelFile,
    DumpError,
    ExecModel,
    RemoteError,
    Reply,
    TimeoutError,
    Unserializer,
    WorkerPool,
    _Serializer,
    dump,
    dumps,
    dumps_internal,
    get_execmodel,
    load,
    loads,
    loads_internal,
    opcode,
)
from execnet.gateway_bootstrap import HostNotFound
from execnet.gateway_io import popen_args, popen_bootstrapline, ssh_args, vagrant_ssh_args
from execnet.multi import Group, MultiChannel, safe_terminate
from execnet.rsync import RSync
from execnet.xspec import XSpec


def the_names_are_those_of_the_package(
    channel: Channel, gateway: Gateway, group: Group, many: MultiChannel, spec: XSpec, sync: RSync
) -> None:
    assert_type(channel, execnet.Channel)
    assert_type(gateway, execnet.Gateway)
    assert_type(group, execnet.Group)
    assert_type(many, execnet.MultiChannel)
    assert_type(spec, execnet.XSpec)
    assert_type(sync, execnet.RSync)
    base: BaseGateway = gateway
    file: ChannelFile = channel.makefile("r")
    errors: list[type[Exception]] = [DumpError, RemoteError, TimeoutError, HostNotFound]
    print(base, file, errors)


def gateways(gateway: Gateway) -> None:
    assert_type(gateway._rinfo(), RInfo)
    assert_type(gateway.remote_status(), RemoteStatus)
    assert_type(gateway.remote_exec(rinfo_source).receive(), Any)


def dump_format(stream: io.BytesIO) -> None:
    assert_type(DUMPFORMAT_VERSION, bytes)
    assert_type(MAIN_THREAD_ONLY_DEADLOCK_TEXT, str)
    assert_type(opcode.BUILDTUPLE, bytes)
    assert_type(dumps(1), bytes)
    assert_type(dumps_internal(1), bytes)
    assert_type(loads(b""), Any)
    assert_type(loads_internal(b"", None, (True, False)), Any)
    dump(stream, 1)
    assert_type(load(stream), Any)
    assert_type(Unserializer(stream, strconfig=(True, False)).load(versioned=True), Any)
    assert_type(_Serializer().save([1]), bytes | None)
    _Serializer(stream.write).save([1], versioned=True)


def command_lines(spec: XSpec) -> None:
    assert_type(popen_args(spec), list[str])
    assert_type(ssh_args(spec), list[str])
    assert_type(vagrant_ssh_args(spec), list[str])
    assert_type(popen_bootstrapline, str)


def execution_models() -> None:
    model = get_execmodel("thread")
    assert_type(model, ExecModel)
    assert_type(get_execmodel(model), ExecModel)
    assert_type(model.backend, str)
    assert_type(model.get_ident(), int)
    assert_type(model.fdopen(0, "r", closefd=False), IO[Any])
    with model.Lock(), model.RLock():
        model.start(print, ("text",))
    model.Event().wait(1)
    model.sleep(0.1)
    received: queue.Queue[int] = model.queue.Queue()
    print(received, model.subprocess.PIPE, model.socket.AF_INET)


def pools(model: ExecModel) -> None:
    pool = WorkerPool(model, hasprimary=True)
    reply = pool.spawn(divmod, 7, 2)
    assert_type(reply, Reply)
    assert_type(reply.get(timeout=1), Any)
    assert_type(reply.running, bool)
    reply.waitfinish(timeout=1)
    assert_type(pool.active_count(), int)
    assert_type(pool.waitall(timeout=1), bool)
    assert_type(pool.terminate(timeout=1), bool)
    pool.integrate_as_primary_thread()
    pool.trigger_shutdown()
    safe_terminate(model, 1.5, [(reply.waitfinish, pool.trigger_shutdown)])
