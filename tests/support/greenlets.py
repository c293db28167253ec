"""Programs that test_green.py runs: ``python greenlets.py NAME PACKAGE HOW WORKER``.

PACKAGE is gevent or eventlet. HOW is how the coordinator comes to greenlets: ``chosen`` as execution
model of its group, ``patched`` by monkey-patching, or ``patched-late``, after the import of execnet.
WORKER is native or pure.

What waits here is released by another greenlet, after that has run for a while. If a call blocked its
thread, that would never be.
"""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from belongings import children, eventually, sleeps, stop

if TYPE_CHECKING:
    import execnet

NAME, PACKAGE, HOW, WORKER = sys.argv[1:] if len(sys.argv) == 5 else ("", "gevent", "chosen", "native")
BIG = 20_000_000


def monkey_patch() -> None:
    if PACKAGE == "gevent":
        importlib.import_module("gevent.monkey").patch_all()
    else:
        importlib.import_module("eventlet").monkey_patch()


if HOW == "patched":
    monkey_patch()
if not TYPE_CHECKING:
    execnet = importlib.import_module("execnet")
if HOW == "patched-late":
    monkey_patch()

green: Any = importlib.import_module(PACKAGE) if NAME else None


def popen(more: str = "") -> str:
    return ("popen" if WORKER == "native" else f"popen//python={shlex.quote(sys.executable)}") + more


def turns(count: int = 50) -> None:
    """Lets other greenlets run so many times."""
    for _ in range(count):
        green.sleep(0)


def released(call: Callable[[], Any], release: Callable[[], object]) -> Any:
    """What the call returns. The call has to wait until another greenlet has called `release`."""
    over = []

    def releaser() -> None:
        turns()
        assert not over, "the call did not wait"
        release()

    greenlet = green.spawn(releaser)
    result = call()
    over.append(True)
    finish(greenlet)
    return result


