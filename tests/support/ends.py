"""A program that ends while its daemon threads are in calls of the library: `python ends.py SEED DIRECTORY CALL...`.

Each call is made again and again by some threads. They are all busy when the program comes to its end, a random moment
later. Nothing that it does is wrong, so it is to end as any program does: status 0, nothing on stderr.
"""

from __future__ import annotations

import gc
import io
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import execnet

THREADS = 2  # for each call
LARGE = [[number, str(number), float(number)] for number in range(2000)]

FLOOD = "while not channel.isclosed(): channel.send(1)"
ECHO = "for item in channel: channel.send(item)"
SILENT = "channel.receive()"


class Dropped:
    """Has its memory collected by running code, as many objects of programs do."""

    def __init__(self) -> None:
        self.myself = self

    def __del__(self) -> None:
        sum(range(50))


def drop_cycles() -> None:
    for _ in range(20):
        Dropped()
    gc.collect(0)


class Calls:
    """What the threads do; each makes what it needs and returns the call that is made again and again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.group = execnet.Group(["popen"])

    def channel(self, source: str) -> execnet.Channel:
        return self.group[0].remote_exec(source)

    def receive(self) -> Callable[[], object]:
        channel = self.channel(SILENT)
        return lambda: channel.receive(timeout=0.001)

    def receive_for_ever(self) -> Callable[[], object]:
        return self.channel(SILENT).receive

    def converse(self) -> Callable[[], object]:
        channel = self.channel(ECHO)
        return lambda: (channel.send([1, "two", {3: 4.0}]), channel.receive())

    def iterate(self) -> Callable[[], object]:
        channel = self.channel(FLOOD)
        return lambda: [None for _ in channel]

    def waitclose(self) -> Callable[[], object]:
        channel = self.channel(SILENT)
        return lambda: channel.waitclose(timeout=0.001)

    def send(self) -> Callable[[], object]:
        channel = self.channel("import time\nwhile True: time.sleep(1000)")
        return lambda: channel.send(b"x" * 300_000, timeout=0.001)

    def send_for_ever(self) -> Callable[[], object]:
        channel = self.channel("import time\nwhile True: time.sleep(1000)")
        return lambda: channel.send(b"x" * 300_000)

    def remote_status(self) -> Callable[[], object]:
        return lambda: self.group[0].remote_status(timeout=0.01)

    def remote_exec(self) -> Callable[[], object]:
        return lambda: self.group[0].remote_exec("pass").close()

    def remote_exec_of_a_function(self) -> Callable[[], object]:
        return lambda: self.group[0].remote_exec(a_task, number=1).receive(timeout=1)

    def join(self) -> Callable[[], object]:
        return lambda: self.group[0].join(timeout=0.001)

    def describe(self) -> Callable[[], object]:
        gateway = self.group[0]
        return lambda: (repr(gateway), gateway.execmodel, gateway.hasreceiver(), gateway._rinfo().version_info)

    def receive_each(self) -> Callable[[], object]:
        return execnet.MultiChannel([self.channel(FLOOD), self.channel(FLOOD)]).receive_each

    def waitclose_all(self) -> Callable[[], object]:
        return lambda: self.group.remote_exec("pass").waitclose()

    def receive_queue(self) -> Callable[[], object]:
        queue = self.group.remote_exec(FLOOD).make_receive_queue()
        return lambda: queue.get(timeout=0.001)

    def callback(self) -> Callable[[], object]:
        channel = self.channel(FLOOD)
        channel.setcallback(lambda item: sum(range(200)), endmarker=None)
        return lambda: time.sleep(0.01)

    def callbacks(self) -> Callable[[], object]:
        def call() -> None:
            channel = self.channel("channel.send(1)")
            channel.setcallback(lambda item: drop_cycles(), endmarker=None)
            channel.waitclose(timeout=1)

        return call

    def makegateway(self) -> Callable[[], object]:
        return lambda: self.group.makegateway("popen").exit()

    def terminate(self) -> Callable[[], object]:
        group = execnet.Group()
        return lambda: (group.makegateway("popen"), group.terminate(timeout=0.5))

    def terminate_together(self) -> Callable[[], object]:
        group = execnet.Group(["popen"])
        group[0].remote_exec(FLOOD).setcallback(lambda item: None, endmarker=None)
        return lambda: (time.sleep(random.random() / 20), group.terminate(timeout=0.5))

    def rsync(self) -> Callable[[], object]:
        source, target = tempfile.mkdtemp(dir=self.directory), tempfile.mkdtemp(dir=self.directory)
        for number in range(20):
            (Path(source) / str(number)).write_bytes(bytes(1000))

        def call() -> None:
            sync = execnet.RSync(source, callback=lambda *args: drop_cycles(), verbose=False)
            sync.add_target(self.group[0], target, finishedcallback=drop_cycles)
            sync.send()

        return call

    def dumps(self) -> Callable[[], object]:
        return lambda: (drop_cycles(), execnet.dumps(LARGE))

    def loads(self) -> Callable[[], object]:
        data = execnet.dumps(LARGE)
        return lambda: (drop_cycles(), execnet.loads(data))

    def dump_and_load(self) -> Callable[[], object]:
        class Slow(io.BytesIO):
            def write(self, data: object) -> int:
                time.sleep(0)
                return super().write(data)  # type: ignore[arg-type]

            def read(self, size: int | None = -1) -> bytes:
                time.sleep(0)
                return super().read(size)

        def call() -> None:
            file = Slow()
            execnet.dump(file, LARGE[:50])
            file.seek(0)
            execnet.load(file)

        return call

    def file(self) -> Callable[[], object]:
        file = self.channel(ECHO).makefile("w")
        return lambda: file.write("text")

    def make_and_drop_channels(self) -> Callable[[], object]:
        return lambda: ([self.group[0].newchannel() for _ in range(10)], time.sleep(0.001))


def a_task(channel: execnet.Channel, number: int) -> None:
    channel.send(number)


CALLS = sorted(name for name, method in vars(Calls).items() if name not in ("__init__", "channel") and callable(method))


def again_and_again(call: Callable[[], object], running: threading.Semaphore) -> None:
    running.release()
    while True:
        try:
            call()
        except Exception:  # the gateways are gone before the threads are
            time.sleep(0.001)


def main() -> None:
    seed, directory, *names = sys.argv[1:]
    random.seed(int(seed))
    calls = Calls(Path(directory))
    running = threading.Semaphore(0)
    for call in [getattr(calls, name)() for name in names]:
        for _ in range(THREADS):
            threading.Thread(target=again_and_again, args=(call, running), daemon=True).start()
    for _ in range(THREADS * len(names)):
        running.acquire()
    time.sleep(random.random() * 0.05)
    if random.random() < 0.5:
        calls.group.terminate(timeout=0.5)


if __name__ == "__main__":
    main()
