"""The modules of the released execnet that programs import names from."""

from __future__ import annotations

import subprocess
import sys

MODULES = ["gateway", "gateway_base", "gateway_bootstrap", "gateway_io", "multi", "rsync", "xspec"]


def test_the_package_has_its_modules_as_attributes() -> None:
    looks = "import sys, execnet; print([name for name in sys.argv[1:] if not hasattr(execnet, name)])"
    done = subprocess.run([sys.executable, "-c", looks, *MODULES], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("[]\n", "")
