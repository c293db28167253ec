"""Uses every public name of execnet once and prints the results.

Run by test_every_name.py with this execnet and with the released one: the output must be the same, but
for the lines that begin with "differs:".
"""

import io
import os
import queue
import sys
import tempfile
import threading

import execnet
from execnet import gateway, gateway_base, gateway_bootstrap, gateway_io, multi, rsync, xspec


def show(what, *values):
    print(what + ":", *(repr(value) if not isinstance(value, type) else value.__name__ for value in values))


def raised(function, *arguments, **named):
    """The name of the exception that a call raises, and its usual base classes."""
    try:
        function(*arguments, **named)
    except Exception as error:
        families = [kind.__name__ for kind in (OSError, EOFError, ValueError, KeyError) if isinstance(error, kind)]
        return type(error).__name__, families
    return "nothing", []


# --- Names and where they are found ---
show("version", tuple(map(int, execnet.__version__.split(".")[:2])) >= (2, 1))
show("same Channel", gateway_base.Channel is execnet.Channel, execnet.Channel.RemoteError is execnet.RemoteError)
show("same errors", gateway_base.TimeoutError is execnet.TimeoutError, gateway_base.DumpError is execnet.DumpError)
show("same Group", multi.Group is execnet.Group, multi.MultiChannel is execnet.MultiChannel)
show("same XSpec", xspec.XSpec is execnet.XSpec, rsync.RSync is execnet.RSync)
show("same HostNotFound", gateway_bootstrap.HostNotFound is execnet.HostNotFound)
show(
    "bases",
    issubclass(execnet.DumpError, execnet.DataFormatError),
    issubclass(execnet.LoadError, execnet.DataFormatError),
)
show("default", execnet.makegateway == execnet.default_group.makegateway, len(execnet.default_group))

# --- Specifications ---
spec = execnet.XSpec("popen//id=one//chdir=there//env:NAME=value//dont_write_bytecode//own=1")
show("spec", spec.popen, spec.id, spec.chdir, spec.env, spec.dont_write_bytecode, spec.own, spec.nice, spec.ssh)
show("spec text", str(spec), spec._spec, spec == execnet.XSpec(str(spec)), hash(spec) == hash(str(spec)))
show("spec repr", repr(execnet.XSpec("popen//id=one")))  # docs/compatibility.md has what it says of a variable
show("spec files", execnet.XSpec("popen")._samefilesystem(), execnet.XSpec("ssh=there")._samefilesystem())
show("spec errors", raised(execnet.XSpec, "popen//popen"))
show("argv", gateway_io.popen_args(execnet.XSpec("popen//python=py -3"))[:3], "-c" in gateway_io.popen_args(spec))
show(
    "argv ssh", gateway_io.ssh_args(execnet.XSpec("ssh=-p 22 host"))[0], isinstance(gateway_io.popen_bootstrapline, str)
)
show("argv vagrant", gateway_io.vagrant_ssh_args(execnet.XSpec("vagrant_ssh=box"))[:3])

# --- Values ---
values = [None, True, 1, -(2**31), 2**80, 1.5, 2j, b"b", "\xe9", [1, [2]], (1,), {"a": {1: 2}}, {1}, frozenset({2})]
show("dumps", execnet.dumps(values).hex(), execnet.loads(execnet.dumps(values)) == values)
file = io.BytesIO()
execnet.dump(file, values)
show("dump", file.getvalue() == execnet.dumps(values), execnet.load(io.BytesIO(file.getvalue())) == values)
show("python 2", execnet.loads(b"\x02M\0\0\0\1aQ"), execnet.loads(b"\x02M\0\0\0\1aQ", py2str_as_py3str=True))
show("as python 2", execnet.loads(execnet.dumps("a"), py3str_as_py2str=True))
show("internal", gateway_base.dumps_internal(7), gateway_base.loads_internal(gateway_base.dumps_internal(7)))
show("serializer", gateway_base._Serializer().save(["x"]), gateway_base.Unserializer(io.BytesIO(b"F\0\0\0\7Q")).load())
show("opcodes", gateway_base.opcode.BUILDTUPLE, gateway_base.opcode.COMPLEX, gateway_base.DUMPFORMAT_VERSION)
show("bad values", raised(execnet.dumps, object()), raised(execnet.loads, b"\x02\xffQ"))

