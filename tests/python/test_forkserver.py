"""Fork servers on this host: their start, their failures, their end."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import execnet
import interpreters
from belongings import children, ends_gone, eventually, has_ended, pidfd, stop
from lateness import Stopwatch
from preload import PURE, Preload, ask, end_with_their_coordinator, fork_server_of

# --- Specifications -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", ["", ",", "a,", ",a", "a,,b", "a b", "a-b", "1a", "a.", ".a", "a..b", "a.1", "a;b", "a/b"]
)
def test_what_is_no_list_of_modules_is_refused_before_anything_is_started(group: execnet.Group, names: str) -> None:
    before = children()
    with pytest.raises(ValueError, match=r"preload=numpy,xml\.dom"):
        group.makegateway(f"popen//preload={names}")
    assert children() == before


@pytest.mark.parametrize(
    "spec", ["vagrant_ssh=box", "socket=localhost:1", "ssh=host//via=other", "popen//isolate=pidns"]
)
def test_what_it_cannot_be_combined_with_is_refused(group: execnet.Group, spec: str) -> None:
    group.makegateway("popen//id=other")
    with pytest.raises(ValueError, match="preload is for popen without isolate="):
        group.makegateway(f"{spec}//preload")


def test_a_worker_of_a_fork_server_can_be_a_proxy(preload: Preload) -> None:
    preload.gateway("json", "//id=proxy")
    far = preload.group.makegateway("popen//via=proxy")
    assert ask(far, "1") == 1
    pid = far._rinfo().pid
    preload.group.terminate(timeout=5)
    assert ends_gone([pid])


@pytest.mark.parametrize("name", interpreters.NAMES)
def test_any_python_3_can_be_the_fork_server(group: execnet.Group, name: str) -> None:
    path = interpreters.find(name)
    if path is None:
        pytest.skip(f"{name}: not found")
    spec = f"popen//preload=json,random//python={shlex.quote(path)}"
    if name == "python2.7":
        with pytest.raises(execnet.HostNotFound, match=r"preload needs Python 3, and this is Python 2\.7"):
            group.makegateway(spec)
        return
    gateways = execnet.Group([spec] * 3)
    try:
        answers = gateways.remote_exec(
            "import os, sys; channel.send((os.getppid(), 'json' in sys.modules))"
        ).receive_each()
        assert len(set(answers)) == 1
        assert answers[0][1] is True
        channel = gateways[0].remote_exec("import os; os._exit(3)")
        with pytest.raises(execnet.GatewayGone, match="exit status 3"):
            channel.receive(timeout=20)
    finally:
        gateways.terminate(timeout=5)


# --- What goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "No module named 'bad'"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("1 / 0", r"bad.py.*\n.*1 / 0(.|\n)*ZeroDivisionError"),
        ("raise SystemExit('left')", "SystemExit: left"),
        ("def (:", "SyntaxError"),
        ("import os; os._exit(7)", "exit status 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
    ],
)
def test_a_module_that_cannot_be_imported_is_loud(anywhere: Preload, source: str | None, says: str) -> None:
    if source is not None:
        anywhere.module("bad", source)
    with pytest.raises(execnet.HostNotFound, match=says) as caught:
        anywhere.gateway("json,bad")
    if "exit" not in says and "killed" not in says:
        assert "the fork server cannot import bad, which preload= names" in str(caught.value)
    assert eventually(lambda: anywhere.processes() == set())


def test_all_that_wait_for_it_are_told(preload: Preload) -> None:
    preload.module("bad", "1 / 0")
    with pytest.raises(execnet.HostNotFound, match="ZeroDivisionError"):
        execnet.Group([f"{preload.spec}//preload=bad"] * 5)
    preload.module("bad", "")
    assert ask(preload.gateway("bad"), "'bad' in sys.modules") is True


def test_it_does_not_fork_while_threads_run_and_names_them(anywhere: Preload) -> None:
    anywhere.module(
        "threaded",
        """
        import _thread, threading, time
        threading.Thread(target=time.sleep, args=(1000,), name="my poller", daemon=True).start()
        begun = _thread.allocate_lock()
        begun.acquire()
        _thread.start_new_thread(lambda: (begun.release(), time.sleep(1000)), ())
        begun.acquire()
        """,
    )
    with pytest.raises(execnet.HostNotFound, match=r"threads run in it: 'my poller', 1 without a name;.*start"):
        anywhere.gateway("threaded")


def test_it_forks_beside_threads_of_libraries_also_where_warnings_are_errors(anywhere: Preload) -> None:
    """As those of a BLAS, which Python knows nothing of. Python 3.15 raises the warning when the child is there."""
    anywhere.module(
        "blas",
        """
        import ctypes
        library, thread = ctypes.CDLL(None), ctypes.c_ulong()
        assert library.pthread_create(ctypes.byref(thread), None, library.pause, None) == 0
        """,
    )
    spec = f"{anywhere.spec}//preload=blas//env:PYTHONWARNINGS=error"
    gateways = [anywhere.group.makegateway(spec) for _ in range(2)]
    assert len({fork_server_of(gateway) for gateway in gateways}) == 1


def test_when_the_fork_server_is_killed_all_that_wait_learn_why_and_the_next_is_a_new_one(anywhere: Preload) -> None:
    gateways = [anywhere.gateway("json") for _ in range(3)]
    pids = [gateway._rinfo().pid for gateway in gateways]
    channels = [gateway.remote_exec("channel.receive()") for gateway in gateways]
    server = fork_server_of(gateways[0])
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(pidfd(pid)) for pid in pids]
        os.kill(server, signal.SIGKILL)
        for channel in channels:
            with pytest.raises(execnet.GatewayGone, match="its fork server has ended: killed by SIGKILL"):
                channel.receive(timeout=20)
        assert all(has_ended(end) for end in ends)
    assert fork_server_of(anywhere.gateway("json")) != server


def test_when_the_fork_server_is_killed_while_it_imports_the_error_says_so(anywhere: Preload, tmp_path: Path) -> None:
    anywhere.module(
        "slow",
        f"""
        import os, time
        with open("{tmp_path}/pid.new", "w") as file: file.write(str(os.getpid()))
        os.rename("{tmp_path}/pid.new", "{tmp_path}/pid")
        time.sleep(1000)
        """,
    )

    def kill() -> None:
        assert eventually(lambda: (tmp_path / "pid").exists(), 20)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(execnet.HostNotFound, match="its fork server has ended: killed by SIGKILL"):
        anywhere.gateway("slow")
    killer.join()


def test_an_import_that_never_ends_can_be_interrupted(preload: Preload, tmp_path: Path) -> None:
    preload.module("slow", f"import time; open('{tmp_path}/begun', 'w'); time.sleep(1000)")
    main = threading.get_ident()

    def interrupt() -> None:
        assert eventually(lambda: (tmp_path / "begun").exists(), 20)
        signal.pthread_kill(main, signal.SIGINT)

    keep = preload.gateway("json")
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        preload.gateway("slow")
    interrupter.join()
    assert eventually(lambda: len(preload.processes()) == 1)
    assert ask(keep, "1") == 1


def test_ended_workers_are_collected(anywhere: Preload) -> None:
    keep = anywhere.gateway("json")
    server = fork_server_of(keep)
    for _ in range(3):
        gateway = anywhere.gateway("json")
        pid = gateway._rinfo().pid
        gateway.exit()
        gateway.join()
        assert eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists())
    kept = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    assert kept == [str(keep._rinfo().pid)]


# --- The end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT)]\nwhile True: pass",
        "int('9' * 1000000)" if sys.version_info < (3, 11) else "sys.set_int_max_str_digits(0); int('9' * 10000000)",
    ],
    ids=["stopped", "deaf", "in C"],
)
def test_terminate_stays_within_its_time(anywhere: Preload, state: str) -> None:
    gateway = anywhere.gateway("json")
    gateway.remote_exec("import os, signal, sys\nchannel.send(1)\n" + state).receive(timeout=20)
    anywhere.gateway("json")
    pids = [gateway._rinfo().pid for gateway in anywhere.group]
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(pidfd(pid)) for pid in pids]
        with Stopwatch() as watch:
            anywhere.group.terminate(timeout=1.0)
        assert watch.seconds < 1.5 + watch.late
        assert eventually(lambda: all(has_ended(end) for end in ends))


def test_terminate_stays_within_its_time_when_the_fork_server_is_stopped(anywhere: Preload) -> None:
    gateway = anywhere.gateway("json")
    stop(fork_server_of(gateway))
    with Stopwatch() as watch:
        anywhere.group.terminate(timeout=1.0)
    assert watch.seconds < 1.2 + watch.late
    assert eventually(lambda: anywhere.processes() == set())


def test_what_a_worker_has_started_is_killed_with_it(anywhere: Preload) -> None:
    code = """
    import os, signal, subprocess
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel.send(subprocess.Popen(["sleep", "1000"]).pid)
    while True: pass
    """
    pid = anywhere.gateway("json").remote_exec(code).receive(timeout=20)
    with pidfd(pid) as end:
        anywhere.group.terminate(timeout=0.2)
        assert eventually(lambda: has_ended(end))


def test_what_a_worker_leaves_behind_ends_with_the_fork_server(anywhere: Preload) -> None:
    code = """
    import subprocess
    shell = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"
    channel.send(int(subprocess.check_output(["sh", "-c", shell])))
    """
    gateway = anywhere.gateway("json")
    with pidfd(gateway.remote_exec(code).receive(timeout=20)) as end:
        gateway.exit()
        gateway.join(timeout=20)
        assert not has_ended(end)
        anywhere.group.terminate(timeout=5)
        assert has_ended(end)


def test_the_fork_server_ends_with_the_group_and_can_be_started_again(preload: Preload) -> None:
    for _ in range(2):
        with pidfd(fork_server_of(preload.gateway("json"))) as end:
            preload.group.terminate(timeout=5)
            assert has_ended(end)
        assert preload.processes() == set()


def test_a_group_that_has_been_empty_starts_another(preload: Preload) -> None:
    gateway = preload.fresh()
    gateway.exit()
    gateway.join(timeout=20)
    assert eventually(lambda: preload.processes() == set())
    with pytest.raises(execnet.HostNotFound):
        preload.group.makegateway("popen//python=/no/such/python")
    assert ask(preload.gateway("json"), "1") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_coordinator_is_killed(preload: Preload, number: int) -> None:
    assert end_with_their_coordinator([f"{preload.spec}//preload=json"] * 2, number)


# --- As everything else ---------------------------------------------------------------------------


def test_threads_may_make_them_at_the_same_time_in_one_group(anywhere: Preload) -> None:
    servers: list[int] = []

    def make() -> None:
        for _ in range(3):
            servers.append(fork_server_of(anywhere.gateway("json")))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(servers) == 12
    assert len(set(servers)) == 1


def test_a_hundred_at_once(preload: Preload, many_descriptors: None) -> None:
    group = execnet.Group([f"{preload.spec}//preload=json"] * 100)
    pids = group.remote_exec("import os; channel.send(os.getpid())").receive_each()
    assert len(set(pids)) == 100
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(pidfd(pid)) for pid in pids]
        group.terminate(timeout=10)
        assert all(has_ended(end) for end in ends)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_copy_of_the_coordinator_leaves_them_alone(preload: Preload) -> None:
    gateway = preload.gateway("json")
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            del gateway
            preload.group.terminate(timeout=5)
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ask(gateway, "1") == 1
    assert ask(preload.gateway("json"), "2") == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_copy_ends_whatever_threads_that_it_does_not_have_have_held(preload: Preload) -> None:
    """On one processor, a woken thread runs and forks before the thread that woke it releases its mutex."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        for _ in range(5):
            gateway = preload.gateway("json")
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20)
                del gateway
                preload.group.terminate(timeout=5)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            gateway.exit()
    finally:
        os.sched_setaffinity(0, allowed)


