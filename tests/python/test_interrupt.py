"""Ctrl-C ends every wait at once, and the library keeps working after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

import interrupted
from belongings import eventually, sleeps
from lateness import Stopwatch


@pytest.mark.parametrize("name", interrupted.PROGRAMS)
def test_sigint_raises_keyboardinterrupt_at_once(name: str) -> None:
    with subprocess.Popen(
        [sys.executable, interrupted.__file__, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None

        def said(key: str) -> Any:
            line = program.stdout.readline()
            assert line, f"the program ended with {program.wait()}"
            return json.loads(line)[key]

        try:
            said("about_to")
            assert eventually(lambda: sleeps(program.pid), 30)
            with Stopwatch() as watch:
                sent_at = time.monotonic()
                os.kill(program.pid, signal.SIGINT)
                interrupted_at = said("interrupted_at")
            assert interrupted_at - sent_at < 0.2 + watch.late
            assert said("after") == "goes on"
            assert said("left") == []
            assert program.wait(timeout=20) == 0
        finally:
            program.kill()


def test_a_handler_that_does_not_raise_does_not_end_the_wait() -> None:
    program = """
import os, signal, sys, execnet
caught = []
signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
group = execnet.Group(["popen"])
channel = group[0].remote_exec("import os, signal; os.kill(channel.receive(), signal.SIGUSR1); channel.send(1)")
channel.send(os.getpid())
assert channel.receive() == 1
assert caught
group.terminate()
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdin=subprocess.DEVNULL, timeout=120)
