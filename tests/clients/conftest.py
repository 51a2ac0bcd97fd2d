"""The small mesh that client tests talk to."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.clients import small_mesh


@pytest_asyncio.fixture
async def mesh() -> AsyncIterator[small_mesh.SmallMesh]:
    """A small mesh on a free port."""
    async with small_mesh.serve() as running:
        yield running
