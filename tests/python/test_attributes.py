"""Programs and their tests set attributes on objects of the library, replace methods and copy what can be copied."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

import execnet
from execnet.gateway import RInfo

# --- Attributes and mocks ---

NAMES = {
    "channel": "send receive close waitclose isclosed setcallback makefile reconfigure next _getremoteerror id gateway",
    "gateway": "remote_exec newchannel exit join hasreceiver remote_status reconfigure _rinfo id spec execmodel pid "
    "returncode _group",
    "group": "makegateway terminate remote_exec allocate_id set_execmodel set_profile defaultspec _gateways",
    "multichannel": "send_each receive_each make_receive_queue waitclose",
    "rsync": "add_target send filter _report_send_file _sourcedir _verbose",
}


@pytest.mark.parametrize(("kind", "names"), NAMES.items(), ids=NAMES)
def test_an_attribute_can_be_patched_and_is_then_as_before(group: execnet.Group, kind: str, names: str) -> None:
    gateway = group.makegateway("popen")
    target: Any = {
        "channel": gateway.newchannel,
        "gateway": lambda: gateway,
        "group": lambda: group,
        "multichannel": lambda: group.remote_exec("pass"),
        "rsync": lambda: execnet.RSync("/tmp"),
    }[kind]()
    for name in [*names.split(), "own"]:
        before = repr(getattr(target, name, None)).partition(" at 0x")[0]
        with mock.patch.object(target, name, "patched", create=name == "own"):
            assert getattr(target, name) == "patched"
        assert repr(getattr(target, name, None)).partition(" at 0x")[0] == before
        assert name not in vars(target) or kind in ("group", "rsync") or name == "_group"


def test_a_replaced_method_is_the_one_that_is_called(gateway: execnet.Gateway) -> None:
    channel = gateway.newchannel()
    with mock.patch.object(channel, "send") as send:
        channel.send(1)
    send.assert_called_once_with(1)
    assert "send" not in vars(channel)


def test_what_is_set_on_a_channel_goes_with_it(gateway: execnet.Gateway) -> None:
    class Own:
        pass

    channel: Any = gateway.newchannel()
    channel.own = Own()
    channel.own.channel = channel  # a cycle
    gone = weakref.ref(channel.own)
    del channel
    gc.collect()
    assert gone() is None


def test_mocks_are_made_from_the_classes(gateway: execnet.Gateway) -> None:
    for thing in (execnet.Channel, execnet.Gateway, gateway, gateway.newchannel()):
        assert callable(mock.create_autospec(thing).reconfigure)
        assert callable(mock.Mock(spec=thing).reconfigure)


# --- Copies of specifications ---

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {at}": lambda it, at=at: pickle.loads(pickle.dumps(it, at)) for at in range(6)},
}


class OwnSpec(execnet.XSpec):
    """A subclass, as some programs have it."""


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", [execnet.XSpec, OwnSpec])
def test_a_specification_can_be_copied(kind: type[execnet.XSpec], make: Callable[[Any], Any]) -> None:
    spec = kind("popen//python=py//env:A=1//own=2")
    spec.id = "one"
    spec.nice = 3  # type: ignore[assignment]
    spec.python = None
    spec.env["B"] = "2"
    spec._mine = [1]
    other = make(spec)
    assert type(other) is kind
    assert (other, str(other), other.env) == (spec, str(spec), {"A": "1", "B": "2"})
    assert (other.popen, other.id, other.nice, other.python, other.own) == (True, "one", 3, None, "2")
    assert other._mine == [1]
    assert vars(other) == vars(spec)
    other.env["C"] = "3"
    other.id = "two"
    assert (spec.env, spec.id) == ({"A": "1", "B": "2"}, "one")


def test_a_copied_specification_starts_what_the_original_would(group: execnet.Group) -> None:
    spec = execnet.XSpec("popen//env:EXECNET_COPIED=1")
    spec.chdir = "/"
    for make in COPIES.values():
        channel = group.makegateway(make(spec)).remote_exec(
            "import os; channel.send((os.getcwd(), os.environ['EXECNET_COPIED']))"
        )
        assert channel.receive(timeout=60) == ("/", "1")


def test_the_attributes_of_a_specification_are_in_its_dict() -> None:
    spec = execnet.XSpec("popen//id=one//env:A=1//own=2")
    assert vars(spec) == {"_spec": str(spec), "env": {"A": "1"}, "popen": True, "id": "one", "own": "2"}


def test_an_attribute_of_a_specification_can_be_deleted_and_patched() -> None:
    spec = execnet.XSpec("popen//id=one//env:A=1")
    for name in ("id", "chdir", "env"):
        with mock.patch.object(spec, name, "patched"):
            assert getattr(spec, name) == "patched"
    assert (spec.id, spec.chdir, spec.env) == ("one", None, {"A": "1"})
    del spec.id
    assert spec.id is None
    for name in ("id", "nothing", "_spec"):
        with pytest.raises(AttributeError):
            delattr(spec, name)


# --- What the other side is ---


def test_what_the_other_side_is_are_attributes_like_others(gateway: execnet.Gateway) -> None:
    info: Any = gateway._rinfo()
    assert set(vars(info)) == {"executable", "version_info", "platform", "cwd", "pid", "implementation"}
    for make in COPIES.values():
        assert vars(make(info)) == vars(info)
    info.own = 1
    assert gateway._rinfo() is info
    assert vars(RInfo({"own": 1})) == {"own": 1}
    assert not hasattr(info, "nothing")


def test_a_status_is_attributes_like_others(gateway: execnet.Gateway) -> None:
    status = gateway.remote_status()
    assert {"numchannels", "numexecuting", "execmodel"} < set(vars(status))
    assert vars(copy.deepcopy(status)) == vars(status)
