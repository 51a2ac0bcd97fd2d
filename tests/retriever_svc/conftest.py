"""A retriever over an empty index, with its embedder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.retriever_svc.doubles import SmallEmbedder
from tests.retriever_svc.serving import Caller, callers


@pytest.fixture
def embedder() -> SmallEmbedder:
    """The embedder that the retriever calls, without a reranker."""
    return SmallEmbedder()


@pytest.fixture(params=["lance", "milvus"])
def engine(request: pytest.FixtureRequest) -> str:
    """What keeps the chunks, as its URI names it."""
    return str(request.param)


@pytest_asyncio.fixture
async def pair(tmp_path: Path, embedder: SmallEmbedder, engine: str) -> AsyncIterator[tuple[Caller, Caller]]:
    """Alice and Bob, of two tenants."""
    async with callers(tmp_path, embedder, engine) as both:
        yield both


@pytest.fixture
def alice(pair: tuple[Caller, Caller]) -> Caller:
    """A caller with every scope that the retriever asks for."""
    return pair[0]


@pytest.fixture
def bob(pair: tuple[Caller, Caller]) -> Caller:
    """Alice's like in another tenant."""
    return pair[1]
