"""Where code runs on the other side, how many at a time, and how it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import execnet
from belongings import eventually, has_ended, pidfd

Fresh = Callable[..., execnet.Gateway]

TELL_THREAD = """
import threading
main = type(threading.current_thread()).__name__ == "_MainThread"
channel.send([main, threading.current_thread().ident])
channel.receive()
"""


# Enough address space for the code that runs, too little for the stack of another thread.
NO_MORE_MEMORY = """
import resource
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 2 ** 20, before[1]))
channel.send("no more")
channel.receive()
resource.setrlimit(resource.RLIMIT_AS, before)
channel.send("as before")
"""


@pytest.mark.needs_threads
def test_the_first_runs_in_the_main_thread_and_others_beside_it(fresh: Fresh) -> None:
    gateway = fresh()
    channels = [gateway.remote_exec(TELL_THREAD) for _ in range(4)]
    places = [channel.receive(timeout=60) for channel in channels]
    assert [main for main, _ in places] == [True, False, False, False]
    assert len({ident for _, ident in places}) == 4
    for channel in channels:
        channel.send(None)
    for channel in channels:
        channel.waitclose(60)
    for _ in range(20):  # and again, whatever has become of the other threads
        channel = gateway.remote_exec(TELL_THREAD)
        assert channel.receive(timeout=60)[0] is True
        channel.send(None)
        channel.waitclose(60)


def test_one_after_the_other_all_run_in_the_main_thread(fresh: Fresh) -> None:
    gateway = fresh()
    for _ in range(20):
        channel = gateway.remote_exec(TELL_THREAD)
        assert channel.receive(timeout=60)[0] is True
        channel.send(None)
        channel.waitclose(60)


@pytest.mark.needs_threads
def test_what_cannot_have_a_thread_is_refused_and_says_so(fresh: Fresh) -> None:
    gateway = fresh()
    occupied = gateway.remote_exec(NO_MORE_MEMORY)
    assert occupied.receive(timeout=60) == "no more"
    # Stacks of threads that have ended may be used again.
    beside = [gateway.remote_exec("channel.send(1); channel.receive()") for _ in range(3)]
    occupied.send("go on")
    with pytest.raises(execnet.RemoteError, match="thread"):
        beside[-1].waitclose(60)
    assert occupied.receive(timeout=60) == "as before"
    occupied.waitclose(60)
    assert gateway.remote_exec("channel.send(1)").receive(timeout=60) == 1


@pytest.mark.needs_threads
def test_two_can_wait_for_each_other(gw: execnet.Gateway) -> None:
    meeting = "import sys; e = sys.modules.setdefault('meeting', __import__('threading').Event());"
    waiting = gw.remote_exec(meeting + "channel.send(1); e.wait(30); channel.send(e.is_set())")
    assert waiting.receive(timeout=60) == 1
    gw.remote_exec(meeting + "e.set(); del sys.modules['meeting']").waitclose(60)
    assert waiting.receive(timeout=60) is True


@pytest.mark.needs_threads
def test_programs_that_code_beside_the_main_thread_starts_can_be_signalled(gw: execnet.Gateway) -> None:
    # Threads inherit the signal mask of the thread that starts them. Here the main thread does not wait for
    # the connection, so another thread reads the EXEC and starts the task.
    occupied = gw.remote_exec(
        """
        import sys, threading
        sys.go_on = threading.Event()
        channel.send(1)
        sys.go_on.wait(20)
        """
    )
    assert occupied.receive(timeout=20) == 1
    beside = gw.remote_exec(
        """
        import subprocess, sys
        status = subprocess.check_output(["cat", "/proc/self/status"]).decode()
        sys.go_on.set()
        channel.send([line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")])
        """
    )
    assert [int(mask, 16) for mask in beside.receive(timeout=20)] == [0]
    occupied.waitclose(timeout=20)


@pytest.mark.needs_threads
def test_the_status_tells_what_runs(fresh: Fresh) -> None:
    gateway = fresh()
    assert status(gateway) == (0, 0, "thread")
    channels = [gateway.remote_exec("channel.send(1); channel.receive()") for _ in range(3)]
    for channel in channels:
        channel.receive(timeout=60)
    assert status(gateway) == (3, 3, "thread")
    for channel in channels:
        channel.send(None)
        channel.waitclose(60)
    assert status(gateway) == (0, 0, "thread")


def status(gateway: execnet.Gateway) -> tuple[int, int, str]:
    answer = gateway.remote_status()
    return answer.numchannels, answer.numexecuting, answer.execmodel


def test_what_the_worker_is_can_be_asked_while_it_is_busy(fresh: Fresh) -> None:
    gateway = fresh()
    busy = gateway.remote_exec("channel.send(1)\nwhile not channel.isclosed(): pass")
    busy.receive(timeout=60)
    assert gateway._rinfo().pid > 0
    assert status(gateway)[1] == 1
    busy.close()
    busy.waitclose(60)


@pytest.mark.needs_threads
def test_only_the_main_thread_runs_code_if_so_specified(fresh: Fresh) -> None:
    gateway = fresh("execmodel=main_thread_only")
    for _ in range(3):  # Back to back is fine.
        channel = gateway.remote_exec(TELL_THREAD)
        assert channel.receive(timeout=60)[0] is True
        channel.send(None)
        channel.waitclose(60)
    running = gateway.remote_exec("channel.send(channel.receive())")
    with pytest.raises(execnet.RemoteError, match="concurrent remote_exec would cause deadlock"):
        gateway.remote_exec("channel.send('never')").receive(timeout=60)
    running.send("unharmed")
    assert running.receive(timeout=60) == "unharmed"


BUSY = {
    "waits for an item": "channel.send(1); channel.receive()",
    "sleeps": "import time; channel.send(1); time.sleep(1000)",
    "loops": "channel.send(1)\nwhile True: pass",
    "loops and is deaf": "import signal; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGTERM, signal.SIGINT)]\n"
    "channel.send(1)\nwhile True: pass",
}


@pytest.mark.parametrize("doing", BUSY)
def test_a_busy_worker_is_terminated(fresh: Fresh, group: execnet.Group, doing: str) -> None:
    gateway = fresh()
    channel = gateway.remote_exec(BUSY[doing])
    channel.receive(timeout=60)
    with pidfd(gateway._rinfo().pid) as end:
        group.terminate(timeout=0.1)
        assert eventually(
            lambda: has_ended(end)
        )  # it is killed by now: a busy kernel may need longer than we wait for it


def test_an_idle_worker_ends_by_itself_when_told(fresh: Fresh, group: execnet.Group) -> None:
    gateway = fresh()
    with pidfd(gateway._rinfo().pid) as end:
        gateway.exit()
        assert select.select([end], [], [], 60)[0]
    group.terminate()


@pytest.mark.needs_threads
def test_a_worker_whose_code_has_taken_all_descriptors_ends_when_told(fresh: Fresh) -> None:
    gateway = fresh()
    gateway.remote_exec("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))").waitclose(60)
    gateway.exit()
    gateway.join(timeout=60)
    assert not gateway.hasreceiver()


def test_threads_that_wait_for_code_and_one_for_callbacks_end_when_told(fresh: Fresh) -> None:
    gateway = fresh()
    code = """
    other = channel.gateway.newchannel()
    other.setcallback(channel.send)
    channel.send(other)
    """
    callback = gateway.remote_exec(code)
    other = callback.receive(timeout=20)
    channels = [gateway.remote_exec("channel.send(channel.receive())") for _ in range(3)]
    for channel in channels:
        channel.send(1)
        channel.waitclose(timeout=20)
    other.close()
    with pidfd(gateway._rinfo().pid) as end:
        gateway.exit()
        assert select.select([end], [], [], 4)[0]  # well before code that goes on would be interrupted


COORDINATOR = """
import sys, time
import execnet
group = execnet.Group()
*_, gateway = [group.makegateway(spec) for spec in sys.argv[2:]]
channel = gateway.remote_exec(sys.argv[1])
channel.receive()
print(gateway._rinfo().pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("doing", ["waits for an item", "loops and is deaf"])
def test_a_worker_ends_when_its_coordinator_is_killed(worker: Any, doing: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, BUSY[doing], *filter(None, [worker.proxy, worker.spec])],
        stdout=subprocess.PIPE,
        text=True,
    ) as coordinator:
        assert coordinator.stdout is not None
        with pidfd(int(coordinator.stdout.readline())) as end:
            os.kill(coordinator.pid, signal.SIGKILL)
            assert select.select([end], [], [], 60)[0]


def test_the_gateway_there_takes_attributes_and_weak_references_too(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        import weakref
        gateway = channel.gateway
        gateway.mine = [channel]
        channel.send([channel.gateway.mine == [channel], weakref.ref(gateway)() is gateway])
        del gateway.mine
        with gateway.execmodel.Lock(), gateway.execmodel.RLock():
            channel.send(gateway.execmodel.backend)
        """
    )
    assert channel.receive(timeout=60) == [True, True]
    assert channel.receive(timeout=60) in ("thread", "gevent")
