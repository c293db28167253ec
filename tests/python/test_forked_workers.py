"""How forked workers differ from fresh ones: a test for each line of the tables in docs/forkserver.md."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

import execnet
from captured import Captured
from preload import Preload, ask, ask_both, fork_server_of

# --- What is as in a fresh worker -----------------------------------------------------------------


def test_arguments_are_those_of_a_fresh_worker(anywhere: Preload) -> None:
    anywhere.module("meddler", "import sys; sys.argv[:] = ['other', 'words']")
    fresh, forked = ask_both(anywhere, "meddler", "(sys.argv, getattr(sys, 'orig_argv', [])[:1])")
    assert forked == fresh


def test_the_path_begins_like_that_of_a_fresh_worker_and_keeps_what_modules_have_added(preload: Preload) -> None:
    preload.module("meddler", "import sys; sys.path.append('/added')")
    fresh, forked = ask_both(preload, "meddler", "sys.path")
    assert forked[0] == ""
    assert [entry for entry in forked if entry != "/added"] == fresh
    assert "/added" in forked


def test_the_environment_is_that_of_a_fresh_worker(preload: Preload) -> None:
    preload.module("meddler", "import os; os.environ['ADDED'] = '1'; del os.environ['PATH']")
    fresh, forked = ask_both(preload, "meddler", "dict(os.environ)")
    assert forked == fresh
    assert ask(preload.gateway("meddler", "//env:MORE=2"), "(os.environ['MORE'], os.environ.get('ADDED'))") == (
        "2",
        None,
    )


def test_the_directory_is_that_of_a_fresh_worker(preload: Preload, tmp_path: Path) -> None:
    preload.module("meddler", "import os; os.chdir('/')")
    fresh, forked = ask_both(preload, "meddler", "os.getcwd()")
    assert forked == fresh == os.getcwd()
    assert ask(preload.gateway("meddler", f"//chdir={tmp_path}/new"), "os.getcwd()") == f"{tmp_path}/new"


def test_a_coordinator_that_has_changed_directory_gets_workers_there(
    preload: Preload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = preload.gateway("json")
    monkeypatch.chdir(tmp_path)
    assert ask(preload.gateway("json"), "os.getcwd()") == str(tmp_path)
    assert ask(before, "os.getcwd()") != str(tmp_path)


def test_the_file_mode_mask_is_that_of_a_fresh_worker(preload: Preload) -> None:
    preload.module("meddler", "import os; os.umask(0)")
    for mask in (0o027, 0o007):
        before = os.umask(mask)
        try:
            assert ask(preload.gateway("meddler"), "os.umask(0)") == mask
        finally:
            os.umask(before)


SIGNALS = """
handlers = {n: repr(signal.getsignal(n)).partition(" at ")[0] for n in range(1, signal.NSIG)}
glibc = 0b11 << 31  # its own signals, which subprocess leaves ignored, or not
with open("/proc/self/status") as status:
    lines = [line.split() for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt", "SigPnd"))]
    bits = [(name, int(mask, 16) & ~glibc) for name, mask in lines]
state = [handlers, bits, signal.getitimer(signal.ITIMER_REAL), signal.set_wakeup_fd(-1)]
"""


def test_signals_are_those_of_a_fresh_worker(anywhere: Preload) -> None:
    anywhere.module(
        "meddler",
        """
        import os, signal
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        signal.alarm(1000)
        """,
    )
    fresh, forked = ask_both(anywhere, "meddler", "state", SIGNALS)
    assert forked == fresh


def test_ctrl_c_does_not_end_the_fork_server_and_interrupts_code(anywhere: Preload) -> None:
    gateway = anywhere.gateway("json")
    os.kill(fork_server_of(gateway), signal.SIGINT)
    # CPython handles a signal that comes right before a sleep only after the sleep: it is a short one.
    code = "import os, time; channel.send(os.getpid())\nwhile True: time.sleep(0.01)"
    channel = anywhere.gateway("json").remote_exec(code)
    worker = channel.receive(timeout=20)
    os.kill(worker, signal.SIGINT)
    with pytest.raises(execnet.RemoteError, match="KeyboardInterrupt"):
        channel.waitclose(timeout=20)


def test_random_numbers_differ(anywhere: Preload) -> None:
    anywhere.module("seeded", "import random; random.seed(1)")
    numbers = [ask(anywhere.gateway("seeded"), "random.random()", "import random") for _ in range(3)]
    assert len(set(numbers)) == 3


def test_random_numbers_of_numpy_differ(preload: Preload) -> None:
    preload.module("numpy.__init__", "from . import random")
    preload.module("numpy.random", "def seed(): global seeds; seeds += 1\nseeds = 0")
    assert ask(preload.gateway("numpy"), "numpy.random.seeds", "import numpy") == 1


def test_no_descriptor_of_the_fork_server_is_open(preload: Preload) -> None:
    setup = "links = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')]"
    kinds = "sorted(os.readlink(link).partition(':')[0] for link in links if os.path.exists(link))"
    # Without those that a worker makes for itself, such as the one of its first wait. The fork server has none.
    fresh, forked = ([kind for kind in all if kind != "anon_inode"] for all in ask_both(preload, "json", kinds, setup))
    assert forked == fresh


def test_standard_descriptors_are_those_of_the_coordinator_at_that_time(
    preload: Preload, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    preload.gateway("json")
    saved = os.dup(1)
    with open(tmp_path / "out", "w") as out:
        os.dup2(out.fileno(), 1)
        try:
            gateway = preload.gateway("json")
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    channel = gateway.remote_exec(
        "import sys; print('out'); print('err', file=sys.stderr); channel.send(sys.stdin.read())"
    )
    assert channel.receive(timeout=20) == ""
    channel.waitclose(timeout=20)
    assert (tmp_path / "out").read_text() == "out\n"
    assert Captured(capfd).shows(lambda all: all.err == "err\n")


def test_what_modules_print_comes_once(preload: Preload, capfd: pytest.CaptureFixture[str]) -> None:
    preload.module("talker", "import sys; sys.stdout = open(1, 'w', closefd=False); sys.stdout.write('imported\\n')")
    for _ in range(2):
        preload.gateway("talker").remote_exec("pass").waitclose(timeout=20)
    preload.group.terminate(timeout=5)
    assert capfd.readouterr().out == "imported\n"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("os._exit(3)", "exit status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "killed by SIGTERM"),
        ("os.write(2, b'last words\\n'); os.abort()", "killed by SIGABRT"),
    ],
)
def test_exit_status_and_signal_are_known(anywhere: Preload, code: str, how: str) -> None:
    channel = anywhere.gateway("json").remote_exec(f"import os, signal; {code}")
    with pytest.raises(execnet.GatewayGone, match=f"is gone: {how}"):
        channel.receive(timeout=20)


def test_what_a_worker_that_cannot_start_says_is_in_the_error(anywhere: Preload, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(execnet.HostNotFound, match=r"chdir=.*NotADirectoryError"):
        anywhere.gateway("json", f"//chdir={tmp_path}/file/x")


def test_flags_are_those_of_a_fresh_worker(preload: Preload) -> None:
    flags = "(list(sys.flags), sys.dont_write_bytecode, getattr(sys, '_xoptions', {}), sys.warnoptions)"
    for more in ("", "//dont_write_bytecode"):
        assert ask(preload.gateway("json", more), flags) == ask(preload.fresh(more), flags)


def test_the_main_thread_is_main_and_alone(anywhere: Preload) -> None:
    setup = "import threading; main = threading.main_thread()"
    state = "[threading.current_thread() is main, main.ident == threading.get_ident(), len(threading.enumerate())]"
    fresh, forked = ask_both(anywhere, "json", state, setup)
    assert forked == fresh
    assert forked[:2] == [True, True]


def test_the_process_knows_its_own_number(anywhere: Preload) -> None:
    gateway = anywhere.gateway("multiprocessing.pool,logging,tempfile")
    expression = (
        "(os.getpid(), multiprocessing.current_process().pid, logging.LogRecord('', 0, '', 0, '', (), None).process)"
    )
    pids = ask(gateway, expression, "import logging, multiprocessing")
    assert set(pids) == {gateway._rinfo().pid}


def test_multiprocessing_works_and_has_a_secret_of_its_own(anywhere: Preload) -> None:
    gateways = [anywhere.gateway("multiprocessing.pool") for _ in range(2)]
    setup = "import multiprocessing"
    keys = {ask(gateway, "bytes(multiprocessing.current_process().authkey)", setup) for gateway in gateways}
    assert len(keys) == 2
    setup += "\nwith multiprocessing.get_context('fork').Pool(2) as pool: result = pool.map(abs, [-1, -2])"
    assert ask(gateways[0], "result", setup) == [1, 2]


def test_profilers_of_the_interpreters_start_see_workers_and_write_a_file_for_each(
    anywhere: Preload, tmp_path: Path
) -> None:
    # Like the .pth file of coverage. tests/clients/test_coverage.py tests coverage itself.
    anywhere.module(
        "sitecustomize",
        f"""
        import atexit, os, sys
        seen = set()
        sys.setprofile(lambda frame, event, _: seen.add(frame.f_code.co_name) if event == "call" else None)
        def save():
            sys.setprofile(None)
            with open(f"{tmp_path}/profile.{{os.getpid()}}", "w") as file:
                file.write(" ".join(sorted(seen)))
        atexit.register(save)
        """,
    )
    anywhere.module("library", "def at_import(): pass\nat_import()")
    gateways = [anywhere.gateway("library") for _ in range(2)]
    pids = [ask(gateway, "os.getpid()", f"def f{n}(): pass\nf{n}()") for n, gateway in enumerate(gateways)]
    anywhere.group.terminate(timeout=5)
    assert {path.name for path in tmp_path.glob("profile.*")} == {f"profile.{pid}" for pid in pids}
    for number, pid in enumerate(pids):
        names = (tmp_path / f"profile.{pid}").read_text().split()
        assert {"at_import", f"f{number}"} <= set(names)
        assert f"f{1 - number}" not in names


# --- What differs ---------------------------------------------------------------------------------


def test_the_modules_are_there_and_were_imported_once(anywhere: Preload, tmp_path: Path) -> None:
    anywhere.module("package.slow", f"open('{tmp_path}/imports', 'a').write('x')")
    for _ in range(3):
        assert ask(anywhere.gateway("package.slow"), "'package.slow' in sys.modules") is True
    assert (tmp_path / "imports").read_text() == "x"


def test_the_parent_is_the_fork_server_which_all_share(anywhere: Preload) -> None:
    gateways = [anywhere.gateway("json") for _ in range(3)]
    assert len({fork_server_of(gateway) for gateway in gateways}) == 1
    assert fork_server_of(anywhere.gateway("json,random")) != fork_server_of(gateways[0])


def test_hashes_are_the_same_in_all(preload: Preload) -> None:
    assert len({ask(preload.gateway("json"), "hash('text')") for _ in range(3)}) == 1


def test_descriptors_that_modules_have_opened_are_shared(preload: Preload, tmp_path: Path) -> None:
    preload.module("opener", f"import os; fd = os.open('{tmp_path}/log', os.O_CREAT | os.O_WRONLY)")
    for _ in range(2):
        ask(preload.gateway("opener"), "os.write(opener.fd, b'line ')", "import opener")
    assert (tmp_path / "log").read_text() == "line line "


def test_exit_handlers_of_modules_run_in_each_worker_and_not_in_the_fork_server(
    anywhere: Preload, tmp_path: Path
) -> None:
    anywhere.module(
        "leaver",
        f"""
        import atexit, os
        atexit.register(lambda: open("{tmp_path}/handlers", "a").write(f"{{os.getpid()}} "))
        """,
    )
    gateways = [anywhere.gateway("leaver") for _ in range(2)]
    pids = [gateway._rinfo().pid for gateway in gateways]
    ask(
        gateways[0],
        "None",
        f"import atexit; atexit.register(lambda: open('{tmp_path}/handlers', 'a').write('own '))",
    )
    gateways[0].exit()
    gateways[0].join()
    assert (tmp_path / "handlers").read_text() == f"own {pids[0]} "
    anywhere.group.terminate(timeout=5)
    assert (tmp_path / "handlers").read_text() == f"own {pids[0]} {pids[1]} "


def test_objects_that_are_alive_at_the_end_are_not_destroyed(preload: Preload, tmp_path: Path) -> None:
    code = f"""
        import atexit, builtins
        class Kept:
            def __del__(self, file=open("{tmp_path}/ends", "a", 1)): file.write("destroyed ")
        builtins.kept = Kept()
        atexit.register(lambda file=open("{tmp_path}/ends", "a", 1): file.write("handler "))
        """
    preload.gateway("json").remote_exec(code).waitclose(timeout=20)
    preload.group.terminate(timeout=5)
    assert (tmp_path / "ends").read_text() == "handler "


def test_two_tasks_that_come_at_once_are_the_first(preload: Preload) -> None:
    for _ in range(4):
        group = execnet.Group([f"{preload.spec}//preload=json"] * 50)
        tasks = [
            (gateway.remote_exec("channel.send(channel.receive())"), gateway.remote_exec("channel.send(1)"))
            for gateway in group
        ]
        for waiting, other in tasks:
            assert other.receive(timeout=20) == 1
            waiting.send(2)
            assert waiting.receive(timeout=20) == 2
        group.terminate(timeout=5)


@pytest.mark.parametrize("preload", ["native"], indirect=True)  # the pure one leaves its threads
def test_the_thread_of_callbacks_has_ended_before(preload: Preload, tmp_path: Path) -> None:
    code = f"""
        import threading
        class Left:
            def __del__(self, file=open("{tmp_path}/ends", "a", 1)): print("let go of", file=file)
        local = threading.local()
        def callback(item):
            local.left = Left()
            channel.send("left")
        other = channel.gateway.newchannel()
        other.setcallback(callback)
        channel.send(other)
        channel.receive()
        """
    channel = preload.gateway("json").remote_exec(code)
    channel.receive(timeout=20).send(1)
    assert channel.receive(timeout=20) == "left"
    channel.send("over")
    channel.waitclose(timeout=20)
    preload.group.terminate(timeout=5)
    assert (tmp_path / "ends").read_text() == "let go of\n"


def test_collection_leaves_out_what_was_imported(preload: Preload) -> None:
    settings = "(gc.isenabled(), gc.get_threshold())"
    fresh, forked = ask_both(preload, "json", settings, "import gc")
    assert forked == fresh
    assert ask(preload.gateway("json"), "gc.get_freeze_count()", "import gc") > 1000


def test_limits_and_niceness_are_of_the_time_when_the_fork_server_started(preload: Preload) -> None:
    limit = "resource.getrlimit(resource.RLIMIT_CORE)"
    preload.gateway("json")
    before = resource.getrlimit(resource.RLIMIT_CORE)
    changed = (before[0] - 1 if before[0] > 0 else 0, before[1])
    resource.setrlimit(resource.RLIMIT_CORE, changed)
    try:
        assert ask(preload.gateway("json"), limit, "import resource") == before
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert ask(preload.gateway("json", "//nice=3"), "os.nice(0)") == os.nice(0) + 3
    assert ask(preload.gateway("json"), "os.nice(0)") == os.nice(0)


def test_what_modules_change_in_the_interpreter_stays(preload: Preload) -> None:
    preload.module("changer", "import faulthandler, sys; faulthandler.enable(); sys.setrecursionlimit(4321)")
    changed = "(faulthandler.is_enabled(), sys.getrecursionlimit())"
    assert ask(preload.gateway("changer"), changed, "import faulthandler") == (True, 4321)


def test_code_of_modules_that_waits_for_a_fork_is_told(preload: Preload) -> None:
    preload.module(
        "waiter", "import os; pids = []; os.register_at_fork(after_in_child=lambda: pids.append(os.getpid()))"
    )
    gateway = preload.gateway("waiter")
    assert ask(gateway, "waiter.pids", "import waiter") == [gateway._rinfo().pid]


def test_each_worker_has_what_is_held_over_a_fork_and_lets_go_of_it_once(preload: Preload) -> None:
    hooks = "before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release"
    preload.module("holder", f"import os, threading; lock = threading.Lock(); os.register_at_fork({hooks})")
    for _ in range(2):
        assert ask(preload.gateway("holder"), "holder.lock.locked()", "import holder") is False


def test_what_a_module_holds_over_a_fork_is_let_go_of_when_nothing_is_to_be_forked(preload: Preload) -> None:
    hooks = "before=lock.acquire, after_in_parent=lock.release"
    preload.module("shared", f"import multiprocessing, os; lock = multiprocessing.Lock(); os.register_at_fork({hooks})")
    taken = "shared.lock.acquire(timeout=20) and shared.lock.release() is None"
    gateways = [preload.gateway("shared") for _ in range(2)]
    assert [ask(gateway, taken, "import shared") for gateway in gateways] == [True, True]
