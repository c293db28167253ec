"""Programs that test_interrupt.py sends SIGINT to: ``python interrupted.py NAME``.

Each says on stdout that it is about to block, as a line of JSON, does so, and then says when
KeyboardInterrupt was raised (time.monotonic(), the same clock for all processes) and how things are
after it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable

import execnet
from belongings import children, eventually, stop


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def interrupted(call: Callable[[], object], **facts: object) -> None:
    """Blocks in the call until the parent's SIGINT."""
    say(about_to="block", **facts)
    try:
        call()
    except KeyboardInterrupt:
        at = time.monotonic()
    else:
        raise SystemExit("the call was not interrupted")
    say(interrupted_at=at)


def receive(group: execnet.Group) -> None:
    channel = group.makegateway("popen").remote_exec("channel.send(channel.receive())")
    interrupted(channel.receive)
    channel.send("goes on")
    say(after=channel.receive(timeout=60))


def receive_with_timeout(group: execnet.Group) -> None:
    channel = group.makegateway("popen").remote_exec("channel.send(channel.receive())")
    interrupted(lambda: channel.receive(timeout=50))
    channel.send("goes on")
    say(after=channel.receive(timeout=60))


def iteration(group: execnet.Group) -> None:
    channel = group.makegateway("popen").remote_exec("channel.send(channel.receive())")
    interrupted(lambda: list(channel))
    channel.send("goes on")
    say(after=channel.receive(timeout=60))


def receive_beside_another_thread(group: execnet.Group) -> None:
    """Another thread reads the connection. The main thread waits to be woken by it."""
    import threading

    gateway = group.makegateway("popen")
    channel, other = (gateway.remote_exec("channel.send(channel.receive())") for _ in range(2))
    thread = threading.Thread(target=other.receive)
    thread.start()
    interrupted(channel.receive)
    other.send(None)
    thread.join()
    channel.send("goes on")
    say(after=channel.receive(timeout=60))


def waitclose(group: execnet.Group) -> None:
    channel = group.makegateway("popen").remote_exec("channel.send(channel.receive())")
    interrupted(channel.waitclose)
    channel.send("goes on")
    say(after=channel.receive(timeout=60))


def join(group: execnet.Group) -> None:
    gateway = group.makegateway("popen")
    interrupted(gateway.join)
    say(after=gateway.remote_exec("channel.send('goes on')").receive(timeout=60))


def send(group: execnet.Group) -> None:
    """The worker is stopped, so nobody reads what is sent."""
    gateway = group.makegateway("popen")
    channel = gateway.remote_exec("channel.send(channel.receive())")
    pid = gateway._rinfo().pid
    stop(pid)
    try:
        interrupted(lambda: channel.send(b"x" * 20_000_000))
    finally:
        os.kill(pid, signal.SIGCONT)
    # What was interrupted never happened.
    channel.send("goes on")
    say(after=channel.receive(timeout=60))


def send_into_a_full_window(group: execnet.Group) -> None:
    gateway = group.makegateway("popen//window=1M")
    door = gateway.newchannel()
    channel = gateway.remote_exec("channel.receive().receive(); channel.receive(); channel.send(channel.receive())")
    channel.send(door)
    channel.send(b"x" * 1_000_000)
    interrupted(lambda: channel.send(b"y" * 100_000))
    door.send(None)
    # What was interrupted never happened.
    channel.send("goes on")
    say(after=channel.receive(timeout=60))


def terminate(group: execnet.Group) -> None:
    channel = group.makegateway("popen").remote_exec(
        "import signal; [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)]\n"
        "channel.send(1)\n"
        "while True: pass"
    )
    channel.receive()
    interrupted(group.terminate)
    group.terminate(timeout=0.1)
    # They are killed, but on a busy machine the kernel may take longer than terminate() waits for it.
    say(after="goes on" if eventually(lambda: not children()) else "processes are left")


def terminate_beside_another_thread(group: execnet.Group) -> None:
    """Both wait for one member and its callbacks; only the main thread is interrupted."""
    import threading

    channel = group.makegateway("popen").remote_exec(
        "import signal; [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)]\n"
        "channel.send(1)\n"
        "while True: pass"
    )
    channel.receive()
    channel.setcallback(lambda item: None, endmarker=None)
    other = threading.Thread(target=group.terminate, args=(5.0,))
    other.start()
    interrupted(group.terminate)
    other.join(60)
    assert not other.is_alive()
    say(after="goes on" if eventually(lambda: not children()) else "processes are left")


def makegateway(group: execnet.Group) -> None:
    interrupted(lambda: group.makegateway("popen//python=sh -c 'exec sleep 1000'"))
    if len(group) or not eventually(lambda: not children()):
        raise SystemExit("something is left of the gateway")
    say(after=group.makegateway("popen").remote_exec("channel.send('goes on')").receive(timeout=60))


def remote_status(group: execnet.Group) -> None:
    gateway = group.makegateway("popen")
    pid = gateway._rinfo().pid
    stop(pid)
    try:
        interrupted(gateway.remote_status)
    finally:
        os.kill(pid, signal.SIGCONT)
    say(after=gateway.remote_exec("channel.send('goes on')").receive(timeout=60))


PROGRAMS = {
    program.__name__: program
    for program in (
        receive,
        receive_with_timeout,
        iteration,
        receive_beside_another_thread,
        waitclose,
        join,
        send,
        send_into_a_full_window,
        terminate,
        terminate_beside_another_thread,
        makegateway,
        remote_status,
    )
}

if __name__ == "__main__":
    own_group = execnet.Group()
    PROGRAMS[sys.argv[1]](own_group)
    own_group.terminate(timeout=5.0)
    say(left=children())
