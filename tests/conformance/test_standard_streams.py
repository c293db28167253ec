"""stdin=, stdout= and stderr= of a specification."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

import execnet
from captured import Captured

Fresh = Callable[..., execnet.Gateway]

WRITE = """
import os, sys
sys.stdout.write("from stdout\\n")
sys.stdout.flush()
os.system("echo from a child")
sys.stderr.write("from stderr\\n")
sys.stderr.flush()
os.system("echo from the stderr of a child >&2")
channel.send([sys.stdin.read(), os.read(0, 1) == b""])
"""


def test_all_three_may_be_the_null_device(fresh: Fresh, capfd: pytest.CaptureFixture[str]) -> None:
    channel = fresh("stdin=devnull//stdout=devnull//stderr=devnull").remote_exec(WRITE)
    assert channel.receive(timeout=60) == ["", True]
    channel.waitclose(60)
    assert "from" not in "".join(capfd.readouterr())


def test_stdout_may_be_stderr(fresh: Fresh, capfd: pytest.CaptureFixture[str]) -> None:
    fresh("stdout=stderr").remote_exec(WRITE).waitclose(60)
    captured = Captured(capfd)
    expected = "from stdout\nfrom a child\nfrom stderr\nfrom the stderr of a child\n"
    assert captured.shows(lambda all: all.err == expected and all.out == ""), vars(captured)


def test_stdout_follows_a_stderr_that_is_thrown_away(fresh: Fresh, capfd: pytest.CaptureFixture[str]) -> None:
    fresh("stdout=stderr//stderr=devnull").remote_exec(WRITE).waitclose(60)
    assert "from" not in "".join(capfd.readouterr())


def test_what_is_closed_can_be_neither_read_nor_written_and_nothing_else_gets_its_number(
    worker: Any, fresh: Fresh, capfd: pytest.CaptureFixture[str]
) -> None:
    channel = fresh("stdin=close//stdout=close//stderr=close").remote_exec(
        """
        import errno, os, subprocess, sys
        def fails(call):
            try:
                call()
            except EnvironmentError as error:
                return error.errno == errno.EBADF
        calls = [lambda: os.read(0, 1), lambda: os.write(1, b"from"), lambda: os.write(2, b"from")]
        channel.send([fails(call) for call in calls])
        with open(os.devnull) as opened:
            channel.send(opened.fileno() > 2)
        channel.send([sys.stdin is None, sys.stdout is None, sys.stderr is None])
        channel.send(subprocess.call("echo from a child 2>&-", shell=True) != 0)
        if sys.version_info > (3,):
            print("from print")
        """
    )
    assert channel.receive(timeout=60) == [True] * 3
    assert channel.receive(timeout=60) is True
    assert channel.receive(timeout=60) == [not worker.is_python2] * 3
    assert channel.receive(timeout=60) is True
    channel.waitclose(60)
    assert "from" not in "".join(capfd.readouterr())


def test_a_worker_without_any_ends_well(fresh: Fresh, group: execnet.Group) -> None:
    gateway = fresh("stdin=close//stdout=close//stderr=close")
    gateway.remote_exec("pass").waitclose(60)
    group.terminate(20)
    assert group.ended_by_themselves
    assert gateway.returncode in (0, None)  # that of a socket is not known


@pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="the signal is the sanitizer's")
def test_a_fatal_signal_is_reported_all_the_same(worker: Any, fresh: Fresh) -> None:
    if worker.is_python2 or worker.name == "socket":
        pytest.skip("it has no report, or only the end of its connection is known")
    channel = fresh("stderr=close").remote_exec(f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    with pytest.raises(execnet.GatewayGone, match="Fatal Python error: Segmentation fault"):
        channel.receive(timeout=60)