show("by name", execnet.loads(execnet.dumps(type("bool", (), {})())), raised(execnet.dumps, type("bool_", (), {})()))

# --- Groups ---
group = execnet.Group(["popen//id=first", "popen"], execmodel="thread")
show(
    "group", len(group), [member.id for member in group], "first" in group, group[0] in group, group["gw0"] is group[1]
)
show("group errors", raised(lambda: group["nobody"]), raised(lambda: group[7])[0])
show("group models", group.execmodel.backend, group.remote_execmodel.backend, repr(group), group.defaultspec)
show("group execmodel", raised(group.set_execmodel, "thread"), raised(gateway_base.get_execmodel, "nonsense")[1])
free = execnet.XSpec("popen")
group.allocate_id(free)
show("allocated", free.id)

# --- Execution ---
first = group["first"]
first.mark = "of mine"
show("gateway", isinstance(first, execnet.Gateway), first.id, str(first.spec), first.spec.execmodel, first.mark)
show("alive", first.hasreceiver(), first.execmodel.backend, raised(lambda: first.remoteaddress)[0])
info = first._rinfo()
show(
    "rinfo",
    info.executable == sys.executable,
    info.version_info == sys.version_info[:],
    info.cwd == os.getcwd(),
    info.platform,
)
show(
    "other pid",
    info.pid != os.getpid(),
    first.remote_exec("import os; channel.send(os.getpid())").receive() == info.pid,
)


def double(channel, number, add=0):
    channel.send(number * 2 + add)


show("function", first.remote_exec(double, number=20, add=2).receive())
show("module", sorted(first.remote_exec(gateway.rinfo_source).receive()))
show("refused", raised(first.remote_exec, lambda channel: 1), raised(first.remote_exec, show)[1])
status = first.remote_status()
show("status", isinstance(status.numexecuting, int), status.execmodel, isinstance(status.numchannels, int))
channel = first.remote_exec("1/0")
try:
    channel.receive()
except channel.RemoteError as error:
    show("remote error", error.formatted.strip().splitlines()[-1], "ZeroDivisionError" in str(error))

# --- Channels ---
channel = first.remote_exec("channel.send(channel.receive())")
channel.send(values)
show("echo", channel.receive(timeout=60) == values, raised(channel.receive, 10), channel.isclosed())
channel.waitclose(timeout=60)
show("closed", channel.isclosed(), raised(channel.send, 1)[1], isinstance(channel.id, int), channel.gateway is first)
show("iteration", list(first.remote_exec("for i in range(3): channel.send(i)")))
channel = first.remote_exec("channel.receive()")
show("timeout", raised(channel.receive, 0.01)[0], raised(channel.waitclose, 0.01)[0])
channel.close()
received, over = [], threading.Event()
channel = first.remote_exec("for i in range(3): channel.send(i)")
channel.setcallback(lambda item: over.set() if item is over else received.append(item), endmarker=over)
show("callback", over.wait(60), received, raised(channel.receive)[1], channel._getremoteerror())
channel = first.remote_exec("inner = channel.receive()\ninner.send(7)\nchannel.send({'it': inner})")
inner = first.newchannel()
channel.send([inner][0])
show("channel sent", inner.receive(), channel.receive()["it"] is not None)
reader = first.remote_exec("f = channel.makefile('w')\nf.write('one\\ntwo')\nf.flush()").makefile("r")
show("file", reader.readline(), reader.read(2), reader.readline(), reader.read(5), reader.isatty())
channel = first.remote_exec("channel.send(channel.receive() + channel.receive())")
writer = channel.makefile("w", proxyclose=True)
for letter in "ab":
    writer.write(letter)
show("file written", channel.receive(), writer.close(), channel.isclosed())
channel = first.remote_exec("channel.send(type(channel.receive()).__name__)")
channel.reconfigure(py2str_as_py3str=True, py3str_as_py2str=True)
channel.send("text")
show("reconfigured", channel.receive())
first.reconfigure(py2str_as_py3str=True, py3str_as_py2str=False)
channel = first.remote_exec("channel.close('because')")
show("closed with error", raised(channel.receive)[0])

