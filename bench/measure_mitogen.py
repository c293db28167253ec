"""The same for mitogen: a child on this host, and calls to it; JSON on stdout."""

from __future__ import annotations

import json
import operator
import sys

import mitogen.core
import mitogen.master
import mitogen.utils
from work import MESSAGES, best, timed


def measure(router: mitogen.master.Router) -> dict[str, float]:
    contexts: list[mitogen.core.Context] = []
    figures = {"start 1 popen": timed(lambda: contexts.append(router.local(python_path=sys.executable)))}
    count = MESSAGES // 20

    def talk() -> None:
        for item in range(count):
            contexts[0].call(operator.pos, item)

    figures["echo of a small int"] = best(talk, 4) / count
    return figures


if __name__ == "__main__":
    json.dump(mitogen.utils.run_with_router(measure), sys.stdout)
