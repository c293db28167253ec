"""Forked workers for tests: gateways with preloaded modules of the test, here and behind proxies."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import execnet
from belongings import children, eventually, has_ended, pidfd

PURE = f"popen//python={shlex.quote(sys.executable)}"
HERE = {"native": "popen", "pure": PURE}
ELSEWHERE = ["via native", "via pure", "ssh"]  # who starts the fork server


class Preload:
    """Makes gateways: fresh ones, and ones that are forked from an interpreter with modules of the test."""

    def __init__(self, group: execnet.Group, directory: Path, kind: str) -> None:
        self.group, self.directory = group, directory
        if kind.startswith("via"):
            group.makegateway(f"{HERE[kind.removeprefix('via ')]}//id=proxy")
        self._others = set(children())  # servers of other tests, and the proxy
        spec = {"ssh": "ssh=localhost", **HERE}.get(kind, "popen//via=proxy")
        path = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])
        self.spec = f"{spec}//env:PYTHONPATH={path}"

    def module(self, name: str, source: str) -> None:
        path = self.directory.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    def gateway(self, names: str, more: str = "") -> execnet.Gateway:
        return self.group.makegateway(f"{self.spec}//preload={names}{more}")

    def fresh(self, more: str = "") -> execnet.Gateway:
        return self.group.makegateway(self.spec + more)

    def processes(self) -> set[int]:
        """Those that the test has started, but for what they have."""
        return set(children()) - self._others


def ask(gateway: execnet.Gateway, expression: str, setup: str = "") -> Any:
    return gateway.remote_exec(f"import os, signal, sys\n{setup}\nchannel.send({expression})").receive(timeout=30)


def ask_both(preload: Preload, names: str, expression: str, setup: str = "") -> tuple[Any, Any]:
    """What a fresh worker says, and what one that has those modules says."""
    return ask(preload.fresh(), expression, setup), ask(preload.gateway(names), expression, setup)


def fork_server_of(gateway: execnet.Gateway) -> int:
    return ask(gateway, "os.getppid()")


COORDINATOR = """
import sys, execnet
group = execnet.Group(sys.argv[1:])
workers = [gateway for gateway in group if gateway.id != "proxy"]
code = "import os; channel.send((os.getpid(), os.getppid())); channel.receive()"
channels = [worker.remote_exec(code) for worker in workers]
print(*[pid for channel in channels for pid in channel.receive()], flush=True)
sys.stdin.read()
"""


def end_with_their_coordinator(specs: list[str], number: int) -> bool:
    """Whether two workers and their fork server end when the program that made them gets this signal."""
    with subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, *specs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as coordinator:
        assert coordinator.stdout is not None
        pids = {int(word) for word in coordinator.stdout.readline().split()}
        assert len(pids) == 3
        with contextlib.ExitStack() as stack:
            ends = [stack.enter_context(pidfd(pid)) for pid in pids]
            coordinator.send_signal(number)
            return eventually(lambda: all(has_ended(end) for end in ends))
