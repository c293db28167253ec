"""Workers that a fork server forks: a test for each line of the tables in docs/forkserver.md, and what goes wrong."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import execnet
import interpreters
from belongings import children, ends_gone, eventually, has_ended, our_processes, parent_of, pidfd, sleeps, stop
from sshd import PrivateSshd

PURE = f"popen//python={shlex.quote(sys.executable)}"


class Preload:
    """Makes gateways, fresh ones and such as are forked from an interpreter that has imported modules of the test."""

    def __init__(self, group: execnet.Group, directory: Path, kind: str) -> None:
        self.group, self.directory = group, directory
        self._others = set(children())  # servers of other tests
        path = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])
        self._spec = f"{kind}//env:PYTHONPATH={path}"

    def module(self, name: str, source: str) -> None:
        path = self.directory.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    def gateway(self, names: str, more: str = "") -> execnet.Gateway:
        return self.group.makegateway(f"{self._spec}//preload={names}{more}")

    def fresh(self, more: str = "") -> execnet.Gateway:
        return self.group.makegateway(self._spec + more)

    def processes(self) -> set[int]:
        """Those that the test has started, but for what they have."""
        return set(children()) - self._others


@pytest.fixture(params=["popen", PURE], ids=["native", "pure"])
def preload(request: pytest.FixtureRequest, group: execnet.Group, tmp_path: Path) -> Preload:
    return Preload(group, tmp_path, request.param)


def elsewhere(kind: str, group: execnet.Group, directory: Path) -> Preload:
    if kind == "ssh":
        return Preload(group, directory, "ssh=localhost")
    group.makegateway(f"{PURE if kind == 'via pure' else 'popen'}//id=proxy")
    return Preload(group, directory, "popen//via=proxy")


@pytest.fixture(params=["via native", "via pure", "ssh"])
def far(request: pytest.FixtureRequest, sshd: PrivateSshd, group: execnet.Group, tmp_path: Path) -> Preload:
    """One whose fork server a proxy has started."""
    return elsewhere(request.param, group, tmp_path)


KINDS = ["native", "pure", "via native", "via pure", "ssh"]


@pytest.fixture(params=["popen", PURE, *KINDS[2:]], ids=KINDS)
def anywhere(request: pytest.FixtureRequest, sshd: PrivateSshd, group: execnet.Group, tmp_path: Path) -> Preload:
    if request.param.startswith("popen"):
        return Preload(group, tmp_path, request.param)
    return elsewhere(request.param, group, tmp_path)


def ask(gateway: execnet.Gateway, expression: str, setup: str = "") -> Any:
    return gateway.remote_exec(f"import os, signal, sys\n{setup}\nchannel.send({expression})").receive(timeout=30)


def ask_both(preload: Preload, names: str, expression: str, setup: str = "") -> tuple[Any, Any]:
    """What a fresh worker says, and what one that has those modules says."""
    return ask(preload.fresh(), expression, setup), ask(preload.gateway(names), expression, setup)


def fork_server_of(gateway: execnet.Gateway) -> int:
    return ask(gateway, "os.getppid()")


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
with open("/proc/self/status") as status:
    bits = [line for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt", "SigPnd"))]
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
    channel = anywhere.gateway("json").remote_exec("import os, time; channel.send(os.getpid()); time.sleep(1000)")
    worker = channel.receive(timeout=20)
    # Of a signal that comes right before the sleep, CPython hears after it.
    assert eventually(lambda: sleeps(worker), 20)
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
    # Not those that a worker makes for itself, of which one comes with its first wait. The fork server has none.
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
    assert capfd.readouterr().err == "err\n"


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
    # As coverage does, whose .pth file does this; tests/clients/test_coverage.py has it do so itself.
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


# --- Specifications -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", ["", ",", "a,", ",a", "a,,b", "a b", "a-b", "1a", "a.", ".a", "a..b", "a.1", "a;b", "a/b"]
)
def test_what_is_no_list_of_modules_is_refused_before_anything_is_started(group: execnet.Group, names: str) -> None:
    before = our_processes()
    with pytest.raises(ValueError, match=r"preload=numpy,xml\.dom"):
        group.makegateway(f"popen//preload={names}")
    assert our_processes() == before


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
    assert anywhere.processes() == set()


def test_all_that_wait_for_it_are_told(preload: Preload) -> None:
    preload.module("bad", "1 / 0")
    with pytest.raises(execnet.HostNotFound, match="ZeroDivisionError"):
        execnet.Group([f"{preload._spec}//preload=bad"] * 5)
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
        before = time.monotonic()
        anywhere.group.terminate(timeout=1.0)
        assert time.monotonic() - before < 1.5
        assert all(has_ended(end) for end in ends)


def test_terminate_stays_within_its_time_when_the_fork_server_is_stopped(anywhere: Preload) -> None:
    gateway = anywhere.gateway("json")
    stop(fork_server_of(gateway))
    before = time.monotonic()
    anywhere.group.terminate(timeout=1.0)
    assert time.monotonic() - before < 1.2
    assert anywhere.processes() == set()


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


COORDINATOR = """
import sys, execnet
group = execnet.Group([sys.argv[1] + "//preload=json"] * 2)
channels = group.remote_exec('''
import os, signal
channel.send((os.getpid(), os.getppid()))
channel.receive()
''')
print(*[pid for pair in channels.receive_each() for pid in pair], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_coordinator_is_killed(preload: Preload, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, preload._spec], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as coordinator:
        assert coordinator.stdout is not None
        pids = {int(word) for word in coordinator.stdout.readline().split()}
        assert len(pids) == 3
        with contextlib.ExitStack() as stack:
            ends = [stack.enter_context(pidfd(pid)) for pid in pids]
            coordinator.send_signal(number)
            assert eventually(lambda: all(has_ended(end) for end in ends))


# --- On other hosts -------------------------------------------------------------------------------


def connections(sshd: PrivateSshd) -> int:
    return sshd.log.count("Accepted publickey")


def test_members_of_one_host_share_a_connection_that_is_no_member(sshd: PrivateSshd, group: execnet.Group) -> None:
    before = connections(sshd)
    specs = ["ssh=localhost//preload=json", "ssh=localhost//preload=json//id=named", "ssh=localhost//preload=random"]
    group = execnet.Group(specs)
    try:
        assert [gateway.id for gateway in group] == ["gw0", "named", "gw1"]
        assert {repr(gateway).partition(" ")[0] for gateway in group} == {"<SshGateway"}
        assert {gateway.remoteaddress for gateway in group} == {"localhost"}
        parents = [fork_server_of(gateway) for gateway in group]
        assert parents[0] == parents[1] != parents[2]
        assert connections(sshd) == before + 1
        group.makegateway("ssh=localhost//preload//chdir=other//env:A=1")
        assert ask(group["gw2"], "(os.path.basename(os.getcwd()), os.environ['A'])") == ("other", "1")
        assert connections(sshd) == before + 1
        group.makegateway(f"ssh=localhost//preload//python={shlex.quote(sys.executable)}")
        assert connections(sshd) == before + 2
    finally:
        before_end = time.monotonic()
        group.terminate(timeout=5)
        assert time.monotonic() - before_end < 4
    assert ends_gone(sshd.session_pids())


def test_python_over_ssh_is_an_expression_of_the_shell(sshd: PrivateSshd, group: execnet.Group) -> None:
    (sshd.home / "the python").symlink_to(sys.executable)
    gateway = group.makegateway("ssh=localhost//preload//python=~/'the python' -X execnet=$HOME")
    assert ask(gateway, "sys._xoptions") == {"execnet": str(sshd.home)}
    (sshd.home / "the python").unlink()


@pytest.mark.parametrize("name", [name for name in interpreters.NAMES if name != "python2.7"])
def test_any_python_3_can_be_the_proxy(group: execnet.Group, name: str) -> None:
    path = interpreters.find(name)
    if path is None:
        pytest.skip(f"{name}: not found")
    group.makegateway(f"popen//id=proxy//python={shlex.quote(path)}")
    gateways = [group.makegateway("popen//via=proxy//preload=json") for _ in range(2)]
    assert len({fork_server_of(gateway) for gateway in gateways}) == 1
    with pytest.raises(execnet.GatewayGone, match="exit status 3"):
        gateways[0].remote_exec("import os; os._exit(3)").receive(timeout=20)


def test_environment_and_directory_are_what_the_specification_says(far: Preload, tmp_path: Path) -> None:
    plain = far.gateway("json")
    other = far.gateway("json", f"//env:MORE=a b//chdir={tmp_path}/new")
    assert ask(other, "(os.environ['MORE'], os.getcwd())") == ("a b", f"{tmp_path}/new")
    assert ask(plain, "'MORE' in os.environ") is False
    assert fork_server_of(plain) != fork_server_of(other)
    assert fork_server_of(plain) == fork_server_of(far.gateway("json", f"//chdir={tmp_path}/new"))


@pytest.mark.parametrize("kind", KINDS[2:])
def test_what_workers_write_to_stderr_is_passed_on(
    kind: str, sshd: PrivateSshd, group: execnet.Group, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = elsewhere(kind, group, tmp_path).gateway("json")  # now, when capfd has taken the coordinator's stderr
    gateway.remote_exec("import os; os.write(2, b'to stderr\\n')").waitclose(timeout=20)
    said: list[str] = []

    def has_come() -> bool:
        said.append(capfd.readouterr().err)
        return "to stderr" in "".join(said)

    assert eventually(has_come)


def test_many_at_once_go_through_one_proxy(far: Preload) -> None:
    extra = ["popen//id=proxy"] if "via" in far._spec else []
    group = execnet.Group([*extra, *[f"{far._spec}//preload=json"] * 30])
    try:
        parents = group.remote_exec("import os; channel.send(os.getppid())").receive_each()
        assert len(set(parents[len(extra) :])) == 1
        far.group.terminate(timeout=5)
    finally:
        group.terminate(timeout=5)


@pytest.mark.parametrize("kind", ["proxy", "ssh", "interpreter"])
def test_python_2_says_that_it_is_of_no_use(kind: str, sshd: PrivateSshd, group: execnet.Group) -> None:
    python = interpreters.find("python2.7")
    if python is None:
        pytest.skip("python2.7: not found")
    spec = f"ssh=localhost//python={python}"
    if kind != "ssh":
        group.makegateway("ssh=localhost//id=proxy" + (f"//python={python}" if kind == "proxy" else ""))
        spec = "popen//via=proxy" + ("" if kind == "proxy" else f"//python={python}")
    with pytest.raises(execnet.HostNotFound, match=r"preload needs Python 3, and this is Python 2\.7"):
        group.makegateway(f"{spec}//preload")


@pytest.mark.parametrize("host", ["nopython", "refused"])
def test_a_host_that_cannot_be_used_is_named(host: str, sshd: PrivateSshd, group: execnet.Group) -> None:
    says = "no python3 or python on this host" if host == "nopython" else "Permission denied"
    with pytest.raises(execnet.HostNotFound, match=rf"ssh={host}//preload(.|\n)*{says}"):
        group.makegateway(f"ssh={host}//preload")
    assert len(group) == 0


def test_an_interpreter_that_is_not_there_is_named(far: Preload) -> None:
    with pytest.raises(execnet.HostNotFound, match=r"/no/such/python"):
        far.gateway("json", "//python=/no/such/python")


def test_an_interpreter_in_another_pid_namespace_is_refused_far_away_too(far: Preload) -> None:
    python = f"unshare --user --map-root-user --pid --fork {sys.executable}"
    if "via" not in far._spec or subprocess.run([*shlex.split(python), "-c", ""], check=False).returncode != 0:
        pytest.skip("no new namespaces here, or the interpreter is the connection's")
    with pytest.raises(execnet.HostNotFound, match="another PID namespace"):
        far.gateway("json", f"//python={python}")


def test_an_import_that_never_ends_far_away_can_be_interrupted(far: Preload, tmp_path: Path) -> None:
    far.module("slow", f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(1000)")
    keep = far.gateway("json")
    main = threading.get_ident()

    def slow() -> int:
        return int((tmp_path / "pid").read_text())

    def interrupt() -> None:
        assert eventually(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()), 20)
        signal.pthread_kill(main, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        far.gateway("slow")
    interrupter.join()
    assert ends_gone([slow()])
    assert ask(keep, "1") == 1


def proxy_of(gateway: execnet.Gateway, group: execnet.Group) -> int:
    """The process of the worker that has started the fork server."""
    return group["proxy"]._rinfo().pid if "proxy" in group else parent_of(fork_server_of(gateway))


def test_when_the_proxy_is_killed_so_is_all_that_it_has_started(far: Preload) -> None:
    gateways = [far.gateway("json") for _ in range(2)]
    pids = [gateway._rinfo().pid for gateway in gateways]
    channels = [gateway.remote_exec("channel.receive()") for gateway in gateways]
    server, proxy = fork_server_of(gateways[0]), proxy_of(gateways[0], far.group)
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(pidfd(pid)) for pid in (*pids, server)]
        os.kill(proxy, signal.SIGKILL)
        for channel in channels:
            with pytest.raises(execnet.GatewayGone, match="its proxy is gone"):
                channel.receive(timeout=20)
        assert eventually(lambda: all(has_ended(end) for end in ends))


def test_a_connection_that_has_broken_is_replaced(sshd: PrivateSshd, group: execnet.Group) -> None:
    first = group.makegateway("ssh=localhost//preload=json")
    os.kill(proxy_of(first, group), signal.SIGKILL)
    with pytest.raises(execnet.GatewayGone, match="its proxy is gone: gateway gw0-carrier"):
        first.remote_exec("").waitclose(timeout=20)
    assert ask(group.makegateway("ssh=localhost//preload=json"), "1") == 1


FAR_COORDINATOR = """
import sys, execnet
group = execnet.Group(sys.argv[1:])
workers = [gateway for gateway in group if gateway.id != "proxy"]
code = "import os; channel.send((os.getpid(), os.getppid())); channel.receive()"
channels = [worker.remote_exec(code) for worker in workers]
print(*[pid for channel in channels for pid in channel.receive()], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", KINDS[2:])
def test_nothing_is_left_anywhere_when_the_coordinator_is_killed(kind: str, sshd: PrivateSshd) -> None:
    spec = "ssh=localhost" if kind == "ssh" else "popen//via=proxy"
    specs = [f"{spec}//preload=json"] * 2
    if kind != "ssh":
        specs.insert(0, f"{PURE if kind == 'via pure' else 'popen'}//id=proxy")
    with subprocess.Popen(
        [sys.executable, "-c", FAR_COORDINATOR, *specs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as coordinator:
        assert coordinator.stdout is not None
        pids = {int(word) for word in coordinator.stdout.readline().split()}
        assert len(pids) == 3
        with contextlib.ExitStack() as stack:
            ends = [stack.enter_context(pidfd(pid)) for pid in pids]
            coordinator.kill()
            assert eventually(lambda: all(has_ended(end) for end in ends))


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
    group = execnet.Group([f"{preload._spec}//preload=json"] * 100)
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
    """On one processor who is woken runs before the thread that has woken it lets go of a mutex, and then forks."""
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
        [sys.executable, "-c", GREEN, preload._spec], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True\n", done.stderr
