"""The environment that code finds on the other side."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import execnet
import interpreters
from captured import Captured

Fresh = Callable[..., execnet.Gateway]


def ask(gateway: execnet.Gateway, expression: str) -> Any:
    """The value of an expression on the other side, where `os` and `sys` are imported."""
    return gateway.remote_exec(f"import os, sys; channel.send({expression})").receive(timeout=20)


def test_the_worker_is_the_one_that_is_to_be_tested(worker: Any, gw: execnet.Gateway) -> None:
    assert ask(gw, "'execnet._core' in sys.modules") is worker.is_native
    interpreter = worker.name.partition(":")[0]
    if interpreter in interpreters.NAMES:
        name = ask(gw, "'pypy3' if hasattr(sys, 'pypy_version_info') else 'python%d.%d' % sys.version_info[:2]")
        assert name == interpreter


def test_arguments_and_path_are_those_of_a_command_line(gw: execnet.Gateway) -> None:
    assert ask(gw, "sys.argv") == ["-c"]
    assert ask(gw, "sys.path[0]") == ""


def test_directory_and_environment_are_the_coordinator_s(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXECNET_TEST_INHERITED", "for the worker")
    gateway = fresh()
    assert ask(gateway, "[os.getcwd(), os.environ['EXECNET_TEST_INHERITED']]") == [str(tmp_path), "for the worker"]


def test_a_module_in_the_directory_can_be_imported(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lies_about.py").write_text("value = 'imported'\n")
    monkeypatch.chdir(tmp_path)
    assert ask(fresh("dont_write_bytecode"), "__import__('lies_about').value") == "imported"
    assert os.listdir(tmp_path) == ["lies_about.py"]


def test_settings_of_the_specification(fresh: Fresh, tmp_path: Path) -> None:
    gateway = fresh(
        f"chdir={tmp_path}/made/when missing//nice=3//dont_write_bytecode//"
        "env:EXECNET_TEST_A=a=b c//env:EXECNET_TEST_B="
    )
    channel = gateway.remote_exec(
        """
        import os, sys
        channel.send(os.getcwd())
        channel.send(os.nice(0))
        channel.send([os.environ["EXECNET_TEST_A"], os.environ["EXECNET_TEST_B"]])
        channel.send(sys.dont_write_bytecode)
        """
    )
    assert channel.receive(timeout=60) == f"{tmp_path}/made/when missing"
    assert channel.receive(timeout=60) == min(19, os.nice(0) + 3)
    assert channel.receive(timeout=60) == ["a=b c", ""]
    assert channel.receive(timeout=60) is True


def test_a_directory_that_is_there_already_is_used(fresh: Fresh, tmp_path: Path) -> None:
    assert ask(fresh(f"chdir={tmp_path}"), "os.getcwd()") == str(tmp_path)


def test_a_directory_that_cannot_be_made_is_told(fresh: Fresh, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(execnet.HostNotFound, match=f"{tmp_path}/file/below"):
        fresh(f"chdir={tmp_path}/file/below")


def test_bytecode_is_written_unless_told_otherwise(gw: execnet.Gateway) -> None:
    assert ask(gw, "sys.dont_write_bytecode") is bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))


def test_standard_input_is_empty(gw: execnet.Gateway) -> None:
    assert ask(gw, "os.path.samefile('/dev/stdin', os.devnull)") is True
    assert ask(gw, "sys.stdin.read()") == ""


def test_what_is_printed_reaches_standard_output_and_error_here(
    worker: Any, fresh: Fresh, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = fresh()
    channel = gateway.remote_exec(
        """
        import os, sys
        print("from print")
        sys.stdout.flush()
        os.system("echo from a child")
        sys.stderr.write("from stderr\\n")
        channel.send(None)
        """
    )
    channel.receive(timeout=60)
    channel.waitclose(60)
    captured = Captured(capfd)
    assert captured.shows(lambda all: (all.out + all.err).count("\n") >= 3), vars(captured)
    if worker.has_stdout:
        assert (captured.out, captured.err) == ("from print\nfrom a child\n", "from stderr\n")
    else:
        assert (captured.out, captured.err) == ("", "from print\nfrom a child\nfrom stderr\n")


@pytest.mark.needs_threads
@pytest.mark.parametrize("keys", ["stdout=null", "execmodel=main_thread_only"])
def test_what_is_printed_reaches_nobody_where_that_is_wanted(
    fresh: Fresh, keys: str, capfd: pytest.CaptureFixture[str]
) -> None:
    channel = fresh(keys).remote_exec(
        """
        import os, sys
        print("from print")
        sys.stdout.flush()
        os.system("echo from a child")
        channel.send(os.path.samefile("/dev/stdout", os.devnull))
        """
    )
    assert channel.receive(timeout=60) is True
    channel.waitclose(60)
    assert "from" not in capfd.readouterr().out


@pytest.mark.needs_threads
def test_main_thread_only_can_print_all_the_same(fresh: Fresh, capfd: pytest.CaptureFixture[str]) -> None:
    fresh("execmodel=main_thread_only//stdout=inherit").remote_exec("print('from print')").waitclose(60)
    captured = Captured(capfd)
    assert captured.shows(lambda all: "from print\n" in all.out + all.err), vars(captured)


def test_the_code_has_no_descriptors_of_the_coordinator(fresh: Fresh, tmp_path: Path) -> None:
    with open(tmp_path / "open here", "w") as file:
        os.set_inheritable(file.fileno(), True)
        gateway = fresh()
        there = set()
        for entry in Path(f"/proc/{gateway._rinfo().pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the worker's own come and go: it may be importing
                there.add(os.readlink(entry))
    assert "/dev/null" in there
    assert file.name not in there


def test_the_code_s_own_children_do_not_get_the_connection(gw: execnet.Gateway) -> None:
    # If a child held the stream open, nobody would notice the end of the worker.
    listing = ask(gw, "__import__('subprocess').check_output(['ls', '-l', '/proc/self/fd'], close_fds=False).decode()")
    assert "socket:" not in listing


def test_what_the_worker_is_can_be_asked(worker: Any, gw: execnet.Gateway) -> None:
    info = gw._rinfo()
    assert info.pid == ask(gw, "os.getpid()")
    assert info.cwd == os.getcwd()
    assert info.platform == ask(gw, "sys.platform")
    assert info.executable == ask(gw, "sys.executable")
    assert list(info.version_info) == ask(gw, "list(sys.version_info)")
    if worker.is_native:
        assert tuple(info.version_info) == tuple(sys.version_info)


def test_what_the_worker_is_is_asked_again_when_that_is_wanted(worker: Any, fresh: Fresh, tmp_path: Path) -> None:
    gateway = fresh()
    before = gateway._rinfo().cwd
    gateway.remote_exec(f"import os, sys; os.chdir({str(tmp_path)!r}); sys.executable = '/own'").waitclose(60)
    assert gateway._rinfo().cwd == before
    info = gateway._rinfo(update=True)
    assert (info.cwd, info.executable) == (str(tmp_path), "/own")
    assert vars(gateway._rinfo()) == vars(info)
    assert info.implementation == ("native" if worker.is_native else "pure")
    assert info.pid == ask(gateway, "os.getpid()")


def test_a_channel_takes_attributes_there(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.own = [1]; channel.send(channel.own); channel.gateway.own = 2")
    assert channel.receive(timeout=60) == [1]
    channel.waitclose(60)


def test_execnet_can_be_imported_in_a_native_worker(worker: Any, gw: execnet.Gateway) -> None:
    if not worker.is_native:
        pytest.skip("about the native worker only")
    assert ask(gw, "__import__('execnet').__version__") == execnet.__version__


PURGE = """
import sys
for name in [name for name in sys.modules if name.split(".")[0] == "execnet"]:
    del sys.modules[name]
