"""The modules that programs of execnet 2.1 import from, and their content."""

from __future__ import annotations

import importlib
import io
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import execnet
import interpreters
from belongings import ends_gone
from execnet import gateway, gateway_base, gateway_io, multi
from execnet._execmodel import ExecModel
from sshd import PrivateSshd

NAMES = {
    "execnet": "Channel DataFormatError DumpError Gateway Group HostNotFound LoadError MultiChannel RSync RemoteError "
    "TimeoutError XSpec __version__ default_group dump dumps load loads makegateway set_execmodel",
    "execnet.gateway_base": "ExecModel get_execmodel WorkerPool Channel RemoteError TimeoutError DumpError dumps dump "
    "loads load dumps_internal loads_internal opcode DUMPFORMAT_VERSION MAIN_THREAD_ONLY_DEADLOCK_TEXT Unserializer "
    "_Serializer",
    "execnet.gateway": "Gateway rinfo_source",
    "execnet.gateway_io": "ssh_args vagrant_ssh_args popen_args popen_bootstrapline",
    "execnet.gateway_bootstrap": "HostNotFound",
    "execnet.multi": "Group MultiChannel safe_terminate",
    "execnet.rsync": "RSync",
    "execnet.script.socketserver": "bind_and_listen exec_from_one_connection startserver",
    "execnet.xspec": "XSpec",
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in NAMES for name in NAMES[module].split()])
def test_a_name_is_where_programs_look_for_it_and_is_the_one_there_is(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert found is getattr(execnet, name, found)


# --- Values -----------------------------------------------------------------------------------------


def test_values_without_version_byte_follow_each_other_in_a_file() -> None:
    file = io.BytesIO()
    serializer = gateway_base._Serializer(file.write)
    values = [1, ["a", {"b": (2.5, None)}], b"c" * 100_000]
    for value in values:
        assert serializer.save(value) is None
    file.seek(0)
    unserializer = gateway_base.Unserializer(file)
    assert [unserializer.load() for _ in values] == values
    with pytest.raises(execnet.LoadError):
        unserializer.load()


def test_a_serializer_without_a_file_gives_bytes() -> None:
    assert gateway_base._Serializer().save(1) == execnet.dumps(1)[1:] == gateway_base.dumps_internal(1)
    assert gateway_base._Serializer().save(1, versioned=True) == execnet.dumps(1)
    assert gateway_base.Unserializer(io.BytesIO(execnet.dumps(1))).load(versioned=True) == 1
    with pytest.raises(execnet.DumpError, match=r"at \[0\]"):
        gateway_base._Serializer().save([object()])


def test_strings_of_python_2_are_loaded_as_wanted() -> None:
    data = b"M\0\0\0\1\xe9Q"
    assert gateway_base.loads_internal(data) == "\xe9"
    assert gateway_base.loads_internal(data, strconfig=(False, False)) == b"\xe9"
    assert gateway_base.Unserializer(io.BytesIO(data), strconfig=(False, False)).load() == b"\xe9"


def test_the_opcodes_are_those_of_the_format() -> None:
    described = {
        cells[2].strip(): cells[1].strip().strip("`").encode()
        for line in Path("docs/wire_format.md").read_text().splitlines()
        if len(cells := line.split("|")) == 6 and cells[1].strip().startswith("`")
    }
    opcodes = {name: value for name, value in vars(gateway_base.opcode).items() if not name.startswith("_")}
    assert opcodes == {name: op for name, op in described.items() if op <= b"T"}
    assert len(opcodes) == 21


def test_each_opcode_has_a_name_in_the_unserializer() -> None:
    opcodes = {value for name, value in vars(gateway_base.opcode).items() if not name.startswith("_")}
    assert set(gateway_base.Unserializer.num2func) == opcodes
    assert "load_channel" in f"{gateway_base.Unserializer.num2func[gateway_base.opcode.CHANNEL]}"


# --- Command lines ----------------------------------------------------------------------------------


# What programs repeat that do not import it.
LINE = "import sys;exec(eval(sys.stdin.readline()))"


def test_command_lines() -> None:
    assert gateway_io.popen_bootstrapline == LINE
    spec = execnet.XSpec("popen//python='my python' -3//dont_write_bytecode//preload")
    assert gateway_io.popen_args(spec) == ["my python", "-3", "-u", "-B", "-c", LINE]
    assert gateway_io.popen_args(execnet.XSpec("popen"))[0] == sys.executable
    assert gateway_io.popen_args(execnet.XSpec("popen"))[-2:] == ["-c", LINE]
    args = gateway_io.ssh_args(execnet.XSpec("ssh=-p 22 user@host//ssh_config=/my/config//python=py3"))
    assert args[:6] == ["ssh", "-F", "/my/config", "-p", "22", "user@host"]
    assert "exec py3 -u -c" in args[-1]
    assert LINE in args[-1]
    assert gateway_io.vagrant_ssh_args(execnet.XSpec("vagrant_ssh=box"))[:3] == ["vagrant", "ssh", "box"]
    with pytest.raises(ValueError, match="no gateway type"):
        gateway_io.popen_args(execnet.XSpec("python=py3"))


def popen_args(spec: execnet.XSpec) -> list[str]:
    """As in programs that make all of it themselves."""
    return [sys.executable, "-c", LINE]


def wrapped_popen_args(spec: execnet.XSpec) -> list[str]:
    return ["env", "WRAPPED=yes", *OURS(spec)]


def closed_popen_args(spec: execnet.XSpec) -> list[str]:
    return ["sh", "-c", f'exec 3<&-; "{sys.executable}" -c "{gateway_io.popen_bootstrapline}"']


def python2_args(spec: execnet.XSpec) -> list[str]:
    return [interpreters.find("python2.7") or "", "-u", "-c", LINE]


OURS = gateway_io.popen_args
ECHO = "for item in channel: channel.send(item)"


@pytest.mark.parametrize("replaced", [popen_args, wrapped_popen_args, closed_popen_args, python2_args])
def test_a_program_can_replace_the_command_lines(
    replaced: Callable[[execnet.XSpec], list[str]],
    group: execnet.Group,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if replaced is python2_args and interpreters.find("python2.7") is None:
        pytest.skip("python2.7: not found")
    (tmp_path / "zlib.py").write_text("raise RuntimeError('imported from the working directory')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gateway_io, "popen_args", replaced)
    gateways = [group.makegateway(f"popen//id=a//env:ID=a//chdir={tmp_path}"), group.makegateway("popen//id=b")]
    for each in gateways:
        channel = each.remote_exec(ECHO)
        channel.send("x" * 3_000_000)
        assert channel.receive(timeout=60) == "x" * 3_000_000
        channel.close()
    seen = gateways[0].remote_exec(
        """
        import os, sys
        print("said")
        channel.send((os.environ.get("WRAPPED"), os.environ.get("ID"), os.getcwd(), sys.path[0]))
        """
    )
    wrapped = "yes" if replaced is wrapped_popen_args else None
    assert seen.receive(timeout=60) == (wrapped, "a", str(tmp_path), "")
    seen.waitclose(timeout=60)
    pids = [each.remote_exec("import os; channel.send(os.getpid())").receive(timeout=60) for each in gateways]
    group.terminate(timeout=5)
    assert ends_gone(pids)
    out = capfd.readouterr()  # what a worker has written to a pipe of ours is passed on by the end
    assert (out.err if replaced is closed_popen_args else out.out) == "said\n"


def test_the_command_lines_of_ssh_can_be_replaced_too(
    sshd: PrivateSshd, group: execnet.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = gateway_io.ssh_args(execnet.XSpec("ssh=localhost"))

    def ssh_args(spec: execnet.XSpec) -> list[str]:
        """As in drivers that log in with a command of their own."""
        assert spec.ssh == "localhost"
        return [*ours[:-1], f'MADE=here {spec.python or "python3"} -c "{LINE}"']

    monkeypatch.setattr(gateway_io, "ssh_args", ssh_args)
    gateway = group.makegateway(f"ssh=localhost//python={shlex.quote(sys.executable)}")
    assert gateway.remote_exec("import os; channel.send(os.environ['MADE'])").receive(timeout=60) == "here"
    assert gateway.remote_exec(ECHO)
    # And as ours would be.
    monkeypatch.setattr(gateway_io, "ssh_args", lambda spec: ours)
    assert group.makegateway("ssh=localhost").remote_exec("channel.send(1)").receive(timeout=60) == 1


def test_what_a_replaced_function_returns_is_checked(group: execnet.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (None, "python3 -c x", [], [1]):
        monkeypatch.setattr(gateway_io, "popen_args", lambda spec, wrong=wrong: wrong)
        with pytest.raises(TypeError, match="has to return a list of str"):
            group.makegateway("popen")
    with pytest.raises(ValueError, match="one excludes the other"):
        group.makegateway("popen//preload")
    monkeypatch.setattr(gateway_io, "popen_args", lambda spec: [sys.executable, "-c", "print('no line', flush=True)"])
    with pytest.raises(execnet.HostNotFound, match="no worker, but this on its stdout: no line"):
        group.makegateway("popen")
    monkeypatch.setattr(gateway_io, "popen_args", lambda spec: ["no-such-program"])
    with pytest.raises(execnet.HostNotFound, match="cannot start 'no-such-program'"):
        group.makegateway("popen")
    assert len(group) == 0


def test_rinfo_source_can_be_sent(group: execnet.Group) -> None:
    other = group.makegateway("popen")
    assert other.remote_exec(gateway.rinfo_source).receive(timeout=60)["pid"] == other._rinfo().pid


# --- Pools ------------------------------------------------------------------------------------------


@pytest.fixture
def model() -> ExecModel:
    return gateway_base.get_execmodel("thread")


def test_a_pool_runs_functions_and_gives_what_came_of_them(model: ExecModel) -> None:
    pool = gateway_base.WorkerPool(model)
    go = threading.Event()
    waiting = pool.spawn(go.wait, timeout=20)
    assert pool.active_count() == 1
    assert waiting.running
    with pytest.raises(OSError, match="timeout"):
        waiting.get(timeout=0.01)
    assert not pool.waitall(timeout=0.01)
    with pytest.raises(ZeroDivisionError):
        pool.spawn(divmod, 1, 0).get(timeout=20)
    go.set()
    assert waiting.get(timeout=20) is True
    assert pool.terminate(timeout=20)
    assert not waiting.running
    assert pool.active_count() == 0
    with pytest.raises(ValueError, match="shut down"):
        pool.spawn(int)


def test_a_pool_can_use_the_callers_thread(model: ExecModel) -> None:
    pool = gateway_base.WorkerPool(model, hasprimary=True)
    idents: list[int] = []

    def use() -> None:
        first = pool.spawn(threading.get_ident)
        idents.append(first.get(timeout=20))
        pool.trigger_shutdown()

    user = threading.Thread(target=use)
    user.start()
    pool.integrate_as_primary_thread()
    user.join()
    assert pool.waitall(timeout=20)
    assert len(idents) == 1


def test_what_does_not_end_by_itself_is_ended(model: ExecModel) -> None:
    ended, killed = threading.Event(), threading.Event()
    pairs = [(killed.wait, killed.set), (ended.set, pytest.fail)]
    multi.safe_terminate(model, 1.0, pairs)
    assert ended.is_set()
    assert killed.is_set()


# --- Execution models -------------------------------------------------------------------------------


def test_an_execution_model_has_what_programs_look_for(model: ExecModel) -> None:
    assert gateway_base.get_execmodel("thread") is gateway_base.get_execmodel(model) is model
    assert (model.backend, repr(model)) == ("thread", "<ExecModel 'thread'>")
    assert model.queue is importlib.import_module("queue")
    assert model.get_ident() == threading.get_ident()
    done = model.Event()
    model.start(lambda value: value.set(), (done,))
    assert done.wait(20)
    with model.RLock(), model.Lock():
        pass
    with pytest.raises(ValueError, match="unknown execmodel 'nonsense'"):
        gateway_base.get_execmodel("nonsense")


def test_a_group_has_one_for_each_side(group: execnet.Group) -> None:
    group.set_execmodel("thread", "main_thread_only")
    member = group.makegateway("popen")
    assert (group.execmodel.backend, group.remote_execmodel.backend) == ("thread", "main_thread_only")
    assert member.execmodel is group.execmodel
    assert (member.spec.execmodel, member.remote_status().execmodel) == ("main_thread_only", "main_thread_only")
    with pytest.raises(ValueError, match="has members"):
        group.set_execmodel("thread")
    with pytest.raises(ValueError, match="unknown execmodel"):
        execnet.Group(execmodel="nonsense")
    assert execnet.set_execmodel.__self__ is execnet.default_group  # type: ignore[attr-defined]
