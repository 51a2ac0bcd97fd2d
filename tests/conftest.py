"""How the tests are shared out among processes."""

from pathlib import Path

import pytest

_HERE = Path(__file__).parent
# Their session's fixtures are whole meshes: each is started once, by the one process that has these tests.
_TOGETHER = ("mesh",)


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file's tests in one process, and those of a folder that shares much."""
    for item in items:
        file = item.path.relative_to(_HERE)
        group = file.parts[0] if file.parts[0] in _TOGETHER else str(file)
        item.add_marker(pytest.mark.xdist_group(group))
