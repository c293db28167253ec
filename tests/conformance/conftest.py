"""Every test here that asks for `worker` runs with the native worker, with the pure worker of each interpreter, and
with workers behind proxies of both kinds, behind a socket, and of fork servers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

import execnet
import interpreters


@dataclass(frozen=True)
class Worker:
    """One kind of far end."""

    name: str
    spec: str
    group: execnet.Group
    proxy: str | None = None

    @property
    def gateway(self) -> execnet.Gateway:
        """The gateway to it that all tests share."""
        return self.group[self.name]

    @property
    def is_python2(self) -> bool:
        return self.name == "python2.7"

    @property
    def is_native(self) -> bool:
        return self.name in ("native", "native:gevent", "via-native", "preload-native", "preload-native:gevent")

    @property
    def has_stdout(self) -> bool:
        """Whether it has a stdout for what it prints. If the stream was on stdout, it prints to stderr."""
        return self.name not in ("via-pure", "socket")

    def make(self, group: execnet.Group, more: str) -> execnet.Gateway:
        """A gateway of this kind in a group, with the proxy that it needs."""
        if self.proxy is not None and execnet.XSpec(self.proxy).id not in group:
            group.makegateway(self.proxy)
        return group.makegateway(self.spec + ("//" if more else "") + more)


@pytest.fixture(scope="session")
def shared_group(long_lived: contextlib.ExitStack) -> execnet.Group:
    group = execnet.Group()
    long_lived.callback(group.terminate, timeout=5.0)
    return group


# name -> specification, and that of the proxy, if there is one
OTHER_WAYS = {
    "via-native": ("popen//via=native-proxy", "popen//id=native-proxy"),
    "via-pure": ("popen//via=pure-proxy", f"popen//python={shlex.quote(sys.executable)}//id=pure-proxy"),
    "socket": ("socket//installvia=native-proxy", "popen//id=native-proxy"),
    "preload-native": ("popen//preload=xml.dom.minidom,random", None),
    "preload-pure": (f"popen//preload=json//python={shlex.quote(sys.executable)}", None),
}

# EXECNET_TEST_WORKERS names the kinds to test: "native python3.11". Without it there is each kind, with the oldest
# interpreters, the last that have no native worker, and the own; EXECNET_TEST_ALL_VERSIONS adds those in between. Some
# kinds run code in greenlets, whose stacks sanitizers do not know.
OWN = "python{}.{}".format(*sys.version_info)
SAMPLE = ("python2.7", "python3.6", "python3.9", OWN, "pypy3")
VERSIONS = interpreters.NAMES if "EXECNET_TEST_ALL_VERSIONS" in os.environ else SAMPLE
KINDS = os.environ.get("EXECNET_TEST_WORKERS", " ".join(["native", *VERSIONS, *OTHER_WAYS])).split()
if "EXECNET_TEST_SANITIZER" not in os.environ:
    KINDS += [f"{kind}:gevent" for kind in ("native", OWN, "preload-native") if kind in KINDS]


@pytest.fixture(scope="session", params=KINDS)
def worker(request: pytest.FixtureRequest, shared_group: execnet.Group) -> Worker:
    name = request.param
    interpreter, _, execmodel = name.partition(":")
    spec, proxy = OTHER_WAYS.get(interpreter, ("popen", None))
    if interpreter != "native" and interpreter not in OTHER_WAYS:
        path = interpreters.find(interpreter)
        if path is None:
            pytest.skip(f"{interpreter}: not found")
        spec = f"popen//python={shlex.quote(path)}"
    if execmodel:
        if importlib.util.find_spec(execmodel) is None:
            pytest.skip(f"{execmodel}: not installed")
        spec += f"//execmodel={execmodel}"
    worker = Worker(name, spec, shared_group, proxy)
    if name not in shared_group:  # pytest sets a parameter up again when it comes back to it
        gateway = worker.make(shared_group, f"id={name}")

        # A gateway has a thread for callbacks from its first callback on, and that thread has an eventfd from its first
        # wait on. No single test may be blamed for them, so make both here. This wait times out.
        def wait(_: object) -> None:
            with pytest.raises(execnet.TimeoutError):
                gateway.newchannel().receive(timeout=0.001)

        channel = gateway.remote_exec("channel.send(1)")
        channel.setcallback(wait)
        channel.waitclose(timeout=20)
    return worker


@pytest.fixture(autouse=True)
def _not_in_greenlets(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("needs_threads") and ":" in request.node.callspec.params["worker"]:
        pytest.skip("its code blocks its thread, or asks for another one")


@pytest.fixture
def gw(worker: Worker) -> execnet.Gateway:
    """The shared gateway. A test that ends the worker or changes it permanently makes its own."""
    return worker.gateway


@pytest.fixture
def fresh(worker: Worker, group: execnet.Group) -> Callable[[str], execnet.Gateway]:
    """Makes a gateway to the same kind of worker for this test alone: ``fresh("nice=5")``."""
    return lambda more="": worker.make(group, more)


@pytest.fixture
def echo(worker: Worker) -> Iterator[execnet.Channel]:
    """A channel to a worker that sends back what it receives."""
    channel = worker.gateway.remote_exec("for item in channel: channel.send(item)")
    if worker.is_python2:
        channel.reconfigure(py2str_as_py3str=False)  # Its bytes are its strings.
    yield channel
    channel.close()
