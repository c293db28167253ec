"""Bad input gets the right error and a helpful text, and leaves nothing started.

That nothing is left is looked after for every test; see conftest.py.
"""

from __future__ import annotations

import errno
import os
import resource
import shlex
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import execnet
from belongings import our_processes
from sshd import PrivateSshd

PURE = f"popen//python={shlex.quote(sys.executable)}"


@pytest.fixture
def nothing_started() -> Iterator[None]:
    """Fails if a process was started, even if it is gone again: the resource usage of children shows it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield
    assert resource.getrusage(resource.RUSAGE_CHILDREN) == before


# --- Specifications ---


@pytest.mark.parametrize("text", ["//", "popen//", "//popen", "popen////id=a", "=popen", "popen//=a", "popen//_a=b"])
@pytest.mark.usefixtures("nothing_started")
def test_a_malformed_specification_is_a_valueerror(group: execnet.Group, text: str) -> None:
    with pytest.raises(ValueError, match=r"popen|ssh|form|key") as caught:
        group.makegateway(text)
    assert type(caught.value) is ValueError
    assert len(group) == 0


def test_an_empty_specification_shows_the_form() -> None:
    with pytest.raises(ValueError, match="//key"):
        execnet.XSpec("")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("carrier_pigeon=home", "type"),
        ("id=a", "type"),
        ("popen//ssh=host", "more than one"),
        ("popen//nice=much", "nice=much"),
        ("popen//id=", "id"),
        ("popen//python=", "python"),
        ("popen//python='unclosed", "quot"),
        ("popen//chdir", "chdir"),
        ("ssh=", "ssh"),
        ("ssh=-p22", "host"),
        ("popen//id=a//id=b", "duplicate.*id"),
        ("popen//via=nobody", "no gateway 'nobody'"),
        ("popen//id=a//via=a", "its own proxy"),
        ("socket=host:1//via=a", "both socket and via="),
        ("socket=host", "no port"),
        ("socket=host:99999", "no port number from 1 to 65535"),
        ("socket", "installvia"),
        ("socket//installvia=nobody", "no gateway 'nobody'"),
    ],
)
@pytest.mark.usefixtures("nothing_started")
def test_a_specification_that_means_nothing_is_a_valueerror(group: execnet.Group, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        group.makegateway(text)
    assert len(group) == 0


@pytest.mark.usefixtures("nothing_started")
def test_a_duplicate_id_is_a_valueerror_before_anything_is_started() -> None:
    group = execnet.Group()
    with pytest.raises(ValueError, match="twice"):
        execnet.Group(["popen//id=twice", "popen//id=twice"])
    assert len(group) == 0


def test_the_id_of_a_member_is_taken(group: execnet.Group) -> None:
    group.makegateway("popen//id=taken")
    with pytest.raises(ValueError, match="taken"):
        group.makegateway("popen//id=taken")
    assert len(group) == 1


@pytest.mark.parametrize("bad", [5, b"popen", ["popen"]])
@pytest.mark.usefixtures("nothing_started")
def test_what_is_no_specification_is_a_typeerror(group: execnet.Group, bad: object) -> None:
    with pytest.raises(TypeError):
        group.makegateway(bad)


# --- python= ---


def not_found(group: execnet.Group, spec: str) -> str:
    """The text of the error with which makegateway fails."""
    with pytest.raises(execnet.HostNotFound) as caught:
        group.makegateway(spec)
    assert isinstance(caught.value, ConnectionError)
    assert len(group) == 0
    return str(caught.value)


def test_a_python_that_does_not_exist(group: execnet.Group) -> None:
    text = not_found(group, "popen//python=/no/such/python")
    assert "/no/such/python" in text
    assert os.strerror(errno.ENOENT) in text


def test_a_python_that_is_not_in_path(group: execnet.Group) -> None:
    assert "no-such-python" in not_found(group, "popen//python=no-such-python")


def test_a_python_that_may_not_be_executed(group: execnet.Group, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("")
    assert os.strerror(errno.EACCES) in not_found(group, f"popen//python={tmp_path}/python")


def test_a_python_that_is_a_directory(group: execnet.Group, tmp_path: Path) -> None:
    assert str(tmp_path) in not_found(group, f"popen//python={tmp_path}")


def test_a_program_that_is_no_python(group: execnet.Group) -> None:
    text = not_found(group, "popen//python=ls")
    assert "exit status 2" in text
    assert "ls: " in text  # its own words
    assert "command: ls " in text


def test_a_program_that_exits_at_once(group: execnet.Group) -> None:
    assert "exit status 0" in not_found(group, "popen//python=true")
    assert "exit status 7" in not_found(group, "popen//python=sh -c 'exit 7'")


def test_a_program_that_kills_itself(group: execnet.Group) -> None:
    assert "SIGKILL" in not_found(group, "popen//python=sh -c 'kill -9 $$'")


def test_a_program_that_talks_nonsense(group: execnet.Group) -> None:
    assert "words of the program" in not_found(group, "popen//python=sh -c 'echo words of the program >&2; exit 1'")


@pytest.mark.parametrize("via", ["", "//via=proxy"])
def test_a_program_that_talks_another_encoding(group: execnet.Group, via: str) -> None:
    group.makegateway("popen//id=proxy")
    with pytest.raises(execnet.HostNotFound) as caught:
        group.makegateway(f"popen//python=sh -c 'printf \"caf\\\\351 ferm\\\\351\" >&2; exit 1'{via}")
    assert "caf\N{REPLACEMENT CHARACTER} ferm" in str(caught.value)


def test_what_is_no_worker_may_say_any_bytes(group: execnet.Group) -> None:
    text = not_found(group, 'popen//python=sh -c \'head -c 100000 /dev/zero | tr "\\\\000" "\\\\377" >&3\'')
    assert "no worker, but this on its stdout: \N{REPLACEMENT CHARACTER}" in text


def test_after_all_these_the_group_still_makes_gateways(group: execnet.Group) -> None:
    not_found(group, "popen//python=/no/such/python//id=a")
    assert group.makegateway("popen//id=a").remote_exec("channel.send(1)").receive() == 1


# --- ssh ---


def test_an_ssh_host_that_is_not_known(group: execnet.Group, sshd: PrivateSshd) -> None:
    text = not_found(group, "ssh=unknown.invalid")
    assert "unknown.invalid" in text
    assert "exit status 255" in text
    assert "resolve" in text  # ssh's own words


def test_an_ssh_host_that_refuses_the_key(group: execnet.Group, sshd: PrivateSshd) -> None:
    text = not_found(group, "ssh=refused")
    assert "Permission denied (publickey)" in text
    assert "exit status 255" in text


def test_an_ssh_host_without_a_python(group: execnet.Group, sshd: PrivateSshd) -> None:
    text = not_found(group, "ssh=nopython")
    assert "exit status 127" in text
    assert "no python3 or python on this host" in text


def test_an_ssh_host_without_that_python(group: execnet.Group, sshd: PrivateSshd) -> None:
    text = not_found(group, "ssh=localhost//python=no-such-python")
    assert "exit status 127" in text
    assert "no-such-python" in text


def test_an_ssh_configuration_that_does_not_exist(group: execnet.Group, sshd: PrivateSshd) -> None:
    assert "/no/such/config" in not_found(group, "ssh=localhost//ssh_config=/no/such/config")


def test_no_ssh_client(group: execnet.Group, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "openssh-client" in not_found(group, "ssh=localhost")


# --- What is executed ---


def closes_over() -> object:
    outer = 1

    def inner(channel):
        channel.send(outer)

    return inner


def uses_a_global(channel):
    channel.send(errno.ENOENT)


def has_no_channel(other):
    pass


def annotated(channel: Path) -> None:
    channel.send("ran")


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (closes_over(), "outer|closure"),
        (uses_a_global, "errno"),
        (has_no_channel, "channel"),
        (lambda channel: None, "lambda"),
    ],
    ids=["closure", "global", "no channel", "lambda"],
)
def test_a_function_that_cannot_be_sent_is_a_valueerror(gateway: execnet.Gateway, function: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        gateway.remote_exec(function)
    assert "0 active channels" in repr(gateway)


def test_annotations_are_no_globals(gateway: execnet.Gateway) -> None:
    assert gateway.remote_exec(annotated).receive() == "ran"


def test_annotations_are_none_where_text_lies_left_of_the_function(gateway: execnet.Gateway) -> None:
    def indented(channel: Iterator[int]) -> Path:  # type: ignore[return]
        channel.send("""
