"""Programs that people have today, on this execnet and on the released one.

Both are installed from wheels, with the same newest releases of the clients, into environments of their
own: build/clients-here and build/clients-released. `make clients` builds the wheel and runs these tests.
"""

from __future__ import annotations

import pytest

from environments import ROOT, environment

CLIENTS = ("pytest-xdist", "pytest-cov", "pytest", "filelock", "psutil", "setproctitle", "pexpect", "typing_extensions")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def here() -> str:
    """The interpreter of an environment with this execnet."""
    wheels = sorted((ROOT / "build" / "wheel").glob("execnet-*.whl"), key=lambda wheel: wheel.stat().st_mtime)
    assert wheels, "run this as `make clients`: there is no wheel in build/wheel"
    return environment("clients-here", [wheels[-1], *CLIENTS])


@pytest.fixture(scope="session")
def released() -> str:
    """The interpreter of an environment with the released execnet that is otherwise the same."""
    return environment("clients-released", ["execnet", *CLIENTS])


@pytest.fixture(scope="session")
def environments(here: str, released: str) -> dict[str, str]:
    return {"here": here, "released": released}
