"""What all tests use: groups that are terminated, an SSH server, and a check that nothing was left behind."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

import execnet
from belongings import Belongings, ends_gone, left_behind, mark_children
from sshd import PrivateSshd


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "runs_last: the test is run after all others")
    config.addinivalue_line("markers", "alone: the test measures times; ctest runs it with nothing else beside it")
    config.addinivalue_line("markers", "needs_threads: the test is for workers whose code runs in threads")
    mark_children()
    # Background jobs of a shell that is not interactive ignore Ctrl-C, and so do all processes that they start.
    # Tests that press it would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("runs_last") is not None)


@pytest.fixture(scope="session", autouse=True)
def at_the_start() -> Belongings:
    """What there was before the first test."""
    # The main thread makes an eventfd at its first wait and keeps it. This wait times out.
    warming_up = execnet.Group(["popen"])
    with pytest.raises(execnet.TimeoutError):
        warming_up[0].newchannel().receive(timeout=0.001)
    warming_up.terminate()
    return Belongings.now()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Raises the limit of descriptors as far as possible, for groups of many gateways."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="session")
def long_lived(at_the_start: Belongings) -> Iterator[contextlib.ExitStack]:
    """Holds objects that serve many tests. The last test closes it."""
    with contextlib.ExitStack() as stack:
        yield stack


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None:
        item.stash[FAILED] = True
    return (yield)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, at_the_start: Belongings) -> Iterator[None]:
    """Fails a test that leaves a process, a descriptor or a thread behind.

    Not one that has failed already: its traceback keeps things alive.
    """
    before = Belongings.now(quick=True)
    yield
    if FAILED in request.node.stash:
        return
    request.node.funcargs.clear()  # What only the test's arguments refer to is over.
    lines = left_behind(before)
    assert not lines, f"{request.node.name} has left behind:\n" + "\n".join(lines)


@pytest.fixture
def group() -> Iterator[execnet.Group]:
    """A group for this test, terminated after it."""
    group = execnet.Group()
    yield group
    group.terminate(timeout=1.0)


@pytest.fixture
def gateway(group: execnet.Group) -> execnet.Gateway:
    """A plain popen gateway for this test."""
    return group.makegateway("popen")


@pytest.fixture(scope="session")
def _sshd(long_lived: contextlib.ExitStack) -> PrivateSshd:
    return long_lived.enter_context(PrivateSshd())


@pytest.fixture
def sshd(_sshd: PrivateSshd) -> Iterator[PrivateSshd]:
    """``ssh=localhost``, ``ssh=nopython`` and ``ssh=refused`` lead to a server of ours; see sshd.py."""
    with _sshd.in_front():
        yield _sshd
    left = _sshd.session_pids()
    assert ends_gone(left), f"processes of logins are left: {_sshd.session_pids()}"
