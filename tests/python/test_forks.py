"""A forked copy of a process leaves the gateways of the original alone, and can make its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable

import pytest

import execnet
from belongings import eventually


def in_child(check: Callable[[], object], leave: Callable[[int], object] = os._exit) -> int:
    """The exit status of a forked child that runs `check`: 0 if it raised nothing."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        check()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        leave(status)
    raise AssertionError


@pytest.fixture
def channel(group: execnet.Group) -> execnet.Channel:
    gateway = group.makegateway("popen")
    channel = gateway.remote_exec("for item in channel: channel.send(item)")
    channel.send(1)
    assert channel.receive() == 1
    return channel


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class TestForkedChild:
    def test_its_copies_of_gateways_and_channels_say_whose_they_are(self, channel: execnet.Channel) -> None:
        def check() -> None:
            for use in (
                lambda: channel.send(2),
                lambda: channel.receive(timeout=60),
                lambda: channel.waitclose(timeout=60),
                lambda: channel.gateway.remote_exec("pass"),
            ):
                with pytest.raises(OSError, match="forked from"):
                    use()
            assert not channel.gateway.hasreceiver()
            assert "not-receiving" in repr(channel.gateway)
            channel.gateway.exit()

        assert in_child(check) == 0
        channel.send(3)
        assert channel.receive() == 3

    @pytest.mark.skipif(
        os.environ.get("EXECNET_TEST_SANITIZER") == "thread",
        reason="ThreadSanitizer ends a forked child that starts threads",
    )
    def test_its_groups_are_empty_and_can_be_used(self, group: execnet.Group, channel: execnet.Channel) -> None:
        def check() -> None:
            assert len(group) == 0
            gateway = group.makegateway("popen")
            assert gateway.remote_exec("channel.send(4)").receive() == 4
            group.terminate(timeout=5)

        assert in_child(check) == 0
        assert len(group) == 1
        channel.send(5)
        assert channel.receive() == 5

    def test_it_forgets_threads_that_had_ended(self) -> None:
        # The copy has no stacks of threads that nobody has joined yet. Touching these would crash it.
        groups = [execnet.Group(["popen"]) for _ in range(8)]
        try:
            for number, group in enumerate(groups):
                threads = set(os.listdir("/proc/self/task"))
                over = threading.Event()
                channel = group[0].remote_exec("channel.send(1); channel.receive()")
                channel.setcallback(lambda item, over=over: over.set() if item is None else None, endmarker=None)
                dispatcher = set(os.listdir("/proc/self/task")) - threads
                assert len(dispatcher) == 1
                if number % 2:
                    group[0].exit()
                    assert over.wait(20)
                    assert eventually(lambda gone=dispatcher: not gone & set(os.listdir("/proc/self/task")))
            assert in_child(lambda: None) == 0
        finally:
            for group in groups:
                group.terminate(timeout=5)

    def test_its_end_leaves_the_gateways_alone(self, channel: execnet.Channel) -> None:
        def end_in_the_ordinary_way(status: int) -> None:
            # Does what the interpreter does at its end, without the rest of the test run in this copy.
            import atexit
            import gc

            atexit._run_exitfuncs()
            gc.collect()
            os._exit(status)

        assert in_child(lambda: None, end_in_the_ordinary_way) == 0
        channel.send(6)
        assert channel.receive() == 6


FORKS_WHILE_IT_IMPORTS = """
import os, signal, sys, threading
import execnet

importing, forking = threading.Event(), threading.Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "execnet._source":
            importing.set()
            forking.wait()

sys.meta_path.insert(0, Slow())
gateway = execnet.makegateway("popen")
first = threading.Thread(target=lambda: gateway.remote_exec("pass").waitclose(20))
first.start()
importing.wait()
os.register_at_fork(before=forking.set)  # called before what execnet has registered
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    print(execnet.Group(["popen"])[0].remote_exec("channel.send(1)").receive(), flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
first.join()
"""


def test_a_thread_that_imports_for_its_first_remote_exec_is_waited_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS_WHILE_IT_IMPORTS], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout.split() == ["1", "0"], f"{-signal.SIGALRM}: it hung\n{done.stderr}"


def test_code_in_a_worker_may_fork_and_its_child_may_end_as_it_likes(group: execnet.Group) -> None:
    gateway = group.makegateway("popen")
    channel = gateway.remote_exec(
        """
        import os, sys
        pid = os.fork()
        if pid == 0:
            try:
                channel.send("from the child")
            except EOFError:
                sys.exit(7)
        channel.send(os.waitpid(pid, 0)[1])
        """
    )
    status = channel.receive(timeout=30)
    assert os.WIFEXITED(status), "it hung or crashed"
    channel.waitclose(timeout=30)
    assert gateway.remote_exec("channel.send(1)").receive() == 1
