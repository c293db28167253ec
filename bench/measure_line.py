"""What a gateway over ssh makes of a line of so many bits per second (0: as fast as it goes). Prints seconds as JSON.

    measure_line.py BITS rsync
    measure_line.py BITS items

For this execnet or the released one, whichever is installed or in PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import execnet
from sshd import PrivateSshd

MIB = 1 << 20


def copy_sources(directory: Path) -> None:
    """The Python files of the standard library: some 30 MB of source code."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in library.rglob("*.py"):
        if "site-packages" not in path.parts:
            there = directory / path.relative_to(library)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)


def rsync(gateway: execnet.Gateway) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "source", Path(directory) / "target"
        copy_sources(source)
        begin = time.perf_counter()
        sync = execnet.RSync(str(source), verbose=False)
        sync.add_target(gateway, str(target))
        sync.send()
        return {"RSync of source files": time.perf_counter() - begin}


def items(gateway: execnet.Gateway) -> dict[str, float]:
    noise = random.Random(1).randbytes(64 * MIB)
    source = b"".join(path.read_bytes() for path in Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = (source * (64 * MIB // len(source) + 1))[: 64 * MIB]
    figures = {}
    channel = gateway.remote_exec(
        """
        for item in channel:
            if item is None:
                channel.send(last)
            else:
                last = item
                channel.send(len(item))
        """
    )
    for what, item in (("text", text), ("noise", noise)):
        begin = time.perf_counter()
        channel.send(item)
        assert channel.receive() == len(item)
        sent = time.perf_counter()
        channel.send(None)
        assert channel.receive() == item
        figures[f"64 MiB of {what}, to the worker"] = sent - begin
        figures[f"64 MiB of {what}, from the worker"] = time.perf_counter() - sent
    return figures


def main(bits: str, part: str) -> None:
    os.environ["EXECNET_TEST_BITS"] = bits
    with PrivateSshd() as sshd, sshd.in_front():
        group = execnet.Group()
        gateway = group.makegateway(f"ssh=slow//python={sys.executable}")
        figures = {"rsync": rsync, "items": items}[part](gateway)
        group.terminate(timeout=10)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