left
""")

    assert gateway.remote_exec(indented).receive() == "\nleft\n"


def test_arguments_are_for_functions_only(gateway: execnet.Gateway) -> None:
    with pytest.raises(TypeError, match="argument"):
        gateway.remote_exec("pass", argument=1)


def test_an_argument_that_cannot_be_dumped_is_named(gateway: execnet.Gateway) -> None:
    with pytest.raises(execnet.DumpError, match=r"object.*'bad'"):
        gateway.remote_exec(has_channel, bad=[object()])
    assert "0 active channels" in repr(gateway)


def has_channel(channel, bad):
    pass


# --- Channels ---


def test_a_value_that_cannot_be_dumped_is_not_sent_at_all(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("channel.send(list(channel.receive()))")
    with pytest.raises(execnet.DumpError, match=r"<class 'object'> at \[1\]\['a'\]"):
        channel.send([1, {"a": object()}])
    channel.send([2])
    assert channel.receive() == [2]


def test_a_channel_of_another_gateway_cannot_be_sent(group: execnet.Group) -> None:
    one, other = group.makegateway("popen"), group.makegateway("popen")
    with pytest.raises(execnet.DumpError, match="gateway"):
        one.newchannel().send(other.newchannel())


def test_send_after_close_is_an_oserror_and_no_dumperror(gateway: execnet.Gateway) -> None:
    channel = gateway.newchannel()
    channel.close()
    with pytest.raises(OSError, match="clos") as caught:
        channel.send(1)
    assert not isinstance(caught.value, (execnet.DataFormatError, EOFError))


def test_receive_after_the_end_is_eoferror_every_time(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("pass")
    for _ in range(3):
        with pytest.raises(EOFError):
            channel.receive()


def test_a_timeout_is_a_timeout_to_everybody(gateway: execnet.Gateway) -> None:
    with pytest.raises(TimeoutError) as caught:
        gateway.newchannel().receive(timeout=0)
    assert isinstance(caught.value, execnet.TimeoutError)
    assert isinstance(caught.value, OSError)


def test_a_timeout_that_is_no_number_is_refused(gateway: execnet.Gateway, group: execnet.Group) -> None:
    channel = gateway.newchannel()
    for wait in (channel.receive, channel.waitclose, gateway.remote_status, gateway.join, group.terminate):
        with pytest.raises(ValueError, match="not nan"):
            wait(timeout=float("nan"))


# --- Secrets ---

SECRET = "s3cret"
# Ways to a gateway with a secret in its environment, and what has to be there first.
WAYS = {
    "popen": [f"popen//env:TOKEN={SECRET}"],
    "pure": [f"{PURE}//env:TOKEN={SECRET}"],
    "via native": ["popen//id=proxy", f"popen//env:TOKEN={SECRET}//via=proxy"],
    "via pure": [f"{PURE}//id=proxy", f"popen//env:TOKEN={SECRET}//via=proxy"],
    "installvia": ["popen//id=host", f"socket//env:TOKEN={SECRET}//installvia=host"],
    "preload": [f"popen//env:TOKEN={SECRET}//preload=json"],
    "preload via pure": [f"{PURE}//id=proxy", f"popen//env:TOKEN={SECRET}//preload//via=proxy"],
    "ssh": [f"ssh=localhost//env:TOKEN={SECRET}"],
    "ssh preload": [f"ssh=localhost//env:TOKEN={SECRET}//preload=json"],
}


def command_lines() -> str:
    """Of all processes of this machine that can be seen, as `ps` shows them to everybody."""
    lines = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has just ended
    return "\n".join(lines)


@pytest.mark.parametrize("way", WAYS)
def test_no_value_of_a_variable_is_in_an_error_or_on_a_command_line(
    sshd: PrivateSshd, group: execnet.Group, way: str
) -> None:
    *first, spec = WAYS[way]
    for one in first:
        group.makegateway(one)
    gateway = group.makegateway(spec)
    assert SECRET not in repr(gateway)
    assert SECRET not in repr(gateway.spec)
    assert "env:TOKEN=***" in repr(gateway.spec)
    assert len(our_processes()) > 0
    assert SECRET not in command_lines()
    channel = gateway.remote_exec("import os; channel.send(os.environ['TOKEN']); channel.receive()")
    assert channel.receive(timeout=30) == SECRET
    gateway.remote_exec("import os; os.abort()")
    with pytest.raises(execnet.GatewayGone, match=r"env:TOKEN=\*\*\*") as caught:
        channel.receive(timeout=30)
    assert SECRET not in str(caught.value)
    other = group.makegateway(spec).newchannel()
    group.terminate(timeout=5)
    with pytest.raises(execnet.GatewayGone) as caught:
        other.receive(timeout=30)
    assert SECRET not in str(caught.value)
    for one in first:
        group.makegateway(one)
    with pytest.raises(execnet.HostNotFound, match=r"env:TOKEN=\*\*\*") as not_made:
        group.makegateway(f"{spec}//chdir=/proc/none")
    assert SECRET not in str(not_made.value)


@pytest.mark.parametrize(
    "text",
    ["env:A=s3cret", "popen//env:A=s3cret//nice=x", "popen//env:A=x//s3cret//via=nobody", "popen//env:A=s3cret//"],
)
def test_no_value_of_a_variable_is_in_what_is_said_of_a_specification(group: execnet.Group, text: str) -> None:
    with pytest.raises(ValueError, match=r"in specification|that 'popen") as caught:
        group.makegateway(text)
    assert SECRET not in str(caught.value)


# --- What others have said ---

# What a terminal obeys, what it may obey, what turns letters around; and text, which stays.
NASTY = "\x1b[2J \x1b]0;title\x07 gone\b\b\r \x9b31m \u202egnp.exe \u2066x \x7f\x00"
SHOWN = r"\x1b[2J \x1b]0;title\x07 gone\x08\x08\x0d \x9b31m \u202egnp.exe \u2066x \x7f\x00"
TEXT = "Gr\xfc\xdfe \u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f680\n\tindented"


@pytest.mark.parametrize("spec", ["popen", PURE, "popen//preload", "ssh=localhost"])
def test_a_traceback_is_shown_and_not_obeyed(sshd: PrivateSshd, group: execnet.Group, spec: str) -> None:
    gateway = group.makegateway(spec)
    closed = gateway.newchannel()
    gateway.remote_exec(f"channel.receive().close({NASTY + TEXT!r})").send(closed)
    for channel in (gateway.remote_exec(f"raise ValueError({NASTY + TEXT!r})"), closed):
        with pytest.raises(execnet.RemoteError) as caught:
            channel.receive(timeout=30)
        for text in (str(caught.value), repr(caught.value), caught.value.formatted):
            assert SHOWN + TEXT in text
            assert NASTY[0] not in text


def test_a_workers_error_is_shown_to_a_worker_and_not_obeyed(group: execnet.Group) -> None:
    for spec in ("popen", PURE):
        code = """
        other = channel.receive()
        try:
            other.receive()
        except channel.RemoteError as error:
            channel.send(str(error))
        """
        channel = group.makegateway(spec).remote_exec(code)
        other = channel.gateway.newchannel()
        channel.send(other)
        other.close(NASTY + TEXT)
        assert channel.receive(timeout=30) == SHOWN + TEXT


@pytest.mark.parametrize("spec", ["popen", "popen//via=proxy", "ssh=localhost"])
def test_a_stderr_is_shown_and_not_obeyed(sshd: PrivateSshd, group: execnet.Group, spec: str, tmp_path: Path) -> None:
    group.makegateway("popen//id=proxy")
    words = tmp_path / "words"
    words.write_bytes((NASTY + TEXT).encode())
    said = not_made(group, f"{spec}//python=sh -c 'cat {words} >&2; exit 1'")
    assert SHOWN + TEXT in said


def not_made(group: execnet.Group, spec: str) -> str:
    with pytest.raises(execnet.HostNotFound) as caught:
        group.makegateway(spec)
    text = str(caught.value)
    assert all(c.isprintable() or c in "\n\t\u200d" for c in text)
    return text


def test_last_words_are_shown_and_not_obeyed(sshd: PrivateSshd, group: execnet.Group) -> None:
    gateway = group.makegateway("ssh=localhost")
    channel = gateway.remote_exec(f"import os; os.write(2, {(NASTY + TEXT).encode()!r}); os._exit(3)")
    with pytest.raises(execnet.GatewayGone) as caught:
        channel.receive(timeout=30)
    assert SHOWN + TEXT in str(caught.value)


def test_noise_on_the_stdout_is_shown_and_not_obeyed(group: execnet.Group, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_bytes((NASTY + TEXT).encode())
    assert f"no worker, but this on its stdout: {SHOWN}" in not_made(group, f"popen//python=sh -c 'cat {words} >&3'")


def fake_worker(directory: Path, hello: dict[str, object]) -> str:
    """The specification of a program that says HELLO with this in it, and waits."""
    known = {"protocol": 1, "implementation": "pure", "executable": "", "version_info": (3, 11, 0, "final", 0)}
    said = {**known, "platform": "linux", "cwd": "/", "pid": 1, "features": [], **hello}
    payload = execnet.dumps(said)[1:]
    frames = b"EXECNET\x01" + struct.pack("<BBHIII", 1, 0, 0, 0, len(payload), 0) + payload
    program = directory / "fake_worker"
    program.write_text(f"#!{sys.executable}\nimport os\nos.write(3, {frames!r})\nwhile os.read(3, 65536): pass\n")
    program.chmod(0o755)
    return f"popen//python={program}"


def test_what_a_worker_says_of_itself_is_shown_and_not_obeyed(group: execnet.Group, tmp_path: Path) -> None:
    assert SHOWN in not_made(group, fake_worker(tmp_path, {"error": NASTY}))
    names = ("executable", "platform", "cwd", "implementation")
    gateway = group.makegateway(fake_worker(tmp_path, dict.fromkeys(names, NASTY)) + "//id=fake")
    assert gateway._rinfo().platform == NASTY  # it is data
    assert repr(gateway._rinfo()).isprintable()
