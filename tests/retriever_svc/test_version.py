"""The version of a collection, by which caches hold: read cheaply, and another after each change, on each engine."""

import pytest

from meshkit.channel import peer_errors
from meshkit.errors import PermissionDenied
from meshkit.identity import Identity
from ragmesh.retriever.v1 import index_pb2
from tests.retriever_svc.doubles import SmallEmbedder
from tests.retriever_svc.serving import Caller, calling, delete, serve_embedder, serve_retriever


async def described(caller: Caller) -> index_pb2.IndexInfo:
    """What GetIndex says without counting."""
    request = index_pb2.GetIndexRequest(collection="collections/kb", without_counts=True)
    with peer_errors():
        return (await caller.index.GetIndex(request)).index


async def test_every_change_moves_the_version_that_is_read_and_searched(alice: Caller) -> None:
    """Writing, writing again, deleting a document or by a filter, switching; what answers a write says the same."""
    await alice.put()
    await alice.put("_kb")
    seen = [(await described(alice)).version]

    async def moved_to(answered: int | None = None) -> None:
        version = (await described(alice)).version
        assert (await alice.search("one", top_k=1)).collection_version == version
        assert version > seen[-1]
        assert answered in (None, version)
        seen.append(version)

    await moved_to((await alice.write("a", ["one", "two"])).collection_version)
    await moved_to((await alice.write("a", ["one", "three"])).collection_version)
    await moved_to((await alice.write("b", ["one"], title="t")).collection_version)
    await moved_to((await delete(alice, document="collections/kb/documents/a")).collection_version)
    await moved_to((await delete(alice, filter='title = "t"')).collection_version)
    await alice.write("c", ["one"], "_kb")
    switch = index_pb2.SwitchIndexRequest(collection="collections/kb", target="collections/_kb")
    await moved_to((await alice.index.SwitchIndex(switch)).index.version)


async def test_counts_are_left_out_where_they_are_not_wanted(alice: Caller) -> None:
    """The settings and the version are there all the same."""
    made = await alice.put()
    written = await alice.write("a", ["one"])
    index = await described(alice)
    assert (index.spec, index.version) == (made.spec, written.collection_version)
    assert (index.chunk_count, index.document_count) == (0, 0)


@pytest.mark.parametrize(("scope", "may"), [("ask", True), ("search", True), ("ingest", True), ("admin", False)])
async def test_who_searches_may_read_the_version(
    tmp_path_factory: pytest.TempPathFactory, embedder: SmallEmbedder, scope: str, may: bool
) -> None:
    """Callers who ask or search, and those who write; nobody else."""
    folder = tmp_path_factory.mktemp("index")
    async with serve_embedder(embedder) as target, serve_retriever(folder, target) as address:
        async with calling(address) as alice:
            await alice.put()
        async with calling(address, Identity("acme", "carol", frozenset({scope}))) as carol:
            if may:
                assert (await described(carol)).version
                return
            with pytest.raises(PermissionDenied):
                await described(carol)
