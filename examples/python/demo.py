"""`make demo`: the sessions of the reference page, live, and then a real job for a group.

    python demo.py [sessions] [job]      one of the two only

The session that goes over ssh talks to `localhost`: to an OpenSSH server of its own, which is started
for it and knows only the keys that are made with it. EXECNET_DEMO_SSH names a host that is to help
with the job.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import sysconfig
from pathlib import Path

import word_count
from sessions import Session, SessionError, read_sessions, run_session

import execnet

HERE = Path(__file__).resolve().parent
PARTS = ["sessions", "job"]


def heading(text: str) -> None:
    print(f"\n== {text}\n", flush=True)


def run_over_ssh(session: Session) -> None:
    """Runs a session whose `ssh=localhost` leads to a private server."""
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "support"))
    support = importlib.import_module("sshd")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(stack.enter_context(support.PrivateSshd()).in_front())
        except support.SshdError as error:
            print(f"Skipped: {error}.")
            return
        run_session(session)


def run_sessions() -> None:
    for session in read_sessions(HERE / "reference_page.txt"):
        heading(session.title)
        if "ssh=localhost" in session.text:
            run_over_ssh(session)
        else:
            run_session(session)


def run_job() -> None:
    heading("A job: count the words of the standard library")
    word_count.run(Path(sysconfig.get_path("stdlib")))


def main(arguments: list[str]) -> int:
    parts = arguments or PARTS
    if not set(parts) <= set(PARTS):
        print(f"usage: demo.py [{'] ['.join(PARTS)}]", file=sys.stderr)
        return 2
    try:
        if "sessions" in parts:
            run_sessions()
        if "job" in parts:
            run_job()
    except KeyboardInterrupt:
        return 130
    except (SessionError, word_count.CountError, execnet.RemoteError, EOFError, OSError, ValueError) as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
