"""The edge with small services behind it, opened once for all of its tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.edge.running import Edge, open_edge


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """The edge as it is configured, in front of the doubles."""
    async with open_edge(tmp_path_factory.mktemp("edge")) as running:
        yield running
