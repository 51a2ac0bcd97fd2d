"""How the tests are shared out among processes."""

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

# What is made once for all tests of such a folder is a mesh, or an edge whose servers run in the tests' own process:
# they are to be served by one process, one after another.
_TOGETHER = ("tests/edge/", "tests/mesh/")


class ByFolder(LoadFileScheduling):  # type: ignore[misc] # xdist has no types
    """Keeps each file's tests in one process, and those of a folder that shares much."""

    def _split_scope(self, nodeid: str) -> str:
        shared = [folder for folder in _TOGETHER if nodeid.startswith(folder)]
        scope: str = shared[0] if shared else super()._split_scope(nodeid)
        return scope


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    """Share out by this instead of what the command line says."""
    return ByFolder(config, log)
