"""A coordinator that a test ends: `endings.py COLUMN ENDING`, started by test_endings.py.

Makes a gateway for each way of being busy (ROWS), prints one line of JSON for each: the pids that have to be gone. Then
it waits for the word on its stdin: row by row the test starts one of these and ends it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

import execnet

# What a worker does when its coordinator ends. Each sends the pids that it has started, and may keep running.
IDLE = "channel.send([])"
SLEEPING = "import time; channel.send([]); time.sleep(1000)"
PYTHON_LOOP = "channel.send([])\nwhile True: pass"
# PyDLL keeps the interpreter's lock while it calls: no thread of the interpreter ever runs again.
C_CODE = "import ctypes; channel.send([]); ctypes.PyDLL(None).sleep(1000)"
IGNORING = """
import signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
channel.send([])
while True: pass
"""
GRANDCHILD = "import subprocess; channel.send([subprocess.Popen(['sleep', '1000']).pid])"
SETSID = "import subprocess; channel.send([subprocess.Popen(['sleep', '1000'], start_new_session=True).pid])"
DAEMON = """
import os, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, write)
        os.write(write, b"%d" % os.getpid())
        os.closerange(0, 256)
        time.sleep(1000)
    os._exit(0)
os.wait()
channel.send([int(os.read(read, 20))])
"""
THREAD_LEFT = """
import threading
threading.Thread(target=threading.Event().wait).start()
channel.send([])
"""

ROWS = {
    "idle": IDLE,
    "sleeping": SLEEPING,
    "Python loop": PYTHON_LOOP,
    "C code holding the GIL": C_CODE,
    "signals ignored": IGNORING,
    "grandchild": GRANDCHILD,
    "setsid grandchild": SETSID,
    "double-forked daemon": DAEMON,
    "a thread left": THREAD_LEFT,
}

# The members of a group, the last of which is busy.
COLUMNS = {
    "popen": ["popen"],
    "preload": ["popen//preload"],
    "python=": [f"popen//python={sys.executable}"],
    "ssh": ["ssh=localhost"],
    "via": ["popen//id=proxy", "popen//via=proxy"],
    "socket": ["popen//id=host", "socket//installvia=host"],
}


def tell(text: str) -> None:
    """Figures for people: printed, and appended to the file that `make test` prints at its end."""
    print(text)
    if path := os.environ.get("EXECNET_TEST_TABLES"):
        with open(path, "a") as file:
            file.write(text)


def send_for_ever(channel: execnet.Channel) -> None:
    channel.set_window(1000)
    while True:
        channel.send(b"x" * 100)


def main(column: str, row: str, ending: str) -> None:
    group = execnet.Group(COLUMNS[column])
    started = group[-1].remote_exec(ROWS[row]).receive(timeout=60)
    print(json.dumps([*started, *(gateway._rinfo().pid for gateway in group)]), flush=True)
    if ending == "sys.exit with threads alive":
        channel = group[-1].newchannel()
        for target in (channel.receive, channel.waitclose, lambda: send_for_ever(group[-1].newchannel())):
            threading.Thread(target=target, daemon=True).start()
        # A thread that Python waits for before it ends.
        threading.Thread(target=time.sleep, args=(0.01,)).start()
    sys.stdin.readline()
    if ending == "os._exit":
        os._exit(3)
    elif ending == "unhandled exception":
        raise ValueError("not handled")
    elif ending == "sys.exit with threads alive":
        sys.exit(3)
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
