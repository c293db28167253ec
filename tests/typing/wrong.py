"""Errors that a type checker must find: mypy complains of a `type: ignore` that is not needed. Never run."""

from __future__ import annotations

import io

import execnet


def groups(group: execnet.Group) -> None:
    execnet.Group("popen", execmodel=7)  # type: ignore[arg-type]
    execnet.Group([7])  # type: ignore[list-item]
    group[1.5]  # type: ignore[index]
    group.makegateway(7)  # type: ignore[arg-type]
    group.defaultspec = 7  # type: ignore[assignment]
    group.terminate("soon")  # type: ignore[arg-type]
    group.execmodel = "thread"  # type: ignore[misc, assignment]


def specifications(spec: execnet.XSpec) -> None:
    execnet.XSpec()  # type: ignore[call-arg]
    spec.id = 7  # type: ignore[assignment]
    spec.chdir.upper()  # type: ignore[union-attr]
    spec.env["LANG"] = 7  # type: ignore[assignment]
    spec._spec = "popen"  # type: ignore[misc]


def gateways(gateway: execnet.Gateway) -> None:
    gateway.remote_exec(7)  # type: ignore[arg-type]
    gateway.remote_exec()  # type: ignore[call-arg]
    gateway.id = 7  # type: ignore[assignment]
    gateway.spec.popen = "yes"  # type: ignore[assignment]
    gateway.send(1)  # type: ignore[attr-defined]
    gateway.exit(1)  # type: ignore[call-arg]


def channels(channel: execnet.Channel) -> None:
    channel.send()  # type: ignore[call-arg]
    channel.receive("soon")  # type: ignore[arg-type]
    channel.setcallback(7)  # type: ignore[arg-type]
    channel.setcallback(lambda: None)  # type: ignore[misc, arg-type]
    channel.makefile("a")  # type: ignore[call-overload]
    channel.makefile("w").read(1)  # type: ignore[attr-defined]
    channel.makefile("r").write("text")  # type: ignore[attr-defined]
    channel.close(7)  # type: ignore[arg-type]
    channel.recieve()  # type: ignore[attr-defined]
    for left, right in execnet.MultiChannel([channel]).receive_each(withchannel=True):
        left.receive(right)
        left.upper()  # type: ignore[attr-defined]
    execnet.MultiChannel([channel]).receive_each("yes")  # type: ignore[call-overload]


def dumps() -> None:
    execnet.dumps()  # type: ignore[call-arg]
    execnet.loads("text")  # type: ignore[arg-type]
    execnet.load(b"bytes")  # type: ignore[arg-type]
    execnet.load(io.StringIO())  # type: ignore[arg-type]
    execnet.dump(io.StringIO(), 1)  # type: ignore[arg-type]
    execnet.LoadError().offset.upper()  # type: ignore[attr-defined]


class NotLikeTheRest(execnet.RSync):
    def filter(self, path: bytes) -> bool:  # type: ignore[override]
        return True

    def _report_send_file(self, gateway: str, modified_rel_path: str) -> None:  # type: ignore[override]
        pass


def rsync(gateway: execnet.Gateway) -> None:
    execnet.RSync(7)  # type: ignore[arg-type]
    execnet.RSync("source", callback=7)  # type: ignore[arg-type]
    execnet.RSync("source").add_target("gw0", "there")  # type: ignore[arg-type]
    execnet.RSync("source").add_target(gateway, "there", finishedcallback=7)  # type: ignore[arg-type]


def models(model: execnet.gateway_base.ExecModel) -> None:
    model.backend = "thread"  # type: ignore[misc]
    model.sleep("long")  # type: ignore[arg-type]
    execnet.gateway_base.get_execmodel(7)  # type: ignore[arg-type]
    execnet.gateway_base.WorkerPool("thread")  # type: ignore[arg-type]
    execnet.gateway_base.nothing_of_the_kind()  # type: ignore[attr-defined]
