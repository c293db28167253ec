import builtins
import types
from collections.abc import Callable
from typing import Any, Literal, SupportsIndex, TypeAlias, overload

import execnet._execmodel
import execnet._streams
import execnet.gateway
import execnet.rsync
from execnet._file import ChannelFileRead, ChannelFileWrite
from execnet.multi import Group

# Made by `make stubs` from python/bindings. Do not edit.

__version__: str

class RemoteError(Exception):
    """
    The code on the other side raised; `formatted` is its traceback, as text.
    """
    @property
    def formatted(self) -> str:
        """The traceback of the other side, as text."""

_RemoteError: TypeAlias = RemoteError

class TimeoutError(builtins.TimeoutError):
    """Nothing came within the given time."""

_TimeoutError: TypeAlias = TimeoutError

class DataFormatError(Exception):
    """A value does not fit the dump format, or bytes are not of it."""

class DumpError(DataFormatError):
    """A value cannot be dumped; the text has the path to the item."""

class LoadError(DataFormatError):
    """Bytes cannot be loaded; `offset` tells where in them, in bytes."""

    offset: int

class HostNotFound(ConnectionError):
    """No usable interpreter at the other end of a specification, and why."""

class GatewayGone(OSError, EOFError):
    """
    The other side is gone: its exit status or signal and last words on stderr.
    """

class ForkedResourceError(GatewayGone):
    """
    The gateway belongs to the process that this one was forked from. Make one here.
    """

class ChannelClosed(OSError):
    """
    The channel is closed on this side, or its code has ended: nothing can be sent.
    """

class ExecnetStateError(RuntimeError, OSError):
    """
    A call that is not allowed in this state, as a second callback is not. To try again does not
    help; the program is to be changed.
    """

def seconds_to_wait(timeout: float | None) -> float | None:
    """
    A time-out as the calls of this module understand it, for calls of the standard library: never negative,
    None for ever. Raises ValueError for nan.
    """

def dumps(obj: object) -> bytes:
    """
    The bytes of a value of builtin types, for loads() anywhere. Raises DumpError.
    """

def dump(byteio: execnet._streams.Writer, obj: object) -> None:
    """Writes the bytes of a value to a binary file. Raises DumpError."""

def loads(
    bytestring: bytes | bytearray | memoryview,
    py2str_as_py3str: bool = False,
    py3str_as_py2str: bool = False,
    max_bytes: int | None = None,
    max_items: int | None = None,
) -> Any:
    """
    The value that dumps() has made bytes of. Strings of Python 2 become str if `py2str_as_py3str`, else
    bytes; those of Python 3 become bytes if `py3str_as_py2str`. With limits, more bytes or a value of more
    items, at all depths and with the keys of dicts, is refused before it is made. Raises LoadError.
    """

def load(
    io: execnet._streams.Reader,
    py2str_as_py3str: bool = False,
    py3str_as_py2str: bool = False,
    max_bytes: int | None = None,
    max_items: int | None = None,
) -> Any:
    """The next value in a binary file; otherwise as loads()."""

class XSpec:
    """
    A gateway specification: "type[=value]//key[=value]//...", with its keys as attributes. A bare
    key is True, one that was not given None.

        spec = XSpec("ssh=host//chdir=run//env:LANG=C")
        spec.ssh, spec.chdir, spec.env, spec.nice == "host", "run", {"LANG": "C"}, None

    Raises ValueError for a malformed text.
    """

    def __init__(self, string: str) -> None: ...
    @property
    def _spec(self) -> str:
        """The exact text."""

    chdir: str | None
    dont_write_bytecode: bool | None
    env: dict[str, str]
    """The variables given with env:NAME=value; may be changed."""
    execmodel: str | None
    id: str | None
    installvia: str | None
    nice: str | None
    popen: bool | None
    profile: str | None
    python: str | None
    socket: str | None
    ssh: str | None
    ssh_config: str | None
    stderr: str | None
    stdin: str | None
    stdout: str | Callable[[str], object] | None
    transport: str | None
    vagrant_ssh: str | None
    via: str | None

    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: object) -> None: ...
    def __delattr__(self, name: str) -> None: ...
    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]: ...
    def __setstate__(self, state: dict[str, Any]) -> None: ...
    def __str__(self) -> str: ...
    def __repr__(self) -> str: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __copy__(self) -> XSpec: ...
    def _samefilesystem(self) -> bool:
        """Whether a gateway's working directory is this process's own."""