"""


def test_a_worker_goes_on_when_execnet_is_taken_out_of_its_modules(fresh: Fresh) -> None:
    gateway = fresh()
    before = gateway.remote_exec("for item in channel: channel.send(item)")
    before.send(1)
    assert before.receive(timeout=60) == 1
    gateway.remote_exec(PURGE).waitclose(60)
    before.send(2)
    assert before.receive(timeout=60) == 2
    assert gateway.remote_exec("channel.send(repr(channel.gateway))").receive(timeout=60)
    with pytest.raises(execnet.RemoteError, match="ZeroDivisionError"):
        gateway.remote_exec("1 / 0").waitclose(60)


def test_execnet_is_imported_again_in_a_native_worker(worker: Any, fresh: Fresh) -> None:
    if not worker.is_native:
        pytest.skip("about the native worker only")
    again = PURGE + "import execnet\nchannel.send(isinstance(channel, execnet.Channel))\n"
    again += "gateway = execnet.makegateway('popen')\n"
    again += "channel.send(gateway.remote_exec('channel.send(42)').receive())\nexecnet.default_group.terminate(30)"
    gateway = fresh()
    for _ in range(2):
        channel = gateway.remote_exec(again)
        assert channel.receive(timeout=60) is True
        assert channel.receive(timeout=60) == 42
        channel.waitclose(60)
