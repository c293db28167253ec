"""transport= and stdin=inherit: how the stream reaches a worker, and which standard input that leaves it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import execnet
from captured import Captured

PYTHON = shlex.quote(sys.executable)
LOCAL = {
    "native": "popen",
    "pure": f"popen//python={PYTHON}",
    "via native": "popen//via=native-proxy",
    "pure via native": f"popen//via=native-proxy//python={PYTHON}",
}
# Of a program that has passed on the standard descriptors only, and has numbers of its own beside them.
USES_ITS_OWN = f'bash -c \'exec 3</dev/null 4<&3; exec "$0" "$@"\' {PYTHON}'
ECHO = "for item in channel: channel.send(item)"


@pytest.fixture(params=LOCAL)
def spec(request: pytest.FixtureRequest) -> str:
    return LOCAL[request.param]


def make(group: execnet.Group, spec: str) -> execnet.Gateway:
    """With its proxy: in the test, whose output is captured from then on."""
    if "via=native-proxy" in spec:
        group.makegateway("popen//id=native-proxy")
    return group.makegateway(spec)


def descriptors(gateway: execnet.Gateway) -> list[str]:
    """What the descriptors of a worker were when it began."""
    code = "import os; channel.send([os.readlink('/proc/self/fd/%d' % number) for number in range(3)])"
    found: list[str] = gateway.remote_exec(code).receive(timeout=60)
    return found


def test_with_stdio_nothing_is_passed_on_but_the_three(spec: str, group: execnet.Group) -> None:
    seen = f'bash -c \'test -S /dev/stdin -a -S /dev/stdout -a ! -e /proc/self/fd/3 && exec "$0" "$@"\' {PYTHON}'
    base = spec.partition("//python=")[0]
    gateway = make(group, f"{base}//transport=stdio//python={seen}")
    channel = gateway.remote_exec(ECHO)
    for item in ("small", b"large" * 1_000_000):
        channel.send(item)
        assert channel.receive(timeout=60) == item


def test_with_stdio_the_worker_is_pure_and_prints_to_stderr(
    spec: str, group: execnet.Group, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = make(group, f"{spec}//transport=stdio")
    assert gateway._rinfo().implementation == "pure"
    assert descriptors(gateway)[0] == os.devnull
    gateway.remote_exec("print('from print')").waitclose(60)
    captured = Captured(capfd)
    assert captured.shows(lambda all: (all.out, all.err) == ("", "from print\n")), vars(captured)


def test_with_stdio_it_goes_through_a_pure_proxy_and_ssh(group: execnet.Group) -> None:
    group.makegateway(f"popen//python={PYTHON}//id=pure-proxy")
    gateway = group.makegateway("popen//via=pure-proxy//transport=stdio")
    assert gateway.remote_exec("channel.send(6 * 7)").receive(timeout=60) == 42
    execnet.XSpec("ssh=host//transport=stdio")


def test_with_a_socket_the_stream_is_on_nothing_else(
    spec: str, group: execnet.Group, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = make(group, f"{spec}//transport=socket")
    assert gateway._rinfo().implementation == ("pure" if "python=" in spec else "native")
    channel = gateway.remote_exec(ECHO)
    for item in ("small", b"large" * 1_000_000):
        channel.send(item)
        assert channel.receive(timeout=60) == item
    assert descriptors(gateway)[0] == os.devnull
    gateway.remote_exec("print('from print')").waitclose(60)
    captured = Captured(capfd)
    assert captured.shows(lambda all: (all.out, all.err) == ("from print\n", "")), vars(captured)


def test_with_a_socket_what_does_not_pass_it_on_is_told(group: execnet.Group) -> None:
    with pytest.raises(execnet.HostNotFound, match="no usable Python"):
        group.makegateway(f"popen//transport=socket//python={USES_ITS_OWN}")
    assert group.makegateway(f"popen//python={USES_ITS_OWN}").remote_exec("channel.send(1)").receive(timeout=60) == 1


def test_a_pure_proxy_has_no_socket_to_give(group: execnet.Group) -> None:
    group.makegateway(f"popen//python={PYTHON}//id=pure-proxy")
    with pytest.raises(ValueError, match="its proxy 'pure-proxy' is a pure worker"):
        group.makegateway("popen//via=pure-proxy//transport=socket")
    assert [gateway.id for gateway in group] == ["pure-proxy"]


@pytest.mark.parametrize("key", ["transport=socket", "stdin=inherit"])
def test_a_command_line_of_the_program_s_own_takes_the_stream_from_standard_input(
    group: execnet.Group, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    line = [sys.executable, "-c", execnet.gateway_io.popen_bootstrapline]
    monkeypatch.setattr(execnet.gateway_io, "popen_args", lambda spec: line)
    with pytest.raises(ValueError, match="takes it from standard input: leave out"):
        group.makegateway(f"popen//{key}")
    assert group.makegateway("popen//transport=stdio").remote_exec("channel.send(1)").receive(timeout=60) == 1


REFUSED = {
    "ssh=host//transport=socket": "ssh passes on no more than standard input and output",
    "vagrant_ssh=box//transport=socket": "ssh passes on no more",
    "socket=host:8888//transport=stdio": "its worker is given a socket",
    "popen//preload//transport=stdio": "transport=stdio with preload",
    "popen//transport=pipe": "the form is transport=socket or transport=stdio",
    "popen//transport": "no value for transport",
    "popen//stdin=null": "the form is stdin=inherit or stdin=close or stdin=devnull",
    "popen//stdout=file": "unknown stdout=file",
    "popen//stderr=stdout": "unknown stderr=stdout",
    "popen//stdin=inherit//preload": "stdin=inherit with preload",
    "popen//stdin=inherit//transport=stdio": "stdin=inherit with transport=stdio",
    "popen//via=native-proxy//stdin=inherit": "stdin=inherit with via=",
    "ssh=host//stdin=inherit": "only a popen worker that this program starts itself",
    "popen//stdout=callback": "no function",
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_makes_no_sense_is_refused_before_anything_is_started(group: execnet.Group, refused: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[refused]):
        group.makegateway(refused)
    assert len(group) == 0


@pytest.mark.parametrize("kind", ["popen", f"popen//python={PYTHON}"], ids=["native", "pure"])
def test_a_worker_can_have_the_standard_input_of_the_program(tmp_path: Path, kind: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import execnet
group = execnet.Group()
gateway = group.makegateway({(kind + "//stdin=inherit")!r})
channel = gateway.remote_exec("import sys; channel.send(sys.stdin.readline())")
print(repr(channel.receive(60)))
group.terminate(5)
"""
    )
    done = subprocess.run(
        [sys.executable, program], input="for the worker\n", capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "'for the worker\\n'\n", "")
