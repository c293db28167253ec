"""Every session of the reference page runs with its exact output."""

from __future__ import annotations

import builtins
import doctest
import re
from pathlib import Path

import pytest

import execnet
from sshd import PrivateSshd

PAGE = Path(__file__).with_name("reference_page.txt")


def sessions() -> dict[str, str]:
    """Heading -> session."""
    parts = re.split(r"^(.+)\n-+\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


SESSIONS = sessions()


def run(title: str) -> None:
    test = doctest.DocTestParser().get_doctest(SESSIONS[title], {}, title, str(PAGE), 0)
    assert test.examples
    said: list[str] = []
    try:
        results = doctest.DocTestRunner(verbose=False).run(test, out=said.append, clear_globs=False)
    finally:
        vars(builtins).pop("_", None)  # the last result that was shown
        # A session leaves its gateways to the end of its program.
        for group in (test.globs.get("group"), execnet.default_group):
            if group is not None:
                group.terminate(timeout=1.0)
    assert results.attempted == len(test.examples)
    assert results.failed == 0, "".join(said)


@pytest.mark.parametrize("title", [title for title in SESSIONS if "ssh=" not in SESSIONS[title]])
def test_a_session_says_what_the_page_says(title: str) -> None:
    run(title)


@pytest.mark.parametrize("title", [title for title in SESSIONS if "ssh=" in SESSIONS[title]])
def test_a_session_over_ssh_says_what_the_page_says(title: str, sshd: PrivateSshd) -> None:
    run(title)
    assert (sshd.home / "mytmp").is_dir()


def test_all_sessions_of_the_page_are_there() -> None:
    assert len(SESSIONS) == 6
    assert sum("ssh=" in session for session in SESSIONS.values()) == 1


def test_gateways_are_gateways(gateway: execnet.Gateway) -> None:
    assert isinstance(gateway, execnet.Gateway)
    assert repr(gateway) == "<PopenGateway id='gw0' receive-live, 0 active channels>"


def test_members_over_ssh_are_ssh_gateways(group: execnet.Group, sshd: PrivateSshd) -> None:
    gateway = group.makegateway("ssh=localhost//nice=20//id=far")
    assert isinstance(gateway, execnet.Gateway)
    assert repr(gateway) == "<SshGateway id='far' receive-live, 0 active channels>"
    assert gateway.remoteaddress == "localhost"
    assert gateway.remote_exec("import os; channel.send(os.nice(0))").receive() == 19
    group.terminate(timeout=5.0)
