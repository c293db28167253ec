"""Membership and ids of a group, and how it makes gateways."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import execnet
from belongings import children, eventually, has_ended, open_descriptors, pidfd, sleeps


def test_a_new_group_is_empty(group: execnet.Group) -> None:
    assert len(group) == 0
    assert list(group) == []
    assert repr(group) == "<Group []>"


def test_members_have_ids_in_the_order_they_were_made(group: execnet.Group) -> None:
    made = [group.makegateway("popen"), group.makegateway("popen//id=mine"), group.makegateway("popen")]
    assert [gateway.id for gateway in made] == ["gw0", "mine", "gw1"]
    assert list(group) == made
    assert repr(group) == "<Group ['gw0', 'mine', 'gw1']>"


def test_a_member_is_found_by_index_by_id_and_by_itself(group: execnet.Group) -> None:
    first, second = group.makegateway("popen"), group.makegateway("popen//id=second")
    assert group[0] is group["gw0"] is group[first] is first
    assert group[1] is group["second"] is group[second] is group[-1] is second
    assert "gw0" in group
    assert second in group
    assert "gw1" not in group


def test_what_is_no_member_is_not_found(group: execnet.Group) -> None:
    stranger = execnet.Group(["popen"])
    try:
        assert stranger[0] not in group
        with pytest.raises(KeyError):
            group[stranger[0]]
    finally:
        stranger.terminate()
    with pytest.raises(KeyError):
        group["gw0"]
    with pytest.raises(IndexError):
        group[0]


def test_iteration_is_over_a_copy(group: execnet.Group) -> None:
    for _ in range(3):
        group.makegateway("popen")
    seen = []
    for gateway in group:
        seen.append(gateway.id)
        gateway.exit()
    assert seen == ["gw0", "gw1", "gw2"]


def test_a_gateway_that_was_told_to_exit_is_no_member(group: execnet.Group) -> None:
    gateway = group.makegateway("popen")
    gateway.exit()
    assert gateway not in group
    assert len(group) == 0
    gateway.exit()


def test_gateways_that_were_told_to_exit_are_forgotten(group: execnet.Group) -> None:
    others = children()

    def come_and_go() -> int:
        gateway = group.makegateway("popen")
        gateway.exit()
        assert eventually(lambda: children() == others)
        return len(list(open_descriptors()))

    numbers = [come_and_go() for _ in range(4)]
    assert numbers[1:] == numbers[:1] * 3


def test_callbacks_of_a_gateway_that_was_told_to_exit_are_waited_for(group: execnet.Group) -> None:
    gateway, other = group.makegateway("popen"), group.makegateway("popen")
    entered, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def callback(item: object) -> None:
        entered.set()
        go_on.wait(20)
        done.set()

    with pidfd(gateway._rinfo().pid) as end:
        gateway.remote_exec("channel.receive()").setcallback(callback, endmarker=None)
        gateway.exit()
        assert entered.wait(20)
        assert eventually(lambda: has_ended(end))
    other.exit()
    main = os.getpid()
    releaser = threading.Thread(target=lambda: eventually(lambda: sleeps(main)) and go_on.set())
    releaser.start()
    group.terminate(timeout=10)
    assert done.is_set()
    releaser.join()


def test_ids_of_terminated_gateways_are_not_given_again(group: execnet.Group) -> None:
    assert group.makegateway("popen").id == "gw0"
    group.terminate()
    assert group.makegateway("popen").id == "gw1"


def test_allocate_id_gives_an_id_once(group: execnet.Group) -> None:
    spec = execnet.XSpec("popen")
    group.allocate_id(spec)
    assert spec.id == "gw0"
    group.allocate_id(spec)
    assert spec.id == "gw0"
    other = execnet.XSpec("popen")
    group.allocate_id(other)
    assert other.id == "gw1"
    assert group.makegateway(spec).id == "gw0"


def test_allocate_id_gives_another_one_after_it_was_taken_away(group: execnet.Group) -> None:
    spec = execnet.XSpec("popen")
    group.allocate_id(spec)
    spec.id = None
    group.allocate_id(spec)
    assert spec.id == "gw1"
    assert group.makegateway(spec).id == "gw1"


def test_allocate_id_passes_over_ids_that_are_taken(group: execnet.Group) -> None:
    group.makegateway("popen//id=gw0")
    spec = execnet.XSpec("popen")
    group.allocate_id(spec)
    assert spec.id == "gw1"


def test_the_caller_s_specification_becomes_the_gateway_s(group: execnet.Group) -> None:
    spec = execnet.XSpec("popen//custom=5//bare")
    gateway = group.makegateway(spec)
    assert gateway.spec is spec
    assert str(spec) == "popen//custom=5//bare"
    assert (spec.id, spec.execmodel, spec.custom, spec.bare) == ("gw0", "thread", "5", True)


def test_the_default_specification_can_be_a_text_or_a_specification(group: execnet.Group) -> None:
    assert group.defaultspec == "popen"
    group.defaultspec = "popen//chdir=/"
    assert group.makegateway()._rinfo().cwd == "/"
    spec = execnet.XSpec("popen//chdir=/tmp")
    group.defaultspec = spec
    assert group.defaultspec is spec
    assert [group.makegateway()._rinfo().cwd for _ in range(2)] == ["/tmp", "/tmp"]
    assert spec.id is None  # it is for many gateways


@pytest.mark.parametrize("nothing", [None, "", False])
def test_nothing_stands_for_the_default_specification(group: execnet.Group, nothing: Any) -> None:
    group.defaultspec = "popen//own=1"
    assert group.makegateway(nothing).spec.own == "1"
    group.defaultspec = execnet.XSpec("popen//own=2")
    assert group.makegateway(nothing).spec.own == "2"
    with execnet.Group(["", nothing]) as other:
        assert [str(gateway.spec) for gateway in other] == ["popen", "popen"]
    assert len(execnet.Group("")) == 0


def test_the_default_group_makes_the_gateways_of_the_module() -> None:
    gateway = execnet.makegateway()
    try:
        assert gateway in execnet.default_group
        assert isinstance(execnet.default_group, execnet.Group)
    finally:
        execnet.default_group.terminate()
    assert len(execnet.default_group) == 0


def test_members_can_be_given_at_once_as_texts_and_specifications() -> None:
    spec = execnet.XSpec("popen//id=b")
    group = execnet.Group(["popen//id=a", spec, "popen"])
    try:
        assert [gateway.id for gateway in group] == ["a", "b", "gw0"]
        assert group["b"].spec is spec
    finally:
        group.terminate()


def test_when_one_of_several_cannot_start_none_stays() -> None:
    # conftest.py checks for every test that no process stays.
    with pytest.raises(execnet.HostNotFound, match="/no/such/python"):
        execnet.Group(["popen", "popen", "popen//python=/no/such/python"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("order", [1, -1])
def test_a_group_does_not_wait_for_others_when_one_has_failed(tmp_path: Path, order: int) -> None:
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 1000\n")
    hangs.chmod(0o755)
    with pytest.raises(execnet.HostNotFound, match="python=false"):
        execnet.Group([f"popen//python={hangs}", "popen//python=false", "popen"][::order])


def test_when_one_of_several_is_specified_wrongly_none_starts() -> None:
    with pytest.raises(ValueError, match="id"):
        execnet.Group(["popen//id=same", "popen//id=same"])


def test_members_given_at_once_start_at_once(tmp_path: Path) -> None:
    # Each reports its start and then waits for a line, which comes when all have reported.
    count = 8
    started, gate = (tmp_path / "started", tmp_path / "gate")
    ends = []
    for fifo in (started, gate):
        os.mkfifo(fifo)
        ends.append(os.open(fifo, os.O_RDWR))
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nprintf x > {started}\nread line < {gate}\nexec python3 "$@"\n')
    script.chmod(0o755)

    def open_when_all_are_there() -> None:
        there = 0
        while there < count:
            there += len(os.read(ends[0], count))
        os.write(ends[1], b"\n" * count)

    porter = threading.Thread(target=open_when_all_are_there)
    porter.start()
    group = execnet.Group([f"popen//python={script}"] * count)
    try:
        porter.join()
        assert group.remote_exec("channel.send(1)").receive_each() == [1] * count
    finally:
        group.terminate(timeout=5.0)
        for end in ends:
            os.close(end)


def test_a_hundred_gateways_start_at_once_and_all_answer() -> None:
    group = execnet.Group(["popen"] * 100)
    try:
        assert len(group) == 100
        assert [gateway.id for gateway in group] == [f"gw{number}" for number in range(100)]
        pids = group.remote_exec("import os; channel.send(os.getpid())").receive_each()
        assert len(set(pids)) == 100
    finally:
        group.terminate(timeout=10.0)
    assert len(group) == 0


def test_remote_exec_on_all_members_gives_a_multichannel(group: execnet.Group) -> None:
    for _ in range(3):
        group.makegateway("popen")
    channels = group.remote_exec("channel.send(channel.receive() + 1)")
    assert isinstance(channels, execnet.MultiChannel)
    assert len(channels) == 3
    channels.send_each(41)
    assert channels.receive_each() == [42, 42, 42]
    channels.waitclose()


def test_a_multichannel_tells_which_channel_an_item_came_from(group: execnet.Group) -> None:
    group.makegateway("popen")
    group.makegateway("popen")
    channels = group.remote_exec("channel.send(channel.gateway.id)")
    received = channels.receive_each(withchannel=True)
    assert [channel for channel, _ in received] == list(channels)
    assert channels[0].gateway is group[0]


def test_waitclose_of_a_multichannel_raises_the_error_of_one(group: execnet.Group) -> None:
    group.makegateway("popen")
    group.makegateway("popen//id=bad")
    channels = group.remote_exec("if channel.gateway.id.startswith('bad'): raise ValueError('of bad')")
    with pytest.raises(execnet.RemoteError, match="of bad"):
        channels.waitclose()


def test_waitclose_of_a_multichannel_waits_for_the_others_when_a_member_is_gone(group: execnet.Group) -> None:
    group.makegateway("popen")
    group.makegateway("popen")
    dies = group[0].remote_exec("import os; os._exit(3)")
    lives = group[1].remote_exec("channel.send(channel.receive())")
    dies.setcallback(lambda _: lives.send("now"), endmarker=None)
    with pytest.raises(execnet.GatewayGone, match="exit status 3"):
        execnet.MultiChannel([dies, lives]).waitclose()
    assert lives.isclosed()


def test_a_subclass_can_override_how_gateways_are_made() -> None:
    made = []

    class Counting(execnet.Group):
        def makegateway(self, spec=None):
            gateway = super().makegateway(spec)
            made.append(gateway)
            return gateway

    group = Counting()
    try:
        group.makegateway("popen")
        assert made == list(group)
        assert repr(group) == "<Counting ['gw0']>" or repr(group) == "<Group ['gw0']>"
    finally:
        group.terminate()


def test_gateways_take_attributes_and_weak_references(gateway: execnet.Gateway) -> None:
    import weakref

    gateway.node = "anything"
    assert gateway.node == "anything"
    assert weakref.ref(gateway)() is gateway


def test_a_group_can_be_used_again_after_terminate(group: execnet.Group) -> None:
    for _ in range(3):
        gateway = group.makegateway("popen")
        assert gateway.remote_exec("channel.send(1)").receive() == 1
        group.terminate()
        assert list(group) == []
    group.terminate()
