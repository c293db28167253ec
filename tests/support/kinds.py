"""Groups whose last member is a worker of each kind. Those with "ssh" in their name need the private server."""

from __future__ import annotations

import sys

import interpreters

PURE = f"popen//python={sys.executable}"
KINDS = {
    "native": ["popen"],
    "pure": [PURE],
    "forked": ["popen//preload=json"],
    "forked-pure": [f"{PURE}//preload=json"],
    "via-native": ["popen//id=proxy", "popen//via=proxy"],
    "via-pure": [f"{PURE}//id=proxy", "popen//via=proxy"],
    "forked-via-native": ["popen//id=proxy", "popen//via=proxy//preload=json"],
    "forked-via-pure": [f"{PURE}//id=proxy", "popen//via=proxy//preload=json"],
    "socket": ["popen//id=host", "socket//installvia=host"],
}
OVER_SSH = {"ssh": ["ssh=localhost"], "forked-ssh": ["ssh=localhost//preload=json"]}
OVER_SSH["via-ssh"] = ["ssh=localhost//id=proxy", "popen//via=proxy"]
PYTHON2 = {
    "python2": [f"popen//python={interpreters.find('python2.7')}"],
    "python2-via-pure": [f"{PURE}//id=proxy", f"popen//via=proxy//python={interpreters.find('python2.7')}"],
}
if interpreters.find("python2.7") is not None:
    KINDS |= PYTHON2


def with_key(specs: list[str], key: str) -> list[str]:
    """The same with one more key in each: what a worker gets, its proxy has to have as well."""
    return [f"{spec}//{key}" for spec in specs]