class Received:
    """
    Memory that something was received in: what the memoryviews of Channel.receive(views=True) show.
    """

class Channel:
    """
    One end of a two-way stream of values between the two sides of a gateway. When the last
    reference to it goes, it closes. Programs may set attributes of their own.

        channel = gateway.remote_exec("channel.send(channel.receive() + 1)")
        channel.send(41)
        assert channel.receive() == 42
    """

    def send(self, item: object, timeout: float | None = None) -> None:
        """
        Sends a value of builtin types; channels of the same gateway may be in it, and what has the buffer
        protocol (bytearray, memoryview, array.array, NumPy arrays), which arrives as bytes. Waits while the
        other side's buffers, or the channel's window, are full, at most `timeout` seconds: TimeoutError. Raises
        DumpError, ChannelClosed, and GatewayGone when the other side is gone; with a callback only
        after that was told the end: an item sent before is lost on its way. After TimeoutError and
        DumpError nothing was sent.
        """

    def set_window(self, bytes: int | None) -> None:
        """
        Sets the window of the channel, at both ends: so many bytes of items may be on their way in each
        direction, sent by one side and not yet received by the code at the other; then send() waits. An
        item larger than the window goes when next to nothing is on its way. None lifts the window; when
        both ends set one, the smaller holds. Without this it is the `window=` of the specification.
        Raises ValueError for less than 1, OSError when the channel is closed.

            channel.set_window(8 * 2**20)
        """

    @property
    def window(self) -> int | None:
        """The window of each direction, in bytes; None if there is none."""

    @property
    def outstanding(self) -> int | None:
        """
        Bytes of items sent here and not yet received by the code at the other side; None without a
        window: then the other side does not tell.
        """

    def receive(self, timeout: float | None = None, *, views: bool = False) -> Any:
        """
        The next value from the other side. Waits for it, at most `timeout` seconds: TimeoutError. Raises
        RemoteError when the other side raised; EOFError when it has closed, or, as GatewayGone, is gone.
        With `views`, bytes of 64 KiB and more, wherever they stand in the value, are read-only memoryviews of
        the memory they were received in, and not copied once more.

            pixels = numpy.frombuffer(channel.receive(views=True), dtype="float32")
        """

    def close(self, error: str | None = None) -> None:
        """
        Closes both directions; with an error text the other side gets a RemoteError. May be repeated.
        """

    def isclosed(self) -> bool:
        """Whether this end can no longer send."""

    def waitclose(self, timeout: float | None = None) -> None:
        """
        Waits until the other side sends no more, at most `timeout` seconds: TimeoutError. Raises
        RemoteError when the other side raised, GatewayGone when it is gone.
        """

    def reconfigure(self, py2str_as_py3str: bool = True, py3str_as_py2str: bool = False) -> None:
        """
        How strings between Python 2 and 3 are loaded on this channel, at both ends.
        """

    def setcallback(self, callback: Callable[[Any], object], endmarker: object = ...) -> None:
        """
        From now on items are given to the callback, on a thread of the gateway, one at a time and in
        order; those that have arrived first. If an endmarker is given, the callback is called with it
        once, after the last item. A callback that raises closes the channel with that error. It stays
        active when the last reference to the channel goes. Raises ExecnetStateError if there is one already.
        """

    def _getremoteerror(self) -> Exception | None:
        """
        What ended the channel, once, with the text of RemoteError or of GatewayGone; None if neither did.
        """

    def __iter__(self) -> Channel: ...
    def __next__(self) -> Any: ...
    def next(self) -> Any:
        """As next(channel)."""

    @overload
    def makefile(
        self, mode: Literal["w"] = "w", proxyclose: bool = False, encoding: str | None = None
    ) -> ChannelFileWrite:
        """
        A file to write to, each write an item, or to read from. Closing it closes the channel if `proxyclose`.
        With an encoding the items are bytes, and what is written and read is their text. Raises LookupError for
        an unknown one.

            print("text", file=channel.makefile("w", encoding="latin-1"))
        """
    @overload
    def makefile(
        self, mode: Literal["r"], proxyclose: bool = False, encoding: str | None = None
    ) -> ChannelFileRead: ...
    def __repr__(self) -> str: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

    gateway: Gateway
    """The gateway this is a channel of. On the other side that is a WorkerGateway, which can do less."""

    id: int
    """The number both ends know the channel by."""

    RemoteError: type[_RemoteError]

    TimeoutError: type[_TimeoutError]

