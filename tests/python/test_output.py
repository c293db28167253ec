"""A function for what the worker of a gateway prints."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Callable

import pytest

import execnet
from belongings import eventually
from kinds import KINDS
from lateness import Stopwatch

LOCAL = ("native", "pure", "forked", "forked-pure")


@pytest.fixture(params=LOCAL)
def spec(request: pytest.FixtureRequest) -> str:
    return KINDS[request.param][0]


def make(group: execnet.Group, text: str, stdout: object) -> execnet.Gateway:
    spec = execnet.XSpec(text)
    spec.stdout = stdout  # type: ignore[assignment]
    return group.makegateway(spec)


class Said:
    """What a function was called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, text: str) -> None:
        self.calls.append(text)

    @property
    def text(self) -> str:
        return "".join(self.calls)


def test_all_that_is_printed_comes_in_order(spec: str, group: execnet.Group, capfd: pytest.CaptureFixture[str]) -> None:
    said = Said()
    gateway = make(group, spec, said)
    gateway.remote_exec(
        """
        import os, subprocess, sys
        for number in range(100):
            print("line", number)
        sys.stdout.flush()
        os.write(1, b"from C\\n")
        subprocess.check_call("echo from a child", shell=True)
        sys.__stdout__.write("the last, without an end")
        """
    ).waitclose(60)
    group.terminate(20)
    expected = "".join(f"line {number}\n" for number in range(100))
    assert said.text == expected + "from C\nfrom a child\nthe last, without an end"
    assert all(call.endswith("\n") for call in said.calls[:-1])
    assert capfd.readouterr().out == ""
    assert gateway.spec.stdout is said


def test_it_comes_while_the_code_runs(spec: str, group: execnet.Group) -> None:
    came = threading.Event()
    channel = make(group, spec, lambda text: came.set()).remote_exec(
        "import sys; print('now'); sys.stdout.flush(); channel.receive()"
    )
    assert came.wait(60)
    channel.send(None)
    channel.waitclose(60)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("os._exit(3)", id="_exit"),
        pytest.param("os.kill(os.getpid(), 9)", id="SIGKILL"),
        pytest.param(
            "os.kill(os.getpid(), 11)",
            id="SIGSEGV",
            marks=pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="the signal is the sanitizer's"),
        ),
        pytest.param("sys.exit(1)", id="SystemExit"),
    ],
)
def test_what_was_printed_just_before_the_end_is_not_lost(spec: str, group: execnet.Group, end: str) -> None:
    said = Said()
    channel = make(group, spec, said).remote_exec(
        f"import os, sys; os.write(1, b'x' * 60000 + b' the last words'); {end}"
    )
    with pytest.raises((EOFError, execnet.RemoteError)):
        channel.receive(timeout=60)
    group.terminate(20)
    assert said.text == "x" * 60000 + " the last words"


def test_handlers_at_the_end_of_the_process_are_heard(spec: str, group: execnet.Group) -> None:
    said = Said()
    gateway = make(group, spec, said)
    gateway.remote_exec("import atexit; atexit.register(print, 'bye')").waitclose(60)
    group.terminate(20)
    assert group.ended_by_themselves
    assert said.text == "bye\n"


def test_text_is_cut_between_characters_and_what_is_none_is_shown(group: execnet.Group) -> None:
    said = Said()
    gateway = make(group, "popen", said)
    gateway.remote_exec(
        """
        import os
        euro = b"\\xe2\\x82\\xac"
        for piece in [b"x" + euro * 100000, b" ", euro[:1], euro[1:], b" caf\\xe9\\n"]:
            while piece:
                piece = piece[os.write(1, piece):]
        """
    ).waitclose(60)
    group.terminate(20)
    assert said.text == "x" + "\N{EURO SIGN}" * 100000 + " \N{EURO SIGN} caf\N{REPLACEMENT CHARACTER}\n"
    assert max(map(len, said.calls)) <= 64 * 1024


def test_it_goes_before_what_the_specification_says(group: execnet.Group) -> None:
    said = Said()
    for keys in ("stdout=null", "execmodel=main_thread_only", "stdout=stderr"):
        make(group, f"popen//{keys}", said).remote_exec(f"print({keys!r})").waitclose(60)
        assert eventually(lambda keys=keys: said.text.endswith(f"{keys}\n")), said.text


def test_members_of_a_group_can_each_have_one() -> None:
    said = [Said(), Said()]
    specs = [execnet.XSpec("popen//stdout=null"), execnet.XSpec("popen"), execnet.XSpec("popen//stdout=null")]
    for spec, function in zip(specs, said, strict=False):
        spec.stdout = function
    with execnet.Group(specs) as group:
        for number, gateway in enumerate(group):
            gateway.remote_exec(f"print({number})").waitclose(60)
        group.terminate(20)
    assert [one.text for one in said] == ["0\n", "1\n"]