GREEN = """
import sys, time, execnet, gevent
beats = []
def beat():
    while True:
        beats.append(1)
        gevent.sleep(0.001)
gevent.spawn(beat)
group = execnet.Group(execmodel="gevent")
jobs = [gevent.spawn(group.makegateway, sys.argv[1] + "//preload=slow//execmodel=thread") for _ in range(3)]
gevent.joinall(jobs, raise_error=True)
during = len(beats)
assert group.remote_exec("channel.send(1)").receive_each() == [1, 1, 1]
group.terminate(timeout=5)
print(during > 20)
"""


def test_a_greenlet_that_waits_for_one_lets_others_run(preload: Preload) -> None:
    pytest.importorskip("gevent")
    preload.module("slow", "import time; time.sleep(0.3)")
    done = subprocess.run(
        [sys.executable, "-c", GREEN, preload.spec], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True\n", done.stderr


# --- Without pidfds -------------------------------------------------------------------------------

WITHOUT_PIDFDS = """
import os, sys, time, execnet
try:
    os.pidfd_open(os.getpid())
    sys.exit("there are pidfds")
except OSError:
    pass
proxies, spec = sys.argv[1:-1], sys.argv[-1]
group = execnet.Group([*proxies, *[spec] * 40])
workers = list(group)[len(proxies):]
pids = [worker.remote_exec("import os; channel.send(os.getpid())").receive(timeout=20) for worker in workers]

def why_gone(worker, code):
    try:
        worker.remote_exec(code).receive(timeout=20)
    except execnet.GatewayGone as error:
        return str(error)

assert "exit status 7" in why_gone(workers[0], "import os; os._exit(7)")
assert "killed by SIGKILL" in why_gone(workers[1], "import os; os.kill(os.getpid(), 9)")
workers[2].exit()
workers[2].join(timeout=20)
workers[3].remote_exec("import os, signal; channel.send(1); os.kill(os.getpid(), signal.SIGSTOP)").receive(timeout=20)
began = time.monotonic()
group.terminate(timeout=2)
print("all is well in", time.monotonic() - began)
print(*[pid for pid in pids if os.path.exists(f"/proc/{pid}")])
"""


@pytest.mark.parametrize(
    "specs",
    [["popen//preload=json"], [f"{PURE}//preload=json"], ["popen//id=proxy", "popen//via=proxy//preload=json"]],
    ids=["native", "pure", "via native"],
)
def test_without_pidfds_the_fork_server_sees_to_its_workers(specs: list[str]) -> None:
    program = Path(__file__).parents[1] / "support" / "without_pidfds.py"
    command = [sys.executable, program, "-c", WITHOUT_PIDFDS, *specs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    well, left = done.stdout.splitlines()
    assert well.startswith("all is well in "), done.stdout
    assert float(well.split()[-1]) < 3
    assert left == ""


def test_behind_a_pure_proxy_the_error_says_that_it_needs_pidfds() -> None:
    program = Path(__file__).parents[1] / "support" / "without_pidfds.py"
    source = """
import sys, execnet
group = execnet.Group([sys.argv[1] + "//id=proxy"])
try:
    group.makegateway("popen//via=proxy//preload=json")
except execnet.HostNotFound as error:
    print(error)
group.terminate(timeout=5)
"""
    done = subprocess.run([sys.executable, program, "-c", source, PURE], capture_output=True, text=True, timeout=60)
    assert "preload behind a pure proxy needs pidfds" in done.stdout, done.stderr