NO_ENDMARKER_WANTED: object = ...

def can_send(obj: object) -> bool:
    """
    Whether a channel can carry the value: plain data, and channels, which go over channels of their own
    gateway. Large bytes and strings are looked at and not copied.

        channel.send(value if execnet.can_send(value) else repr(value))
    """

class Gateway:
    """
    A Python interpreter somewhere, with a connection to it. Made by Group.makegateway();
    lives until its group terminates it. Programs may set attributes of their own.
    """

    id: str

    spec: XSpec
    """The specification it was made from."""

    execmodel: execnet._execmodel.ExecModel
    """The execution model of this side, that of the group."""

    pid: int
    """
    The process of the worker, by its number on its host; in its own PID namespace, with isolate=pidns.
    """

    returncode: int | None
    """
    How that process has ended, as subprocess.Popen has it: its exit status, or the negative number of the signal
    that has ended it. Of ssh= it is the status of ssh. None while it runs; of a socket= always, as only the end of
    the connection is known then. Does not wait: it is known after join(), and when GatewayGone was raised, unless
    the machine is very busy.
    """

    @property
    def remoteaddress(self) -> str:
        """The host, as the specification names it."""

    def remote_exec(
        self, source: str | types.FunctionType | Callable[..., object] | types.ModuleType, **kwargs: object
    ) -> Channel:
        """
        Runs source on the other side; `channel` in its globals is the other end of what this returns. A
        function is called with the channel and the keyword arguments; it must not use globals.
        Raises ValueError for a function that cannot be sent, DumpError for its arguments, GatewayGone.
        What the code raises arrives as RemoteError on the channel.
        """

    def newchannel(self) -> Channel:
        """A channel nobody uses yet, to be sent over another one."""

    @property
    def _hello(self) -> dict[str, Any]:
        """What the other side said of itself when it started."""

    def _rinfo(self, update: bool = False) -> execnet.gateway.RInfo:
        """
        What the other side is: as it said when it started, which costs nothing, or at the last `update`, which
        asks it by remote_exec().
        """

    def remote_status(self, timeout: float | None = None) -> execnet.gateway.RemoteStatus:
        """
        Asks the other side what it is doing. Waits for the answer, at most `timeout` seconds: TimeoutError.
        Raises GatewayGone.
        """

    def hasreceiver(self) -> bool:
        """Whether the other side is there."""

    def reconfigure(self, py2str_as_py3str: bool = True, py3str_as_py2str: bool = False) -> None:
        """How strings between Python 2 and 3 are loaded, at both ends."""

    def exit(self) -> None:
        """
        Tells the other side to end and leaves the group, whose terminate() still sees to its process. Does
        not wait; may be repeated.
        """

    def join(self, timeout: float | None = None) -> None:
        """
        Waits until the other side is gone, at most `timeout` seconds; hasreceiver() tells whether it is.
        """

    def __repr__(self) -> str: ...

    _group: Group