# --- Many at once ---
many = group.remote_exec("channel.send(channel.receive() + 1)")
many.send_each(41)
show("each", many.receive_each(), len(many), many[0] in many, [ch.gateway.id for ch in many])
many.waitclose()
many = group.remote_exec("channel.send(1)")
show("each with channel", [(ch.gateway.id, item) for ch, item in many.receive_each(withchannel=True)])
items = group.remote_exec("channel.send(channel.gateway.id)").make_receive_queue(endmarker=None)
show("queue", isinstance(items, queue.Queue), sorted(str(items.get(timeout=60)[1]) for _ in range(4)))

# --- Execution models, pools ---
model = gateway_base.get_execmodel("thread")
lock, event = model.RLock(), model.Event()
model.start(event.set)
show("model", model.backend, repr(model), lock.acquire(), event.wait(60), model.get_ident() == threading.get_ident())
show("model modules", model.queue.__name__, model.subprocess.__name__, model.socket.__name__, model.sleep(0))
with model.fdopen(os.dup(0), "r", closefd=True) as opened:
    show("fdopen", opened.fileno() > 2)
pool = gateway_base.WorkerPool(model)
show(
    "pool",
    pool.spawn(divmod, 7, 2).get(timeout=60),
    raised(pool.spawn(int, "x").get)[0],
    pool.waitall(10),
    pool.active_count(),
)
show("pool ends", pool.terminate(timeout=10))
multi.safe_terminate(model, 10, [(event.clear, event.set)])
show("safe_terminate", event.is_set())
show("set_execmodel", execnet.set_execmodel("thread"), execnet.default_group.execmodel.backend)

# --- Files ---
with tempfile.TemporaryDirectory() as directory:
    os.makedirs(directory + "/from/sub")
    for name in ("a", "sub/b"):
        with open(f"{directory}/from/{name}", "w") as out:
            out.write(name)
    finished, progress, reported = [], [], []

    class Mine(execnet.RSync):
        def filter(self, path):
            return not str(path).endswith("~")

        def _report_send_file(self, gateway, modified_rel_path):
            reported.append((gateway.id, modified_rel_path))

    sync = Mine(directory + "/from", callback=lambda kind, size, _: progress.append((kind, size)), verbose=True)
    sync.add_target(group[0], directory + "/to", finishedcallback=lambda: finished.append(1), delete=True)
    show("rsync", sync.send(), finished, sorted(progress), sorted(reported), sorted(os.listdir(directory + "/to")))
    show("rsync again", raised(sync.send)[1])

# --- Where the two differ (docs/compatibility.md, "What is different") ---
nested = []
for _ in range(100000):
    nested = [nested]
show("differs: dumps of 2**31", raised(execnet.dumps, -(2**31) - 1)[0], raised(execnet.dumps, nested)[0])
try:
    execnet.dumps([0, {"status": object()}])
except execnet.DumpError as error:
    show("differs: path of what cannot be dumped", "at [1]['status']" in str(error))
show("differs: truncated", raised(execnet.loads, b"\x02K\0\0")[0], raised(execnet.loads, b"\x02A\0\0\0\5aQ")[0])
show("differs: no interpreter", raised(group.makegateway, "popen//python=/does/not/exist")[0])
show("differs: private key", raised(execnet.XSpec, "_x=1"))
show("differs: empty spec", raised(execnet.XSpec, "")[0], raised(execnet.XSpec, "popen//")[0])
show("differs: id taken", raised(group.makegateway, "popen//id=first")[0], len(group))
show("differs: refused socket", raised(group.makegateway, "socket=127.0.0.1:1")[0])

# --- The end ---
gone = group["gw0"]
channel = gone.remote_exec("channel.receive()")
gone.exit()
gone.exit()
gone.join(timeout=60)
show(
    "exit",
    gone in group,
    raised(channel.receive, 10)[1][-1],
    raised(gone.remote_exec, "pass")[1][0],
)
group.terminate(timeout=5)
group.terminate(timeout=5)
show("terminated", len(group), first.hasreceiver())
print("end")
