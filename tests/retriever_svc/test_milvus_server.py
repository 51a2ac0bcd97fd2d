"""The retriever over a Milvus server, which is killed while people search."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from meshkit.channel import peer_errors
from meshkit.identity import Identity
from ragmesh.retriever.v1 import index_pb2, retriever_pb2
from tests.retriever_svc.doubles import SmallEmbedder
from tests.retriever_svc.milvus_server import MilvusServer, open_milvus_server
from tests.retriever_svc.serving import SCOPES, Caller, calling, serve_embedder, serve_retriever
from tests.search_load import MODES, QUERY, WHOLE, Load, pages

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MilvusServer]:
    """A Milvus server."""
    async with open_milvus_server(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@asynccontextmanager
async def retriever_over(server: MilvusServer, folder: Path) -> AsyncIterator[dict[str, Caller]]:
    """Callers of two tenants, each with the pages in its collection `kb`."""
    async with AsyncExitStack() as stack:
        embedder = await stack.enter_async_context(serve_embedder(SmallEmbedder()))
        address = await stack.enter_async_context(serve_retriever(folder, embedder, milvus_uri=server.uri))
        tenants: dict[str, Caller] = {}
        for tenant in ("acme", "bolt"):
            identity = Identity(tenant, "somebody", SCOPES)
            tenants[tenant] = caller = await stack.enter_async_context(calling(address, identity))
            await caller.put()
            for document, text in pages(tenant).items():
                await caller.write(document, [text])
        yield tenants


async def test_a_server_killed_under_search(server: MilvusServer, tmp_path: Path) -> None:
    """Every search is whole or INDEX_UNAVAILABLE, none is wrong; searches and writes go on when it is back."""
    async with retriever_over(server, tmp_path) as tenants:
        load = Load({tenant: partial(_search, caller) for tenant, caller in tenants.items()})
        await load.learn()
        async with load.running():
            server.process.kill()
            await load.until_not_whole(MODES)
            await server.process.serving()
            healed_s = await load.until_whole()
        load.report("Milvus killed, back", healed_s)
        assert not load.wrong
        assert set().union(*load.ends.values()) <= {WHOLE, "UNAVAILABLE INDEX_UNAVAILABLE"}
        await tenants["acme"].write("late", ["a page that came later"])
        assert await tenants["acme"].found("came later", top_k=1) == ["a page that came later"]
        assert await tenants["bolt"].found("came later", top_k=1, mode="SEARCH_MODE_SPARSE") == []


async def test_a_retriever_finds_what_another_wrote(server: MilvusServer, tmp_path: Path) -> None:
    """Two over one server see each other's writes and settings at once."""
    async with retriever_over(server, tmp_path) as first, retriever_over(server, tmp_path) as second:
        made = await first["acme"].put("shared")
        assert (await second["acme"].put("shared", fusion={"weighted": {"dense": 0.5}})).engine == "milvus"
        assert made.version == (await first["acme"].put("shared", fusion={"weighted": {"dense": 0.5}})).version
        await first["acme"].write("doc", ["written by the first"], "shared")
        assert await second["acme"].found("first", "shared") == ["written by the first"]
        await second["acme"].write("doc", ["written by the second"], "shared")
        assert await first["acme"].found("second", "shared") == ["written by the second"]


async def test_a_server_does_as_the_embedded_one(server: MilvusServer, tmp_path: Path) -> None:
    """Filters, replacement, paging by document and deletion, each within its tenant."""
    async with retriever_over(server, tmp_path) as tenants:
        acme, bolt = tenants["acme"], tenants["bolt"]
        for caller in (acme, bolt):
            await caller.put("wide", filterable_fields=[{"field": "lang", "type": "TYPE_STRING"}])
            await caller.write("doc", ["one cat", "two cats", "three cats"], "wide", metadata={"lang": "en"})
            await caller.write("chat", ["un cat"], "wide", metadata={"lang": "fr"})
        for mode in ("DENSE", "SPARSE", "HYBRID"):
            assert await acme.found("cat", "wide", mode=f"SEARCH_MODE_{mode}", filter="lang = fr") == ["un cat"]
        assert (await acme.write("doc", ["one dog"], "wide")).deleted_chunks == 2
        assert set(await acme.found("cat dog", "wide")) == {"one dog", "un cat"}
        request = index_pb2.DeleteIndexRequest(collection="collections/wide")
        assert (await acme.index.DeleteIndex(request)).deleted_chunks == 2
        assert len(await bolt.found("cats", "wide")) == 4


async def _search(caller: Caller, mode: retriever_pb2.SearchMode.ValueType) -> retriever_pb2.SearchResponse:
    request = retriever_pb2.SearchRequest(collection="collections/kb", query=QUERY, mode=mode)
    with peer_errors():
        return await caller.retriever.Search(request, timeout=10)