class Membership:
    """The gateways of one Group, from start to end."""

    def __init__(self, python: bytes, native_module: bytes, options: list[bytes]) -> None:
        """
        Paths: the interpreter of plain popen gateways, and this extension, which it can load; and the options
        that it is started with.
        """

    def set_execmodel(self, execmodel: str) -> None:
        """The execution model of this side, for members to come."""

    def set_grace(self, seconds: float) -> None:
        """For members to come whose specification has none. Raises ValueError."""

    def start(self, specs: list[XSpec], commands: list[list[str]]) -> list[Gateway]:
        """
        Starts a gateway for each, all at the same time; when one fails none stays. A command line that is not
        empty is run in place of ours.
        """

    def launch_args(self, spec: XSpec) -> list[str]:
        """
        A command line that start() can be given. Raises ValueError for what it would refuse.
        """

    def terminate(self, timeout: float | None = None) -> bool:
        """
        Ends all, and waits until their processes are gone, at the longest 0.2 s beyond `timeout` seconds. Whether
        all have ended by themselves.
        """

    def tell_to_exit(self) -> None:
        """What terminate() begins with; does not wait."""

    def allocate_id(self, spec: XSpec) -> None:
        """Gives the specification a free id, if it has none."""

BOOTSTRAP_LINE: str = "import sys;exec(eval(sys.stdin.readline()))"

def keep_states() -> None:
    """
    For the end of the interpreter: threads that still run may look at the interpreter's state until the process
    has ended.
    """

def start_rsync_target(gateway: Gateway) -> Channel:
    """Starts the receiving side of RSync; the channel is for send_tree()."""

def send_tree(
    source: bytes,
    targets: list[tuple[Channel, bytes, bool, bool]],
    observer: execnet.rsync._Observer,
    timeout: float | None = None,
) -> None:
    """
    Copies a directory or a file. A target is a channel, a destination, whether to remove what else is there,
    and whether set-id bits go along. The observer is called with the position of the target.
    """

def end_greenlets() -> None:
    """
    For the end of the interpreter: from now on calls that wait block their thread.
    """

class WorkerGateway:
    """The gateway as code on its other side sees it."""

    @property
    def id(self) -> str: ...
    @property
    def execmodel(self) -> execnet._execmodel.ExecModel:
        """The execution model of this side."""

    def newchannel(self) -> Channel:
        """A channel nobody uses yet, to be sent over another one."""

    def reconfigure(self, py2str_as_py3str: bool = True, py3str_as_py2str: bool = False) -> None:
        """How strings between Python 2 and 3 are loaded, at both ends."""

    def __repr__(self) -> str: ...

def import_installed(name: str) -> types.ModuleType:
    """
    The module of that name. What is not imported yet is not looked for in the working directory, even if
    that is on the path.
    """

def serve(stream_fd: int, stderr_fd: int) -> None:
    """
    The life of a worker, on the main thread of an interpreter started for it: `stream_fd` is the connection,
    `stderr_fd` the stderr to take over once all is well.
    """

def exit(status: int) -> None:
    """Ends the process as C programs end. The interpreter is not taken down."""

def prepare_to_fork(has_exit_handlers: bool) -> None:
    """
    For a fork server, once before answer_requests(), while descriptor 2 is what a worker's stderr is until it
    serves. A worker that has run nothing ends at once if there are no exit handlers.
    """

def answer_requests(control: int, why_not_to_fork: Callable[[], str | None]) -> list[int] | None:
    """
    For a fork server: forks a worker for each request that comes on the socket `control`. Returns the pids
    of those there are when no more will come; and, in a worker, None when there is something to do for its
    interpreter, with which serve() goes on.
    """
