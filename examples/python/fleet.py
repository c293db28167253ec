"""Runs a command on several hosts at once and prints the answer of each.

    python fleet.py SPEC... -- COMMAND...
    python fleet.py popen ssh=web1 ssh=web2 -- uname -sr

The exit status is 0 when it was 0 everywhere.
"""

from __future__ import annotations

import sys

import execnet


def run(channel, command):  # type: ignore[no-untyped-def]  # runs in a gateway, on whatever Python is there
    import subprocess

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate()
    channel.send((process.returncode, output.decode("utf-8", "replace")))


def main(arguments: list[str]) -> int:
    specs, separator, command = _split(arguments)
    if not (specs and separator and command):
        print("usage: fleet.py SPEC... -- COMMAND...", file=sys.stderr)
        return 2
    group = None
    try:
        group = execnet.Group(specs)  # all are started at the same time
        channels = group.remote_exec(run, command=command)
        worst = 0
        for gateway, channel in zip(group, channels, strict=True):
            status, output = channel.receive()
            print(f"{gateway.spec}: exit status {status}")
            print("".join(f"  {line}\n" for line in output.splitlines()), end="")
            worst = worst or status
        return 1 if worst else 0
    except (ValueError, execnet.RemoteError, EOFError, OSError) as error:
        print(f"fleet.py: {error}", file=sys.stderr)
        return 1
    finally:
        if group is not None:
            group.terminate(timeout=1.0)


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in arguments:
        return arguments, False, []
    at = arguments.index("--")
    return arguments[:at], True, arguments[at + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
