"""A private OpenSSH server for tests, and the client configuration that leads to it.

    with PrivateSshd() as sshd, sshd.in_front():
        subprocess.run(["ssh", "localhost", "echo hi"])      # never reaches the machine's own sshd

Inside ``in_front()`` the program ``ssh`` is a wrapper that knows these hosts:

``localhost``   a login in an empty home directory, with `python3` (the one given) in its PATH
``nopython``    the same without any Python
``refused``     the same server, but a key that it does not accept
``slow``        as localhost, over a line of EXECNET_TEST_BITS per second that counts what goes over it in the file
                EXECNET_TEST_COUNTS (slow_line.py)

Every other name, ``unknown.invalid`` say, is looked up as usual. Keys are made afresh, the server
listens on a free loopback port, and all of it is in one temporary directory. It works as root and as
an ordinary user, who must have a password or key login at all (not be locked). Needs the package openssh-server.

From a shell: ``python3 tests/support/sshd.py command argument...`` runs the command in front of it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_MARK = "EXECNET_TEST_SSHD"
_STANDARD_PATH = "/usr/local/bin:/usr/bin:/bin"


class SshdError(Exception):
    """The server cannot be started. The text says why and what to do."""


class PrivateSshd:
    """A running server between ``__enter__`` and ``__exit__``; see the module.

    :param python: the interpreter that a login on ``localhost`` finds as ``python3``.
    :param startups: ``MaxStartups``, how many logins may be under way.
    :raises SshdError: on entering, when there is no sshd on this machine or it does not start.
    """

    def __init__(self, python: str = sys.executable, startups: str = "1000") -> None:
        self._python = python
        self._startups = startups
        self._log: list[str] = []

    def __enter__(self) -> PrivateSshd:
        self._sshd = _find_program("sshd", "openssh-server")
        self._ssh = _find_program("ssh", "openssh-client")
        self._keygen = _find_program("ssh-keygen", "openssh-client")
        self.directory = Path(tempfile.mkdtemp(prefix="execnet-sshd-"))
        try:
            self._make_logins()
            self._make_keys()
            self._start()
            self._make_client()
        except BaseException:
            shutil.rmtree(self.directory)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        shutil.rmtree(self.directory)

    @property
    def home(self) -> Path:
        """The directory a login starts in."""
        return self.directory / "home"

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return "".join(self._log)

    def env(self) -> dict[str, str]:
        """A copy of this process's environment in which ``ssh`` leads here."""
        return {**os.environ, "PATH": f"{self.directory / 'client'}:{os.environ.get('PATH', _STANDARD_PATH)}"}

    @contextlib.contextmanager
    def in_front(self) -> Iterator[None]:
        """Puts that ``ssh`` in front for this process and its children."""
        before = os.environ.get("PATH")
        os.environ["PATH"] = self.env()["PATH"]
        try:
            yield
        finally:
            if before is None:
                del os.environ["PATH"]
            else:
                os.environ["PATH"] = before

    def session_pids(self) -> list[int]:
        """The processes that logins have started and that still run, including detached ones."""
        mark = f"{_MARK}={self.directory}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    # -- set-up ------------------------------------------------------------------------------------

    def _make_logins(self) -> None:
        self.home.mkdir()
        for name in ("bin", "bare", "client"):
            (self.directory / name).mkdir()
        _write_program(self.directory / "bin/python3", f'exec {shlex.quote(self._python)} "$@"')
        (self.directory / "bare/sh").symlink_to("/bin/sh")
        self._make_login("localhost", f"{self.directory / 'bin'}:{_STANDARD_PATH}")
        self._make_login("nopython", str(self.directory / "bare"))

    def _make_login(self, host: str, path: str) -> None:
        # sshd runs this instead of the requested command. It runs that command in the user's shell
        # as usual, but away from the user's real home and PATH.
        _write_program(
            self.directory / f"login-{host}",
            f"cd {self.home} || exit 1\n"
            f"HOME={self.home} PATH={path} {_MARK}={self.directory}\n"
            f"export HOME PATH {_MARK}\n"
            'exec "$SHELL" -c "$SSH_ORIGINAL_COMMAND"',
        )

    def _make_keys(self) -> None:
        for name in ("host_key", "localhost_key", "nopython_key", "refused_key"):
            subprocess.run(
                [self._keygen, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.directory / name)],
                check=True,
                stdin=subprocess.DEVNULL,
            )
        lines = []
        for host in ("localhost", "nopython"):
            key = (self.directory / f"{host}_key.pub").read_text()
            lines.append(f'restrict,port-forwarding,command="{self.directory}/login-{host}" {key}')
        (self.directory / "authorized_keys").write_text("".join(lines))

    def _start(self) -> None:
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # Where sshd of root confines itself.
        # Somebody may take the port before sshd does; then another one is tried.
        for _ in range(10):
            self._port = _free_port()
            if self._started():
                return
            if "already in use" not in self.log:
                break
        raise SshdError(f"sshd does not start; it says:\n{self.log}")

    def _started(self) -> bool:
        config = self.directory / "sshd_config"
        config.write_text(
            f"""\
ListenAddress 127.0.0.1
Port {self._port}
HostKey {self.directory}/host_key
AuthorizedKeysFile {self.directory}/authorized_keys
AllowUsers {_user()}
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
PidFile none
PrintMotd no
PrintLastLog no
MaxStartups {self._startups}
MaxSessions 1000
LogLevel VERBOSE
"""
        )
        # OpenSSH 9.8 and later shut out an address that has failed to log in, for a while; here that is everybody's.
        lenient = "PerSourcePenalties no"
        check = [self._sshd, "-t", "-f", str(config), "-o", lenient]
        if subprocess.run(check, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            config.write_text(f"{config.read_text()}{lenient}\n")
        self._log.clear()
        self._process = subprocess.Popen(
            [*_ending_with_parent(), self._sshd, "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the tests, which still need it for their own end.
        )
        listening = threading.Event()
        self._reader = threading.Thread(target=self._read_log, args=(listening,), daemon=True)
        self._reader.start()
        in_time = listening.wait(timeout=30)
        if in_time and "Server listening" in self.log:
            return True
        self._process.kill()
        self._end_log()
        return False

    def _read_log(self, listening: threading.Event) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line)
            if "Server listening" in line:
                listening.set()
        listening.set()  # The end says as much: it will not listen any more.

    def _make_client(self) -> None:
        key_type, key, _ = (self.directory / "host_key.pub").read_text().split()
        (self.directory / "known_hosts").write_text(f"execnet-test {key_type} {key}\n")
        hosts = "".join(
            f"""\
Host {host}
  HostName 127.0.0.1
  Port {self._port}
  User {_user()}
  HostKeyAlias execnet-test
  IdentityFile {self.directory}/{host}_key
"""
            for host in ("localhost", "nopython", "refused")
        )
        slow_line = shlex.join([sys.executable, str(Path(__file__).with_name("slow_line.py")), "%h", "%p"])
        hosts += f"""\
Host slow
  HostName 127.0.0.1
  Port {self._port}
  User {_user()}
  HostKeyAlias execnet-test
  IdentityFile {self.directory}/localhost_key
  ProxyCommand {slow_line} ${{EXECNET_TEST_BITS:-20e6}} $EXECNET_TEST_COUNTS
"""
        config = self.directory / "ssh_config"
        config.write_text(
            f"""\
{hosts}
Host *
  IdentitiesOnly yes
  IdentityAgent none
  PreferredAuthentications publickey
  UserKnownHostsFile {self.directory}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ControlMaster no
  ControlPath none
"""
        )
        # A later -F wins, so ssh_config= of a specification still has its effect.
        _write_program(self.directory / "client/ssh", f'exec {self._ssh} -F {config} "$@"')

    # -- the end -----------------------------------------------------------------------------------

    def _stop(self) -> None:
        # The listener comes last: while it lives, its connections are its children and are found.
        for pid in _descendants(self._process.pid):
            _kill(pid)
        self._process.kill()
        while pids := self.session_pids():
            for pid in pids:
                _kill(pid)
        self._end_log()

    def _end_log(self) -> None:
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()


def _find_program(name: str, package: str) -> str:
    # sshd insists on an absolute path and often lies outside of an ordinary user's PATH.
    path = os.environ.get("PATH", _STANDARD_PATH) + ":/usr/sbin:/usr/local/sbin:/sbin"
    found = shutil.which(name, path=path)
    if found is None:
        raise SshdError(f"no {name} on this machine; install {package}")
    return os.path.abspath(found)


def _ending_with_parent() -> list[str]:
    """A prefix of a command that ends it even when this process is killed, where util-linux has one."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def _write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _descendants(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # "pid (name) state parent ...", and the name may be anything
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
                )
    found = [root]
    for parent in found:
        found += [pid for pid, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def _kill(pid: int) -> None:
    """Sends SIGKILL and waits until it has taken effect."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], 30)
    finally:
        os.close(pidfd)


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: sshd.py command argument...", file=sys.stderr)
        return 2
    try:
        with PrivateSshd() as sshd, sshd.in_front():
            return subprocess.run(arguments).returncode
    except (SshdError, FileNotFoundError) as error:
        print(f"sshd.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
