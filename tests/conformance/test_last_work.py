"""What the code has left running when its tasks are over still finishes, before the worker ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import execnet
from belongings import eventually, has_ended, pidfd
from lateness import Stopwatch

Fresh = Callable[..., execnet.Gateway]

# For code of ours: `module` is kept by the interpreter. ended() returns when the main thread has come to its end.
LEAVE = """
import sys, threading
main, = [thread for thread in threading.enumerate() if type(thread).__name__ == "_MainThread"]
module = sys.modules["kept"] = type(sys)("kept")
ended = main.join

def write(path, text, mode="a"):
    with open(path, mode) as file:
        file.write(text)
"""

THREAD = """
def work():
    ended()
    write(channel_path, "thread ")
threading.Thread(target=work).start()
"""

TELL = """
def tell():
    ended()
    write(channel_path, "waits", "w")
threading.Thread(target=tell).start()
"""

AT_EXIT = """
import atexit
atexit.register(write, channel_path, "atexit ")
"""

# The executor waits for its jobs before the main thread counts as ended.
JOBS = """
import atexit
from concurrent.futures import ThreadPoolExecutor
end_begins = threading.Event()
getattr(threading, "_register_atexit", atexit.register)(end_begins.set)
module.pool = ThreadPoolExecutor(1)
module.pool.submit(end_begins.wait)
for number in range(3):
    module.pool.submit(write, channel_path, "%d " % number)
"""

POOLS = {
    "ProcessPoolExecutor": """
from concurrent.futures import ProcessPoolExecutor
module.pool = ProcessPoolExecutor(2)
module.pool.submit(int).result()
""",
    "multiprocessing.Pool": """
import multiprocessing
module.pool = multiprocessing.Pool(2)
module.pool.apply(int)
""",
}

FOR_EVER = """
import time
threading.Thread(target=time.sleep, args=(1000,)).start()
"""


def leave(gateway: execnet.Gateway, code: str, path: Path) -> None:
    """Runs the code to its end; `channel_path` is the path."""
    gateway.remote_exec(f"{LEAVE}\nchannel_path = {str(path)!r}\n{code}").waitclose(60)


def seconds_to_end(group: execnet.Group, gateway: execnet.Gateway) -> float:
    """How long the worker takes from when it is told to end until it has ended by itself."""
    with pidfd(gateway._rinfo().pid) as end, Stopwatch() as watch:
        gateway.exit()
        assert select.select([end], [], [], 60)[0]
    group.terminate(timeout=5)
    return watch.seconds - watch.late


def test_a_thread_finishes_its_work(fresh: Fresh, group: execnet.Group, tmp_path: Path) -> None:
    leave(fresh(), THREAD, tmp_path / "written")
    group.terminate(timeout=60)
    assert (tmp_path / "written").read_text() == "thread "


def test_exit_handlers_come_after_the_threads(fresh: Fresh, group: execnet.Group, tmp_path: Path) -> None:
    leave(fresh(), AT_EXIT + THREAD, tmp_path / "written")
    group.terminate(timeout=60)
    assert (tmp_path / "written").read_text() == "thread atexit "


def test_queued_jobs_of_an_executor_are_done(worker: Any, fresh: Fresh, group: execnet.Group, tmp_path: Path) -> None:
    if worker.is_python2:
        pytest.skip("Python 2 has no executors")
    leave(fresh(), JOBS, tmp_path / "written")
    group.terminate(timeout=60)
    assert (tmp_path / "written").read_text() == "0 1 2 "


@pytest.mark.parametrize("kind", POOLS)
def test_an_open_pool_of_processes_ends_at_once_and_in_silence(
    worker: Any, fresh: Fresh, group: execnet.Group, tmp_path: Path, kind: str
) -> None:
    if worker.is_python2 and kind == "ProcessPoolExecutor":
        pytest.skip("Python 2 has no executors")
    gateway = fresh()
    stderr = "import os\nos.dup2(os.open(channel_path, os.O_WRONLY | os.O_CREAT), 2)\n"
    leave(gateway, stderr + POOLS[kind], tmp_path / "stderr")
    assert seconds_to_end(group, gateway) < 4  # well before what does not end by itself would be interrupted
    assert (tmp_path / "stderr").read_text() == ""


def test_a_thread_that_never_ends_goes_with_the_worker(fresh: Fresh, group: execnet.Group, tmp_path: Path) -> None:
    gateway = fresh()
    leave(gateway, FOR_EVER, tmp_path)
    with pidfd(gateway._rinfo().pid) as end:
        with Stopwatch() as watch:
            group.terminate(timeout=0.5)
        assert watch.seconds - watch.late < 1.5
        assert eventually(lambda: has_ended(end))


# Others run while it sleeps: the main thread comes to its end.
GREEN_THREAD = """
import threading, time
def work():
    time.sleep(0.1)
    write(channel_path, "thread ")
threading.Thread(target=work).start()
"""


def test_a_worker_that_gevent_has_patched_ends_by_itself(fresh: Fresh, group: execnet.Group, tmp_path: Path) -> None:
    gateway = fresh()
    code = "try:\n    from gevent import monkey\n    channel.send(1)\nexcept ImportError:\n    channel.send(0)"
    probe = gateway.remote_exec(code)
    if not probe.receive(timeout=60):
        pytest.skip("gevent: not installed there")
    probe.waitclose(60)  # the next one is to be on the main thread
    leave(gateway, f"from gevent import monkey\nmonkey.patch_all()\n{GREEN_THREAD}", tmp_path / "written")
    assert seconds_to_end(group, gateway) < 4
    assert (tmp_path / "written").read_text() == "thread "


def test_a_worker_that_gevent_has_patched_and_that_has_no_threads_ends_by_itself(
    fresh: Fresh, group: execnet.Group
) -> None:
    gateway = fresh()
    code = "try:\n    from gevent import monkey; monkey.patch_all()\nexcept ImportError: pass"
    gateway.remote_exec(code).waitclose(60)
    assert seconds_to_end(group, gateway) < 4


COORDINATOR = """
import sys
import execnet
group = execnet.Group()
*_, gateway = [group.makegateway(spec) for spec in sys.argv[2:]]
gateway.remote_exec(sys.argv[1]).waitclose()
print(gateway._rinfo().pid, flush=True)
gateway.exit()
sys.stdin.readline()
"""


def test_a_worker_that_waits_for_a_thread_ends_when_its_coordinator_is_killed(worker: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = f"{LEAVE}\nchannel_path = {str(pipe)!r}\n{TELL}{FOR_EVER}"
    with subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, code, *filter(None, [worker.proxy, worker.spec])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as coordinator:
        assert coordinator.stdout is not None
        with pidfd(int(coordinator.stdout.readline())) as end:
            assert pipe.read_text() == "waits"
            with Stopwatch() as watch:
                os.kill(coordinator.pid, signal.SIGKILL)
                assert select.select([end], [], [], 60)[0]
        assert watch.seconds - watch.late < 3  # it had five, and five more
