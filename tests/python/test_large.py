"""Large bytes and strings are written from where they are, and released as soon as they are written."""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys

import pytest

import execnet
from belongings import eventually, stop

LENT = 64 * 1024  # bytes from which on nothing is copied
CHUNK = 256 * 1024  # what a frame carries at most
SIZES = [LENT - 1, LENT, LENT + 1, CHUNK - 7, CHUNK - 6, CHUNK, CHUNK + 1, 3 * CHUNK + 12345]
WORKERS = ["popen", f"popen//python={shlex.quote(sys.executable)}"]
ECHO = "for item in channel: channel.send(item)"


def values(size: int) -> list[object]:
    """Large items by themselves, and inside of others."""
    data = os.urandom(size)
    text = data.hex()[:size]
    umlauts = "\u00e4" * size
    return [
        data,
        text,
        umlauts,
        [1, data, "x", text, None],
        {"a": (data, data), b"b": [umlauts, data], "c": {"d": text}},
        [data[: size // 2], data, 3],
    ]


@pytest.mark.parametrize("size", SIZES)
def test_they_are_dumped_wherever_they_stand(size: int) -> None:
    for value in values(size):
        assert execnet.loads(execnet.dumps(value)) == value


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_they_are_sent_wherever_they_stand(worker: str, group: execnet.Group) -> None:
    channel = group.makegateway(worker).remote_exec(ECHO)
    for size in SIZES:
        for value in values(size):
            channel.send(value)
            assert channel.receive(timeout=60) == value


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_they_are_arguments_of_what_is_executed(worker: str, group: execnet.Group) -> None:
    channel = group.makegateway(worker).remote_exec(_length, data=b"x" * 3_000_000)
    assert channel.receive(timeout=60) == 3_000_000


def _length(channel, data):  # type: ignore[no-untyped-def]
    channel.send(len(data))


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_nobody_holds_them_afterwards(worker: str, group: execnet.Group) -> None:
    channel = group.makegateway(worker).remote_exec(ECHO)
    data, text = os.urandom(1_000_000), "x" * 1_000_000
    before = sys.getrefcount(data), sys.getrefcount(text)
    for _ in range(3):
        channel.send([data, text, data])
        channel.receive(timeout=60)
        execnet.dumps([data, text])
    assert (sys.getrefcount(data), sys.getrefcount(text)) == before
    with pytest.raises(execnet.DumpError):
        channel.send([data, object()])
    assert sys.getrefcount(data) == before[0]
    channel.close()
    with pytest.raises(OSError, match="closed"):
        channel.send(data)
    assert sys.getrefcount(data) == before[0]


def buffers() -> list[tuple[object, bytes]]:
    """Objects with the buffer protocol, small and large, and the bytes they hold."""
    pairs: list[tuple[object, bytes]] = []
    for size in (0, 12, 3 * CHUNK):
        data = os.urandom(size)
        pairs += [(bytearray(data), data), (memoryview(data), data), (memoryview(data)[::3], data[::3])]
        numbers = array.array("i", range(size))
        pairs += [(numbers, numbers.tobytes()), ((ctypes.c_int * size)(*range(size)), numbers.tobytes())]
    return pairs


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_what_has_the_buffer_protocol_arrives_as_bytes(worker: str, group: execnet.Group) -> None:
    channel = group.makegateway(worker).remote_exec(ECHO)
    for value, data in buffers():
        channel.send([value, {"key": value}])
        assert channel.receive(timeout=60) == [data, {"key": data}]


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_code_in_a_worker_sends_what_has_the_buffer_protocol(worker: str, group: execnet.Group) -> None:
    channel = group.makegateway(worker).remote_exec(
        "import array\n"
        "for size in channel:\n"
        "    data = bytearray(i % 251 for i in range(size))\n"
        "    channel.send([data, memoryview(data)[::2], array.array('b', [1, 2])])"
    )
    for size in (3, 300_000):
        data = bytes(i % 251 for i in range(size))
        channel.send(size)
        assert channel.receive(timeout=60) == [data, data[::2], b"\x01\x02"]


NUMBER = "import ctypes\nnumber = ctypes.c_int(3)  # has the buffer protocol, too, as NumPy's numbers have"


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_single_numbers_are_refused(worker: str, group: execnet.Group) -> None:
    gateway = group.makegateway(worker)
    channel = gateway.remote_exec(f"{NUMBER}\nchannel.send([0, number])")
    with pytest.raises(execnet.DumpError, match=r"c_int.* at \[1\]"):
        channel.send([0, ctypes.c_int(3)])
    with pytest.raises(execnet.RemoteError, match=r"c_int.* at \[1\]"):
        channel.receive(timeout=20)


def test_subclasses_of_bytes_are_refused_as_ever(gateway: execnet.Gateway) -> None:
    class Bytes(bytes):
        pass

    channel = gateway.remote_exec(ECHO)
    with pytest.raises(execnet.DumpError):
        channel.send(Bytes(b"x"))
    for value in (bytearray(b"x"), memoryview(b"x")):
        with pytest.raises(execnet.DumpError):
            execnet.dumps(value)  # which is the format of others, too


def test_a_buffer_is_let_go_of_when_it_is_written(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec(ECHO)
    data = bytearray(os.urandom(1_000_000))
    channel.send(data)
    data.extend(b"which is refused while somebody looks at it")
    assert channel.receive(timeout=60) == data[:1_000_000]


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_large_bytes_are_received_as_views(worker: str, group: execnet.Group) -> None:
    channel = group.makegateway(worker).remote_exec(ECHO)
    small, large = b"s" * (LENT - 20), os.urandom(3 * CHUNK)
    for value in (large, [small, large, {"a": large, large: "as a key"}], (small, "x" * LENT), small):
        channel.send(value)
        received = channel.receive(timeout=60, views=True)
        assert received == value
        assert repr(received).count("<memory") == repr(value).count(repr(large))
    channel.send(large)
    view = channel.receive(timeout=60, views=True)
    assert (view.readonly, view.format, view.ndim) == (True, "B", 1)
    part = view[5:10]
    del view
    assert bytes(part) == large[5:10]
    with pytest.raises(TypeError):
        part[0] = 1
    channel.send(view_of := memoryview(large))  # and can be sent on
    assert channel.receive(timeout=60) == view_of


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("worker", WORKERS, ids=["native", "pure"])
def test_a_send_that_is_interrupted_keeps_what_it_has_begun_to_write(worker: str, group: execnet.Group) -> None:
    """Either the whole item arrives or nothing, even if its sender has dropped it meanwhile."""
    gateway = group.makegateway(worker)
    channel = gateway.remote_exec(ECHO)
    channel.send(0)
    assert channel.receive(timeout=20) == 0
    pid = gateway._rinfo().pid
    stop(pid)

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for byte in b"abc":
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted):
                channel.send([bytes([byte]) * 20_000_000])
    finally:
        signal.signal(signal.SIGALRM, before)
    os.kill(pid, signal.SIGCONT)
    channel.send("after")
    items = []
    while not items or items[-1] != "after":
        items.append(channel.receive(timeout=60))
    for item in items[:-1]:
        assert len(item[0]) == 20_000_000
        assert len(set(item[0])) == 1


def test_what_waits_in_a_dead_gateway_is_let_go_of(group: execnet.Group) -> None:
    gateway = group.makegateway()
    channel = gateway.remote_exec(ECHO)
    channel.send(0)
    channel.receive(timeout=20)
    pid = gateway._rinfo().pid
    stop(pid)
    data = os.urandom(20_000_000)
    before = sys.getrefcount(data)
    held = signal.signal(signal.SIGALRM, lambda number, frame: os.kill(pid, signal.SIGKILL))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(OSError, match="SIGKILL"):
            channel.send(data)
    finally:
        signal.signal(signal.SIGALRM, held)

    def is_let_go_of() -> bool:
        execnet.dumps(0)  # drops what has come back
        return sys.getrefcount(data) == before

    assert eventually(is_let_go_of)


# --- In little memory ---

MEGABYTE = 1 << 20
BOUND = """
def bound(megabytes):
    "So much more than there is; none: as much as there was."
    import resource
    pages = int(open("/proc/self/statm").read().split()[0])
    most = resource.RLIM_INFINITY if megabytes is None else pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
"""
RECEIVES_IN_LITTLE_MEMORY = BOUND + "bound(channel.receive())\nchannel.send(len(channel.receive()))"
# Megabytes for an item of 192: what was received, the object made of it, and what the allocator reserves for a thread
# (64, and as much again for a moment). Three times the item is more.
LITTLE = 2 * 192 + 128 + 48
ECHO_ONCE = "channel.send(channel.receive())"
little_memory = pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="a sanitizer takes it all")


def program(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", BOUND + text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@little_memory
def test_the_coordinator_takes_little_more_memory_than_an_item_has() -> None:
    said = program(f"""
import execnet
channel = execnet.makegateway("popen").remote_exec("channel.send(b'x' * {192 * MEGABYTE}); channel.receive()")
bound({LITTLE})
print(len(channel.receive(timeout=60)))
""")
    assert said == f"{192 * MEGABYTE}\n"


@little_memory
def test_a_worker_takes_little_more_memory_than_an_item_has(group: execnet.Group) -> None:
    channel = group.makegateway("popen").remote_exec(RECEIVES_IN_LITTLE_MEMORY)
    channel.send(LITTLE)
    channel.send(b"x" * (192 * MEGABYTE))
    assert channel.receive(timeout=60) == 192 * MEGABYTE


@little_memory
def test_an_item_that_is_too_large_for_the_coordinator_ends_its_gateway_only() -> None:
    said = program(f"""
import execnet
group = execnet.Group(["popen", "popen"])
def echo():
    channel = group[1].remote_exec({ECHO_ONCE!r})
    channel.send(41)
    return channel.receive(timeout=60)
echo()
channel = group[0].remote_exec("channel.send(b'x' * {192 * MEGABYTE}); channel.receive()")
bound(64)
try:
    channel.receive(timeout=60)
except execnet.GatewayGone as error:
    assert "there is no memory for" in str(error), error
    bound(None)
    print(echo(), group[0].hasreceiver())
""")
    assert said == "41 False\n"


@little_memory
@pytest.mark.parametrize(
    ("worker", "cause"), [(WORKERS[0], "there is no memory for"), (WORKERS[1], "MemoryError")], ids=["native", "pure"]
)
def test_an_item_that_is_too_large_for_a_worker_ends_its_gateway_with_that_cause(
    worker: str, cause: str, group: execnet.Group
) -> None:
    channel = group.makegateway(worker).remote_exec(RECEIVES_IN_LITTLE_MEMORY)
    channel.send(64)
    with contextlib.suppress(execnet.GatewayGone):  # it may be gone before all is sent
        channel.send(b"x" * (192 * MEGABYTE))
    with pytest.raises(execnet.GatewayGone) as caught:
        channel.receive(timeout=60)
    assert cause in str(caught.value)