def test_it_runs_on_the_thread_of_the_callbacks(group: execnet.Group) -> None:
    threads = set()
    seen = threading.Event()

    def see(text: object) -> None:
        threads.add(threading.get_ident())
        if text == "item":
            seen.set()

    gateway = make(group, "popen", see)
    channel = gateway.remote_exec("print('text', flush=True); channel.receive(); channel.send('item')")
    assert eventually(lambda: len(threads) == 1)
    channel.setcallback(see)
    channel.send(None)
    assert seen.wait(60)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_one_that_raises_is_told_and_not_called_again(group: execnet.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    hooked = threading.Event()

    def hook(unraisable: object) -> None:
        told.append((unraisable.exc_type, unraisable.object))  # type: ignore[attr-defined]
        hooked.set()

    def fail(text: str) -> None:
        raise ZeroDivisionError(text)

    monkeypatch.setattr(sys, "unraisablehook", hook)
    gateway = make(group, "popen", fail)
    channel = gateway.remote_exec("for item in channel: print(item * 100000); channel.send(item)")
    for _ in range(10):  # more than a pipe and what may be under way take
        channel.send("x")
        assert channel.receive(timeout=60) == "x"
    assert hooked.wait(60)
    channel.close()
    group.terminate(20)
    assert told == [(ZeroDivisionError, fail)]


def test_who_prints_without_end_waits_for_it(spec: str, group: execnet.Group) -> None:
    enter, leave = threading.Event(), threading.Event()
    sizes = []

    def slow(text: str) -> None:
        enter.set()
        leave.wait(60)
        sizes.append(len(text))

    gateway = make(group, spec, slow)
    gateway.remote_exec("import os\nwhile True: os.write(1, b'0123456789abcde\\n' * 64)")
    # Until there is no room in the pipe: then all that is under way is what may be.
    blocked = "import os, select; channel.send(select.select([], [1], [], 0)[1] == [])"
    assert enter.wait(60)
    assert eventually(lambda: gateway.remote_exec(blocked).receive(timeout=60))
    leave.set()
    assert eventually(lambda: len(sizes) > 100)
    assert max(sizes) <= 192 * 1024
    with Stopwatch() as watch:
        group.terminate(2)
    assert watch.seconds < 2.2 + watch.late


def test_one_that_does_not_return_does_not_keep_terminate(group: execnet.Group) -> None:
    enter, leave = threading.Event(), threading.Event()

    def stuck(text: str) -> None:
        enter.set()
        leave.wait(120)

    make(group, "popen", stuck).remote_exec("while True: print('x' * 1000)")
    assert enter.wait(60)
    with Stopwatch() as watch:
        group.terminate(1)
    assert watch.seconds < 1.2 + watch.late
    leave.set()


def test_one_may_use_its_gateway(group: execnet.Group) -> None:
    answers: list[object] = []

    def ask(text: str) -> None:
        answers.append(gateway.remote_exec("channel.send(1)").receive(timeout=60))

    gateway = make(group, "popen", ask)
    gateway.remote_exec("print('a')").waitclose(60)
    assert eventually(lambda: answers == [1])


@pytest.mark.parametrize("relays", ['bash -c \'exec 3<&-; exec "$0" "$@"\'', 'bash -c \'exec 5<&-; exec "$0" "$@"\''])
def test_what_passes_on_standard_input_and_output_only_is_told(group: execnet.Group, relays: str) -> None:
    with pytest.raises(execnet.HostNotFound, match="a function for stdout: what stands before this interpreter"):
        make(group, f"popen//python={relays} {shlex.quote(sys.executable)}", print)


@pytest.mark.parametrize(
    ("refused", "with_what"),
    [("ssh=host", "ssh"), ("socket=a:1", "socket"), ("popen//via=proxy", "via="), ("popen//transport=stdio", "stdio")],
)
def test_where_it_cannot_be_had_it_is_refused(group: execnet.Group, refused: str, with_what: str) -> None:
    group.makegateway("popen//id=proxy")
    with pytest.raises(ValueError, match=f"a function for stdout with .*{with_what}"):
        make(group, refused, print)
    assert len(group) == 1


def test_what_is_neither_text_nor_a_function_is_refused(group: execnet.Group) -> None:
    with pytest.raises(TypeError, match="text or a function"):
        make(group, "popen", [])
    with pytest.raises(ValueError, match="unknown stdout=7"):
        make(group, "popen", 7)
    assert len(group) == 0


def test_a_command_line_of_the_program_s_own_has_it_too(group: execnet.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    line = [sys.executable, "-c", execnet.gateway_io.popen_bootstrapline]
    monkeypatch.setattr(execnet.gateway_io, "popen_args", lambda spec: line)
    make(group, "popen", said).remote_exec("print('heard')").waitclose(60)
    group.terminate(20)
    assert said.text == "heard\n"


def test_it_is_let_go_when_the_worker_is_gone(group: execnet.Group) -> None:
    import gc
    import weakref

    def start() -> tuple[weakref.ref[Said], Callable[[], None]]:
        said = Said()
        gateway = make(group, "popen", said)
        gateway.spec.stdout = None
        return weakref.ref(said), gateway.exit

    function, leave = start()
    gc.collect()
    assert function() is not None
    leave()
    group.terminate(20)
    group.makegateway().remote_exec("channel.receive()").send(None)  # what is put aside goes when somebody comes by
    gc.collect()
    assert function() is None
