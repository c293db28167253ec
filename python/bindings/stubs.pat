# For `make stubs`: what the signatures in the bindings cannot say. The form is that of nanobind.stubgen.

^execnet\._core\.__prefix__$:
    # Made by `make stubs` from python/bindings. Do not edit.

^execnet\._core\.__version__$:
    __version__: str

^execnet\._core\._error_types$:

^execnet\._core\._Overridable$:

# --- Exceptions: made by hand, in the name of the package ---

^execnet\._core\.RemoteError$:
    \from typing import TypeAlias
    class RemoteError(Exception):
        \doc
        @property
        def formatted(self) -> str:
            """The traceback of the other side, as text."""

    _RemoteError: TypeAlias = RemoteError

^execnet\._core\.TimeoutError$:
    \import builtins
    class TimeoutError(builtins.TimeoutError):
        \doc

    _TimeoutError: TypeAlias = TimeoutError

^execnet\._core\.DataFormatError$:
    class DataFormatError(Exception):
        \doc

^execnet\._core\.DumpError$:
    class DumpError(DataFormatError):
        \doc

^execnet\._core\.LoadError$:
    class LoadError(DataFormatError):
        \doc
        offset: int

^execnet\._core\.HostNotFound$:
    class HostNotFound(ConnectionError):
        \doc

^execnet\._core\.GatewayGone$:
    class GatewayGone(OSError, EOFError):
        \doc

^execnet\._core\.ForkedResourceError$:
    class ForkedResourceError(GatewayGone):
        \doc

^execnet\._core\.ChannelClosed$:
    class ChannelClosed(OSError):
        \doc

^execnet\._core\.ExecnetStateError$:
    class ExecnetStateError(RuntimeError, OSError):
        \doc

# --- XSpec: the keys that have a meaning; others may be of any type ---

^execnet\._core\.XSpec\.env$:
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

# --- Channel and Gateway ---

^execnet\._core\.Channel\.(RemoteError|TimeoutError)$:
    \1: type[_\1]

# The mode says which kind of file it is.
^execnet\._core\.Channel\.makefile$:
    \from typing import Literal, overload
    \from execnet._file import ChannelFileRead, ChannelFileWrite
    @overload
    def makefile(
        self, mode: Literal["w"] = "w", proxyclose: bool = False, encoding: str | None = None
    ) -> ChannelFileWrite:
        \doc
    @overload
    def makefile(
        self, mode: Literal["r"], proxyclose: bool = False, encoding: str | None = None
    ) -> ChannelFileRead: ...

# _Overridable: programs may set them.
^execnet\._core\.Channel\.id$:
    id: int
    """The number both ends know the channel by."""

^execnet\._core\.Channel\.gateway$:
    gateway: Gateway
    """The gateway this is a channel of. On the other side that is a WorkerGateway, which can do less."""

^execnet\._core\.Gateway\.id$:
    id: str

^execnet\._core\.Gateway\.spec$:
    spec: XSpec
    """The specification it was made from."""

^execnet\._core\.Gateway\.execmodel$:
    execmodel: execnet._execmodel.ExecModel
    """The execution model of this side, that of the group."""

^execnet\._core\.Gateway\.pid$:
    pid: int
    """
    The process of the worker, by its number on its host; in its own PID namespace, with isolate=pidns.
    """

^execnet\._core\.Gateway\.returncode$:
    returncode: int | None
    """
    How that process has ended, as subprocess.Popen has it: its exit status, or the negative number of the signal
    that has ended it. Of ssh= it is the status of ssh. None while it runs; of a socket= always, as only the end of
    the connection is known then. Does not wait: it is known after join(), and when GatewayGone was raised, unless
    the machine is very busy.
    """

# Set by the group.
^execnet\._core\.Gateway\.__suffix__$:
    \from execnet.multi import Group
    _group: Group