def raised(kind: type[BaseException], call: Callable[[], object]) -> str:
    """The text of what the call raises."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def finish(greenlet: Any) -> Any:
    """The result of a greenlet."""
    return greenlet.get() if PACKAGE == "gevent" else greenlet.wait()


def kill(greenlet: Any) -> None:
    greenlet.kill()


class Stopped:
    """A worker that takes nothing until go()."""

    def __init__(self, gateway: execnet.Gateway) -> None:
        self.pid = gateway._rinfo().pid
        stop(self.pid)

    def go(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Gate:
    """A named pipe that programs read to wait for open()."""

    def __init__(self) -> None:
        self.path = os.path.join(tempfile.mkdtemp(), "gate")
        os.mkfifo(self.path)

    def open(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR)
        os.write(descriptor, b"\n")
        self.descriptor = descriptor  # stays open until the reader has it

    def remove(self) -> None:
        os.close(self.descriptor)
        os.remove(self.path)
        os.rmdir(os.path.dirname(self.path))


ECHO = "for item in channel: channel.send(item)"


# --- The coordinator's side ---------------------------------------------------------------------------


def receive(group: execnet.Group) -> None:
    channel = group.makegateway(popen()).remote_exec(ECHO)
    assert released(channel.receive, lambda: channel.send(41)) == 41
    assert released(lambda: channel.receive(timeout=50), lambda: channel.send(42)) == 42
    assert released(lambda: next(channel), lambda: channel.send(43)) == 43


def receive_with_timeout(group: execnet.Group) -> None:
    channel = group.makegateway(popen()).remote_exec(ECHO)
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(1)
            green.sleep(0.001)

    ticker = green.spawn(tick)
    raised(execnet.TimeoutError, lambda: channel.receive(timeout=0.2))
    while len(ticks) <= 5:  # the others did not run at all, or the machine had no time for them
        before = len(ticks)
        raised(execnet.TimeoutError, lambda: channel.receive(timeout=2.0))
        assert len(ticks) > before
    kill(ticker)
    channel.send(1)
    assert channel.receive(timeout=20) == 1


def waitclose(group: execnet.Group) -> None:
    channel = group.makegateway(popen()).remote_exec("channel.receive()")
    released(channel.waitclose, lambda: channel.send(1))


def join(group: execnet.Group) -> None:
    gateway = group.makegateway(popen())
    released(gateway.join, gateway.exit)
    assert not gateway.hasreceiver()


def send(group: execnet.Group) -> None:
    gateway = group.makegateway(popen())
    channel = gateway.remote_exec("channel.send(len(channel.receive()))")
    released(lambda: channel.send(b"x" * BIG), Stopped(gateway).go)
    assert channel.receive(timeout=20) == BIG


def send_into_a_full_window(group: execnet.Group) -> None:
    gateway = group.makegateway(popen("//window=1M"))
    door = gateway.newchannel()
    channel = gateway.remote_exec("channel.receive().receive(); channel.send(sum(len(item) for item in channel))")
    channel.send(door)
    channel.send(b"x" * 1_000_000)
    raised(execnet.TimeoutError, lambda: channel.send(b"y" * 100_000, timeout=0.05))
    raised(green.Timeout, lambda: timed(lambda: channel.send(b"y" * 100_000)))
    greenlet = green.spawn(channel.send, b"y" * 100_000)
    turns()
    kill(greenlet)
    released(lambda: channel.send(b"z" * 100_000), lambda: door.send(None))
    assert channel.outstanding <= 1_100_012


def remote_exec(group: execnet.Group) -> None:
    gateway = group.makegateway(popen())
    source = "channel.send(7)\n#" + "x" * BIG
    channel = released(lambda: gateway.remote_exec(source), Stopped(gateway).go)
    assert channel.receive(timeout=20) == 7


def remote_status(group: execnet.Group) -> None:
    gateway = group.makegateway(popen())
    assert released(gateway.remote_status, Stopped(gateway).go).numexecuting == 0


def makegateway(group: execnet.Group) -> None:
    gate = Gate()
    python = f"sh -c 'read x <{gate.path}; exec {sys.executable} \"$@\"' sh"
    gateway = released(lambda: group.makegateway(f"popen//python={python}"), gate.open)
    assert gateway.remote_exec("channel.send(1)").receive(timeout=20) == 1
    gate.remove()


def installvia(group: execnet.Group) -> None:
    host = Stopped(group.makegateway(popen("//id=host")))
    gateway = released(lambda: group.makegateway("socket//installvia=host"), host.go)
    assert gateway.remote_exec("channel.send(1)").receive(timeout=20) == 1


def rsync(group: execnet.Group) -> None:
    """For a gateway whose callbacks run in a greenlet, and for one without callbacks, which later has them there."""
    first, second = group.makegateway(popen()), group.makegateway(popen())
    items: list[object] = []
    first.remote_exec("channel.send(1)").setcallback(items.append, endmarker=None)
    with tempfile.TemporaryDirectory() as directory:
        source = os.path.join(directory, "source")
        with open(source, "wb") as file:
            file.write(b"x" * BIG)
        sync = execnet.RSync(source, verbose=False)
        for gateway in (first, second):
            sync.add_target(gateway, os.path.join(directory, gateway.id))
        stopped = Stopped(second)
        released(sync.send, stopped.go)
        for gateway in (first, second):
            assert os.path.getsize(os.path.join(directory, gateway.id)) == BIG
    assert items == [1, None]
    second.remote_exec("channel.send(1)").setcallback(lambda _: items.append(threading.get_native_id()), 3)
    while len(items) < 4:
        green.sleep(0.001)
    assert items[2:] == [os.getpid()] * 2


def terminate(group: execnet.Group) -> None:
    gate = Gate()
    gateway = group.makegateway(popen("//execmodel=thread"))
    channel = gateway.remote_exec(f"channel.send(1); open({gate.path!r}).readline()")
    channel.receive(timeout=20)
    released(lambda: group.terminate(timeout=50), gate.open)
    gate.remove()
    assert not children()


def terminate_beside_a_thread(group: execnet.Group) -> None:
    """A thread and a greenlet wait for one member and its callbacks; the greenlet is told to stop, and tries again."""
    gate = Gate()
    channel = group.makegateway(popen("//execmodel=thread")).remote_exec(
        f"channel.send(1); open({gate.path!r}).readline()"
    )
    channel.receive(timeout=20)
    channel.setcallback(lambda item: None, endmarker=None)
    other = threading.Thread(target=group.terminate, args=(50,))
    other.start()
    raised(green.Timeout, lambda: timed(lambda: group.terminate(timeout=50)))
    released(lambda: group.terminate(timeout=50), gate.open)
    while other.is_alive():
        green.sleep(0.01)
    gate.remove()
    assert not children()


def failed_start(group: execnet.Group) -> None:
    gate = Gate()
    python = f"sh -c 'read x <{gate.path}; echo no luck >&2; exit 3'"

    def fail() -> str:
        return raised(execnet.HostNotFound, lambda: group.makegateway(f"popen//python={python}"))

    assert "no luck" in released(fail, gate.open)
    gate.remove()


def many_wait(group: execnet.Group) -> None:
    """A hundred greenlets wait, and no thread is started for them."""
    gateway = group.makegateway(popen("//execmodel=thread"))
    channel = gateway.remote_exec(
        "channels = channel.receive()\nfor i, other in enumerate(channels): other.send(i)\nchannel.receive()"
    )
    channels = [gateway.newchannel() for _ in range(100)]
    greenlets = [green.spawn(other.receive) for other in channels]
    turns()
    threads = len(os.listdir("/proc/self/task"))
    channel.send(channels)
    assert [finish(greenlet) for greenlet in greenlets] == list(range(100))
    assert len(os.listdir("/proc/self/task")) == threads
    channel.send(None)


def timed(call: Callable[[], object]) -> None:
    with green.Timeout(0.05):
        call()


def timeouts_and_kills(group: execnet.Group) -> None:
    """An exception in a waiting greenlet ends the wait, and nothing else."""
    channel = group.makegateway(popen()).remote_exec(ECHO)
    for call in (channel.receive, channel.waitclose, channel.gateway.join):
        raised(green.Timeout, lambda call=call: timed(call))
        ended = []

        def waiter(call: Callable[[], object] = call, ended: list[int] = ended) -> None:
            try:
                call()
            finally:
                ended.append(1)

        greenlet = green.spawn(waiter)
        turns()
        kill(greenlet)
        turns()
        assert ended
    channel.send("goes on")
    assert channel.receive(timeout=20) == "goes on"


def send_is_taken_back(group: execnet.Group) -> None:
    gateway = group.makegateway(popen())
    channel = gateway.remote_exec(ECHO)
    stopped = Stopped(gateway)
    raised(green.Timeout, lambda: timed(lambda: channel.send(b"x" * BIG)))
    greenlet = green.spawn(channel.send, b"y" * BIG)
    turns()
    kill(greenlet)
    stopped.go()
    channel.send("goes on")
    assert channel.receive(timeout=20) == "goes on"


def lost_worker(group: execnet.Group) -> None:
    gateway = group.makegateway(popen())
    channel = gateway.remote_exec("channel.receive()")

    def lose() -> str:
        return raised(execnet.GatewayGone, channel.receive)

    assert "SIGKILL" in released(lose, lambda: os.kill(gateway._rinfo().pid, signal.SIGKILL))


def callbacks(group: execnet.Group) -> None:
    """Callbacks run in the thread of the hub, in order, one at a time, and may wait."""
    gateway = group.makegateway(popen())
    calls: list[object] = []
    running = []

    def callback(item: object) -> None:
        assert not running
        running.append(item)
        turns(5)
        if item is not None:  # for the gateway that it is called for
            assert gateway.remote_exec(f"channel.send({item} + 1)").receive(timeout=20) == item + 1  # type: ignore[operator]
        calls.append((item, threading.get_native_id()))
        running.clear()

    channel = gateway.remote_exec("for i in range(5): channel.send(i)")
    channel.setcallback(callback, endmarker=None)
    channel.waitclose(timeout=20)
    assert calls == [(item, os.getpid()) for item in (0, 1, 2, 3, 4, None)], calls

    channel = gateway.remote_exec("channel.send(1)")
    channel.setcallback(lambda _: 1 / 0)
    assert "ZeroDivisionError" in raised(execnet.RemoteError, lambda: channel.waitclose(timeout=20))


def callbacks_get_the_end(group: execnet.Group) -> None:
    channel = group.makegateway(popen()).remote_exec("channel.receive()")
    items: list[object] = []
    channel.setcallback(items.append, endmarker="the end")
    group.terminate(timeout=20)
    assert items == ["the end"]


def output(group: execnet.Group) -> None:
    """What a worker prints is taken in the thread of the hub, and who takes it may wait."""
    calls: list[object] = []

    def take(text: str) -> None:
        turns(5)
        calls.append((text, threading.get_native_id()))

    spec = execnet.XSpec(popen())
    spec.stdout = take
    gateway = group.makegateway(spec)
    gateway.remote_exec("print('printed'); channel.send(1)").receive(timeout=20)
    group.terminate(timeout=20)
    assert calls == [("printed\n", os.getpid())], calls


def receive_queue(group: execnet.Group) -> None:
    gateway = group.makegateway(popen())
    channels = execnet.MultiChannel([gateway.remote_exec(f"channel.send({i})") for i in range(3)])
    received = channels.make_receive_queue(endmarker=None)
    if HOW == "chosen":
        assert any(base.__module__.startswith(PACKAGE) for base in type(received).__mro__)
    items = [received.get(timeout=20) for _ in range(6)]
    for i, channel in enumerate(channels):
        assert [item for source, item in items if source is channel] == [i, None]


def other_thread(group: execnet.Group) -> None:
    """A thread without a hub blocks, and prevents no greenlet from running."""
    if PACKAGE == "gevent":
        start_thread = importlib.import_module("gevent.monkey").get_original("_thread", "start_new_thread")
    else:
        start_thread = importlib.import_module("eventlet.patcher").original("_thread").start_new_thread
    channel = group.makegateway(popen()).remote_exec(ECHO)
    results: list[object] = []
    start_thread(lambda: results.append(channel.receive()), ())
    turns()
    assert not results
    channel.send(5)
    while not results:
        green.sleep(0.001)
    assert results == [5]


def forked(group: execnet.Group) -> None:
    channel = group.makegateway(popen()).remote_exec(ECHO)
    waiter = green.spawn(channel.receive)
    turns()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            channel.send(1)
        except execnet.GatewayGone:
            status = 0
        finally:
            os._exit(status)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        green.sleep(0.001)
    assert status == 0
    channel.send(2)
    assert finish(waiter) == 2


def left_waiting(group: execnet.Group) -> None:
    """The interpreter ends although greenlets wait, and a gateway with a callback is alive."""
    gateway = group.makegateway(popen())
    for _ in range(3):
        green.spawn(gateway.remote_exec("channel.receive()").receive)
    channel = gateway.remote_exec("channel.receive()")
    channel.setcallback(print, endmarker="told the end")
    turns()
    print(gateway._rinfo().pid, flush=True)


# --- The worker's side --------------------------------------------------------------------------------


def there(group: execnet.Group) -> execnet.Gateway:
    return group.makegateway(popen(f"//execmodel={PACKAGE}"))


def tasks_interleave(group: execnet.Group) -> None:
    gateway = there(group)
    source = "import threading\nchannel.send(threading.get_ident())\nfor item in channel: channel.send(item)"
    first, second = gateway.remote_exec(source), gateway.remote_exec(source)
    assert first.receive(timeout=20) == second.receive(timeout=20)
    for item in range(3):
        for channel in (first, second):
            channel.send(item)
            assert channel.receive(timeout=20) == item
    status = gateway.remote_status()
    assert (status.numexecuting, status.execmodel) == (2, PACKAGE)
    for channel in (first, second):
        channel.close()
    while gateway.remote_status().numexecuting:
        pass


def task_waits_in_every_way(group: execnet.Group) -> None:
    """One task waits; another one, in the same thread, releases it."""
    gateway = there(group)
    gateway.remote_exec("import sys; sys.shared = []").waitclose(timeout=20)
    channel = gateway.remote_exec(
        f"""
        import sys
        sys.shared.append("about to wait")
        try:
            channel.receive(timeout=0.05)
        except channel.TimeoutError:
            channel.send("late")
        channel.send(channel.receive())
        channel.send(len(channel.receive()))
        channel.send(b"x" * {BIG})
        other = channel.gateway.newchannel()
        channel.send(other)
        other.waitclose()
        event = channel.gateway.execmodel.Event()
        sys.shared.append(event)
        channel.send(channel.gateway.execmodel.backend)
        event.wait()
        channel.send("released")
        """
    )
    assert channel.receive(timeout=20) == "late"
    channel.send(1)
    assert channel.receive(timeout=20) == 1
    channel.send(b"x" * BIG)
    assert channel.receive(timeout=20) == BIG
    assert len(channel.receive(timeout=20)) == BIG
    channel.receive(timeout=20).close()
    assert channel.receive(timeout=20) == PACKAGE
    gateway.remote_exec("import sys; sys.shared[-1].set()").waitclose(timeout=20)
    assert channel.receive(timeout=20) == "released"


def callbacks_there(group: execnet.Group) -> None:
    channel = there(group).remote_exec(
        """
        import threading
        model = channel.gateway.execmodel
        end, main, items = model.Event(), threading.get_ident(), model.queue.Queue()
        def callback(item):
            model.sleep(0)
            items.put((item, threading.get_ident() == main))
            if item is None:
                end.set()
        other = channel.gateway.newchannel()
        other.setcallback(callback, endmarker=None)
        channel.send(other)
        end.wait()
        channel.send([items.get() for _ in range(3)])
        model.RLock(), model.get_ident(), model.subprocess.Popen, model.socket.socket
        model.start(channel.send, ("started",))
        model.sleep(0.001)
        """
    )
    other = channel.receive(timeout=20)
    other.send(1)
    other.send(2)
    other.close()
    assert channel.receive(timeout=20) == [(1, True), (2, True), (None, True)]
    assert channel.receive(timeout=20) == "started"


def errors_there(group: execnet.Group) -> None:
    gateway = there(group)
    channel = gateway.remote_exec("def f():\n    raise ValueError(17)\nf()")
    trace = raised(execnet.RemoteError, lambda: channel.receive(timeout=20))
    assert "ValueError: 17" in trace
    assert "in f" in trace
    assert "greenlet" not in trace
    channel = gateway.remote_exec("channel.send(1)\nother = channel.receive()\nother.setcallback(lambda item: 1 / 0)")
    channel.receive(timeout=20)
    other = gateway.newchannel()
    channel.send(other)
    other.send(1)
    assert "ZeroDivisionError" in raised(execnet.RemoteError, lambda: other.waitclose(timeout=20))


def interrupt_there(group: execnet.Group) -> None:
    """Ctrl-C interrupts the running code. The worker goes on."""
    gateway = there(group)
    # Items have arrived before send() returns.
    source = "try: channel.send(1); channel.receive()\nexcept KeyboardInterrupt: channel.send('interrupted')"
    channels = [gateway.remote_exec(source) for _ in range(2)]
    for channel in channels:
        assert channel.receive(timeout=20) == 1
    pid = gateway._rinfo().pid
    assert eventually(lambda: sleeps(pid), 20)
    os.kill(pid, signal.SIGINT)
    for channel in channels:
        assert channel.receive(timeout=20) == "interrupted"
        channel.waitclose(timeout=20)
    assert gateway.remote_exec("channel.send(2)").receive(timeout=20) == 2


def terminate_there(group: execnet.Group) -> None:
    """When the worker is told to end, waiting code gets EOF. Its last item still arrives, and the worker ends."""
    gateway = there(group)
    channel = gateway.remote_exec(
        "channel.send(1)\n"
        "try: channel.receive()\n"
        "except EOFError: channel.send('the end')\n"
        "channel.gateway.execmodel.sleep(0.01)"
    )
    assert channel.receive(timeout=20) == 1
    gateway.exit()
    assert channel.receive(timeout=20) == "the end"
    gateway.join(timeout=20)


def lost_coordinator(group: execnet.Group) -> None:
    """A worker whose coordinator is gone ends, whatever its greenlets do."""
    gateway = there(group)
    gateway.remote_exec(
        "channel.send(1)\nwhile True:\n  try: channel.gateway.execmodel.sleep(1000)\n  except BaseException: pass"
    ).receive(timeout=20)
    print(gateway._rinfo().pid, flush=True)
    os._exit(0)


HERE = (
    receive,
    receive_with_timeout,
    waitclose,
    join,
    send,
    send_into_a_full_window,
    remote_exec,
    remote_status,
    makegateway,
    installvia,
    rsync,
    terminate,
    terminate_beside_a_thread,
    failed_start,
    many_wait,
    timeouts_and_kills,
    send_is_taken_back,
    lost_worker,
    callbacks,
    callbacks_get_the_end,
    output,
    receive_queue,
    other_thread,
    forked,
)
MONKEY_PATCHED = (
    receive,
    send,
    send_into_a_full_window,
    makegateway,
    terminate,
    callbacks,
    output,
    receive_queue,
    other_thread,
)
BY_HUB = (receive_with_timeout, timeouts_and_kills, *MONKEY_PATCHED)  # where packages can differ
THERE = (
    tasks_interleave,
    task_waits_in_every_way,
    callbacks_there,
    errors_there,
    interrupt_there,
    terminate_there,
)
ENDS = (left_waiting, lost_coordinator)

if __name__ == "__main__":
    the_group = execnet.Group()
    if HOW == "chosen":
        the_group.set_execmodel(PACKAGE, "thread")
    program = {program.__name__: program for program in HERE + THERE + ENDS}[NAME]
    program(the_group)
    if program not in ENDS:
        the_group.terminate(timeout=5.0)
        assert not children(), children()
        print("passed")
