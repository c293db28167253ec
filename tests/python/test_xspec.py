"""Specifications: their text, their attributes, and refusals."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest

import execnet
from execnet import XSpec


def test_keys_are_attributes() -> None:
    spec = XSpec("ssh=user@host -p 22//python=/opt/my python//nice=-5//dont_write_bytecode//a=b=c")
    assert spec.ssh == "user@host -p 22"
    assert spec.python == "/opt/my python"
    assert spec.nice == "-5"
    assert spec.dont_write_bytecode is True
    assert spec.a == "b=c"


def test_what_was_not_given_is_none() -> None:
    spec = XSpec("popen")
    for key in ("id", "chdir", "nice", "python", "ssh", "ssh_config", "execmodel", "whatever"):
        assert getattr(spec, key) is None
    assert spec.env == {}


def test_private_names_are_no_keys() -> None:
    with pytest.raises(AttributeError):
        getattr(XSpec("popen"), "_whatever")  # noqa: B009


def test_the_environment_is_kept_apart() -> None:
    assert XSpec("popen//env:A=1//env:B=x=y").env == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize("text", ["popen", "popen//id=a//env:A=b", "ssh=a b//x"])
def test_the_text_is_kept_exactly(text: str) -> None:
    spec = XSpec(text)
    assert str(spec) == spec._spec == text
    assert repr(spec) == f"<XSpec '{text.replace('env:A=b', 'env:A=***')}'>"  # a value may be secret


def test_equality_and_hash_are_by_text() -> None:
    assert XSpec("popen//id=a") == XSpec("popen//id=a")
    assert XSpec("popen//id=a") != XSpec("popen//id=b")
    assert len({XSpec("popen"), XSpec("popen"), XSpec("ssh=a")}) == 2


@pytest.mark.parametrize("key", ["chdir", "id", "execmodel", "ssh_config"])
def test_these_can_be_set_without_changing_the_text(key: str) -> None:
    spec = XSpec("popen")
    setattr(spec, key, "value")
    assert getattr(spec, key) == "value"
    setattr(spec, key, None)
    assert getattr(spec, key) is None
    assert str(spec) == "popen"


def test_the_same_files_are_seen_by_a_plain_popen_only() -> None:
    assert XSpec("popen")._samefilesystem()
    assert not XSpec("popen//chdir=/tmp")._samefilesystem()
    assert not XSpec("ssh=host")._samefilesystem()


def test_what_was_set_is_what_is_used(group: execnet.Group) -> None:
    spec = XSpec("popen")
    spec.chdir = "/"
    spec.id = "set"
    gateway = group.makegateway(spec)
    assert gateway.id == "set"
    assert gateway._rinfo().cwd == "/"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "popen"),  # the message shows the form
        ("//", "empty"),
        ("popen//", "empty"),
        ("popen////id=a", "empty"),
        ("=value", "="),
        ("_private=1", "_private"),
        ("popen//id=a//id=b", "id"),
        ("popen//popen", "popen"),
        ("popen//env:A=1//env:A=2", "env:A"),
    ],
)
def test_malformed_specifications_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        XSpec(text)


def test_any_attribute_can_be_set_and_what_is_read_for_a_gateway_counts(group: execnet.Group) -> None:
    spec = XSpec("popen//env:EXECNET_A=1//nice=1")
    spec.mine = [1]
    spec.env["EXECNET_B"] = "2"
    spec.dont_write_bytecode = True
    spec.nice = 2
    assert (spec.mine, spec.env, spec.dont_write_bytecode, spec.nice) == (
        [1],
        {"EXECNET_A": "1", "EXECNET_B": "2"},
        True,
        2,
    )
    assert str(spec) == "popen//env:EXECNET_A=1//nice=1"
    channel = group.makegateway(spec).remote_exec(
        "import os, sys; channel.send((os.environ['EXECNET_B'], sys.dont_write_bytecode, os.nice(0)))"
    )
    assert channel.receive(timeout=60) == ("2", True, min(19, os.nice(0) + 2))
    spec.env = {}
    spec.mine = None
    assert (spec.env, spec.mine) == ({}, None)


def test_a_copy_has_attributes_of_its_own() -> None:
    spec = XSpec("popen//env:A=1")
    spec.env["B"] = "2"
    spec.mine = 3
    other = copy.copy(spec)
    assert (other, other.env, other.mine) == (spec, {"A": "1", "B": "2"}, 3)
    other.env["C"] = "4"
    other.mine = 5
    assert (spec.env, spec.mine) == ({"A": "1", "B": "2"}, 3)


def test_an_environment_that_is_no_dict_of_texts_is_refused_before_anything_is_started(group: execnet.Group) -> None:
    spec = XSpec("popen")
    spec.env = {"A": 1}
    with pytest.raises(TypeError, match="dict of str"):
        group.makegateway(spec)
    assert len(group) == 0


def test_the_text_cannot_be_set() -> None:
    with pytest.raises(AttributeError, match="cannot be set"):
        XSpec("popen")._spec = "ssh=host"  # type: ignore[misc]


def test_a_path_can_be_set(group: execnet.Group, tmp_path: Path) -> None:
    spec = XSpec("popen")
    spec.chdir = tmp_path / "made"  # type: ignore[assignment]
    assert spec.chdir == tmp_path / "made"
    assert group.makegateway(spec)._rinfo().cwd == str(tmp_path / "made")


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("A=B", "x"), ("A\0B", "x"), ("A", "x\0y")])
def test_what_no_environment_variable_can_have_is_refused(name: str, value: str, group: execnet.Group) -> None:
    spec = XSpec("popen")
    spec.env[name] = value
    with pytest.raises(ValueError, match="no environment variable can have"):
        group.makegateway(spec)
