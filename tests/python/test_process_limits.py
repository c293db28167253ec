"""Programs whose limits (setrlimit(2)) are tight: what still works, and what the error says where nothing can."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap

import pytest


def run(program: str, limit: int, values: tuple[int, int], timeout: float = 300) -> str:
    """What a program prints under that limit, to a pipe."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(program)],
        preexec_fn=lambda: resource.setrlimit(limit, values),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("size", [0, 4096, 100_000])
def test_files_may_not_be_written(size: int) -> None:
    """Guards and rings are files in memory, which count."""
    said = run(
        """
        import resource, signal, sys, execnet
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        python = "popen//python=" + sys.executable
        group = execnet.Group([
            "popen//id=native", python + "//id=pure", "popen//preload//id=forked", python + "//preload//id=pure-forked",
            "popen//via=native", python + "//via=native", "popen//via=pure", "popen//preload//via=native",
            "popen//preload//via=pure",
        ])
        for gateway in group:
            channel = gateway.remote_exec("import resource; channel.send(resource.getrlimit(resource.RLIMIT_FSIZE))")
            assert channel.receive() == resource.getrlimit(resource.RLIMIT_FSIZE)
            channel = gateway.remote_exec("channel.send(len(channel.receive()))")
            channel.send(b"x" * 3_000_000)
            assert channel.receive() == 3_000_000
        group.terminate(timeout=10)
        print("all is well")
        """,
        resource.RLIMIT_FSIZE,
        (size, size),
    )
    assert said == "all is well\n"


MAKE_MANY = """
    import execnet, gc, os, resource
    group = execnet.Group()
    try:
        while len(group) < {most}:
            group.makegateway({spec!r})
        print("no error")
    except OSError as error:
        print(type(error).__name__, error.errno, error)
    print(len(group), group[0].remote_exec("channel.send('alive')").receive(), group[-1].remote_status().numchannels)
    limit = "import resource; channel.send(resource.getrlimit(resource.RLIMIT_NOFILE))"
    print(group[-1].remote_exec(limit).receive())
    print(len(os.listdir("/proc/self/fd")))
    group.terminate(timeout=20)
    print(len(os.listdir("/proc/self/fd")))
"""


def test_a_gateway_takes_three_descriptors_and_what_to_raise_is_said() -> None:
    """As many as fit into a limit of 1024; then the error names the limit and how many there are."""
    said = run(MAKE_MANY.format(most=1000, spec="popen//preload"), resource.RLIMIT_NOFILE, (1024, 1024)).splitlines()
    assert said[0].startswith("OSError 24 "), said[0]
    count = int(said[1].split()[0])
    assert count >= 330
    assert said[1].endswith(" alive 0")
    assert f"{count} gateways" in said[0]
    assert "ulimit -n" in said[0]
    assert "1024" in said[0]
    assert int(said[4]) < 20, "not all were given back"


@pytest.mark.parametrize("spec", ["popen", f"popen//python={sys.executable}"])
def test_a_fresh_worker_takes_three_descriptors(spec: str) -> None:
    said = run(MAKE_MANY.format(most=100, spec=spec), resource.RLIMIT_NOFILE, (150, 150)).splitlines()
    assert int(said[1].split()[0]) >= 39, said


def test_the_soft_limit_is_raised_when_needed_and_workers_have_the_former() -> None:
    said = run(MAKE_MANY.format(most=40, spec="popen//preload"), resource.RLIMIT_NOFILE, (64, 4096)).splitlines()
    assert said[0] == "no error"
    assert said[2] == "(64, 4096)"
    said = run(MAKE_MANY.format(most=20, spec="popen"), resource.RLIMIT_NOFILE, (40, 4096)).splitlines()
    assert said[0] == "no error"
    assert said[2] == "(40, 4096)"


def test_the_soft_limit_is_left_alone_when_it_suffices() -> None:
    said = run(
        """
        import execnet, resource
        group = execnet.Group(["popen", "popen//preload"])
        print(resource.getrlimit(resource.RLIMIT_NOFILE))
        """,
        resource.RLIMIT_NOFILE,
        (256, 4096),
    )
    assert said == "(256, 4096)\n"
