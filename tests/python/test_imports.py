"""Importing execnet where it cannot be used, and importing it again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

PURGE = """
import sys
for name in [name for name in sys.modules if name.split(".")[0] == "execnet"]:
    del sys.modules[name]
"""


def run(source: str, status: int = 0) -> str:
    """What a program says that ends with that status."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    return done.stdout


SUBINTERPRETERS = """
import sys
import execnet
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

INSIDE = '''
import sys
sys.path[:] = {path!r}
try:
    import execnet
except ImportError as error:
    with open({said!r}, "w") as file:
        file.write(str(error))
'''

group = execnet.Group(["popen"])
channel = group[0].remote_exec("for item in channel: channel.send(item)")
said, isolated = sys.argv[1], sys.argv[2] == "isolated"
if sys.version_info >= (3, 13):
    inside = interpreters.create("isolated" if isolated else "legacy")
else:
    inside = interpreters.create(isolated=isolated)
interpreters.run_string(inside, INSIDE.format(path=sys.path, said=said))
interpreters.destroy(inside)

# The main one is as before.
channel.send(1)
assert channel.receive(timeout=60) == 1
assert execnet.loads(execnet.dumps([1, 2])) == [1, 2]
execnet.makegateway("popen")
try:
    execnet.loads(b"")
except execnet.LoadError:
    print("all is well")
"""


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_in_a_subinterpreter_execnet_says_where_to_import_it(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    said = tmp_path_factory.mktemp(kind) / "said"
    done = subprocess.run(
        [sys.executable, "-c", SUBINTERPRETERS, str(said), kind], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stderr
    assert said.read_text() == (
        "execnet cannot be imported in a subinterpreter: its types and threads belong to the main interpreter. "
        "Import and use it there, or run this code in a process of its own."
    )


USE_BOTH = """
import execnet
old = execnet
old_gateway = old.makegateway("popen")
old_group = old.Group(["popen"])
channel = old_gateway.remote_exec("for item in channel: channel.send(item)")
received = []
called_back = old_gateway.remote_exec("channel.send(channel.receive())")
called_back.setcallback(received.append)
{purge}
import execnet
assert execnet is not old
new_gateway = execnet.makegateway("popen")

# What was made before goes on, and what is made now works.
called_back.send("called back")
called_back.waitclose(60)
assert received == ["called back"]
channel.send(1)
assert channel.receive(timeout=60) == 1
assert old_gateway.remote_exec("channel.send(2)").receive(timeout=60) == 2
assert new_gateway.remote_exec("channel.send(3)").receive(timeout=60) == 3
assert execnet.Group(["popen"]).remote_exec("channel.send(4)").receive_each() == [4]
assert old_group.makegateway("popen").remote_exec("channel.send(5)").receive(timeout=60) == 5

# Types of the extension are the same as before; classes written in Python are new ones.
for name in ("Channel", "Gateway", "XSpec", "RemoteError", "GatewayGone", "TimeoutError", "DumpError", "LoadError"):
    assert getattr(execnet, name) is getattr(old, name), name
assert isinstance(old_gateway, execnet.Gateway)
for gateway in (old_gateway, new_gateway):
    for remote_error in (old.RemoteError, execnet.RemoteError):
        try:
            gateway.remote_exec("1/0").waitclose(60)
        except remote_error:
            pass
assert not isinstance(old_group, execnet.Group)
"""


def test_execnet_is_imported_again_and_what_was_made_before_goes_on() -> None:
    run(USE_BOTH.format(purge=PURGE) + "old_group.terminate(10)")


def test_the_end_of_the_program_ends_the_gateways_of_each_import() -> None:
    says = "print(*[gateway._rinfo().pid for gateway in (old_gateway, old_group[0], new_gateway)], flush=True)"
    ended = run(USE_BOTH.format(purge=PURGE) + says)
    for pid in ended.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_execnet_is_imported_again_and_again() -> None:
    run(
        "for number in range(20):\n"
        + textwrap.indent(PURGE, "    ")
        + "    import execnet\n"
        + "    assert execnet.makegateway('popen').remote_exec('channel.send(1)').receive(timeout=60) == 1\n"
        + "    execnet.default_group.terminate(10)\n"
    )
