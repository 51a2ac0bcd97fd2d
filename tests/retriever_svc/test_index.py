"""IndexService over a real channel and a real index."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from meshkit.channel import peer_errors
from meshkit.errors import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from meshkit.identity import Identity
from ragmesh.common.v1 import chunk_pb2
from ragmesh.retriever.v1 import index_pb2, retriever_pb2
from tests.retriever_svc.doubles import SmallEmbedder
from tests.retriever_svc.indexes import ENGINES
from tests.retriever_svc.serving import (
    ALICE,
    Caller,
    calling,
    delete,
    head,
    info,
    listed,
    part,
    send,
    serve_embedder,
    serve_retriever,
    upsert,
)

RICH: dict[str, Any] = {
    "source": {"start": 3, "end": 14},
    "page": 2,
    "heading_path": ["Leave", "In Germany"],
    "title": "Handbook",
    "uri": "https://example.com/leave?x=1",
    "token_count": 4,
    "metadata": {"lang": "de", "year": 2024, "share": 0.5, "tags": ["a", "b"], "deep": {"ok": True, "none": None}},
    "content_hash": "h9",
}


async def test_an_index_is_made_described_and_deleted(alice: Caller, engine: str) -> None:
    """Twice is as once; what is deleted is gone, and deleting it again is no error."""
    fields = [{"field": "team", "type": "TYPE_STRING_LIST"}]
    made = await alice.put(language="english", fusion={"weighted": {"dense": 0.5}}, filterable_fields=fields)
    again = await alice.put(language="english", fusion={"weighted": {"dense": 0.5}}, filterable_fields=fields)
    assert made == again == await info(alice)
    assert (made.spec.language, made.spec.fusion.weighted.dense, made.engine) == ("english", 0.5, ENGINES[engine])
    assert made.spec.filterable_fields[0].field == "team"
    await alice.write("one", ["first", "second"])
    request = index_pb2.DeleteIndexRequest(collection="collections/kb")
    assert (await alice.index.DeleteIndex(request)).deleted_chunks == 2
    assert (await alice.index.DeleteIndex(request)).deleted_chunks == 0
    with pytest.raises(NotFound):
        await info(alice)


async def test_a_chunk_comes_back_as_it_went_in(alice: Caller) -> None:
    """Every field of it, metadata of every kind."""
    await alice.put()
    await alice.write("doc", ["text with \x00, 日本 and 🎉"], **RICH)
    request = retriever_pb2.GetChunkRequest(name="collections/kb/documents/doc/chunks/0")
    chunk = (await alice.retriever.GetChunk(request)).chunk
    name = "collections/kb/documents/doc"
    expected = {"name": f"{name}/chunks/0", "document": name, "text": "text with \x00, 日本 and 🎉", **RICH}
    assert chunk == ParseDict(expected, chunk_pb2.Chunk())


async def test_a_document_replaces_its_earlier_content(alice: Caller) -> None:
    """Fewer chunks than before: the rest is deleted, the version moves, the counts follow."""
    await alice.put()
    first = await alice.write("doc", ["one apple", "two apples", "three apples"], metadata={"lang": "en"})
    await alice.write("other", ["an apple"])
    second = await alice.write("doc", ["one pear"])
    assert (first.written_chunks, first.deleted_chunks) == (3, 0)
    assert (second.written_chunks, second.deleted_chunks) == (1, 2)
    assert second.collection_version > first.collection_version
    assert await listed(alice, "doc") == ["one pear"]
    assert await alice.found("apples", mode="SEARCH_MODE_SPARSE") == []
    described = await info(alice)
    assert (described.chunk_count, described.document_count) == (2, 2)
    assert described.version == second.collection_version


async def test_replacing_leaves_nothing_of_the_old_metadata(alice: Caller) -> None:
    """A field that the new content does not have is not found by its old value."""
    await alice.put(filterable_fields=[{"field": "lang", "type": "TYPE_STRING"}])
    await alice.write("doc", ["an apple"], metadata={"lang": "en"}, title="Fruit")
    await alice.write("doc", ["an apple"])
    assert await alice.found("apple", filter="lang:*") == []
    assert await alice.found("apple", filter='title = "Fruit"') == []


async def test_a_document_without_chunks_is_emptied(alice: Caller) -> None:
    """A head alone is a document without text."""
    await alice.put()
    await alice.write("doc", ["one", "two"])
    assert (await send(alice, [head("doc")])).deleted_chunks == 2
    assert await listed(alice, "doc") == []


async def test_settings_leave_the_version(alice: Caller) -> None:
    """They are no change of the content."""
    version = (await alice.put()).version
    assert (await alice.put(language="english")).version == version


async def test_deleting_again_moves_the_version_again(alice: Caller) -> None:
    """A deletion cut off before the version was moved is made good by doing it again, which finds nothing more."""
    version = (await alice.put()).version
    for selection in ({"document": "collections/kb/documents/none"}, {"filter": 'title = "none"'}):
        moved = (await delete(alice, **selection)).collection_version
        assert moved > version
        version = moved


async def test_a_version_is_never_seen_twice(alice: Caller) -> None:
    """Nor after the collection was deleted and made again: caches hold by it."""
    versions = [(await alice.put()).version]
    for text in ("one", "two"):
        versions.append((await alice.write("doc", [text])).collection_version)
    await alice.index.DeleteIndex(index_pb2.DeleteIndexRequest(collection="collections/kb"))
    versions.append((await alice.put()).version)
    assert versions == sorted(set(versions))


async def test_a_stream_that_breaks_changes_nothing(alice: Caller) -> None:
    """The caller leaves after a part: the document has what it had."""
    await alice.put()
    before = await alice.write("doc", ["old"])
    sent = asyncio.Event()

    async def messages() -> AsyncIterator[index_pb2.UpsertDocumentRequest]:
        for message in upsert("doc", ["new one", "new two"]):
            yield message
        sent.set()
        await asyncio.Event().wait()

    call = alice.index.UpsertDocument(messages())
    await sent.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await listed(alice, "doc") == ["old"]
    assert (await info(alice)).version == before.collection_version


async def test_documents_written_at_once_are_all_there(alice: Caller) -> None:
    """Twenty, and one of them by five writers: one writer's content stands whole."""
    await alice.put()
    texts = {f"doc{number}": [f"text {number} {part}" for part in range(3)] for number in range(20)}
    rivals = [[f"rival {number} part {part}" for part in range(number + 1)] for number in range(5)]
    await asyncio.gather(
        *(alice.write(document, chunks) for document, chunks in texts.items()),
        *(alice.write("contested", chunks) for chunks in rivals),
    )
    for document, chunks in texts.items():
        assert await listed(alice, document) == chunks
    contested = await listed(alice, "contested")
    assert contested in rivals
    assert (await info(alice)).chunk_count == 60 + len(contested)


async def test_chunks_are_deleted_by_document_and_by_filter(alice: Caller) -> None:
    """Only those, and as many as are told."""
    await alice.put(filterable_fields=[{"field": "year", "type": "TYPE_NUMBER"}])
    for year in (2019, 2020, 2021):
        await alice.write(f"y{year}", [f"report {year}", "annex"], metadata={"year": year})
    assert (await delete(alice, document="collections/kb/documents/y2020")).deleted_chunks == 2
    assert (await delete(alice, filter="year < 2021")).deleted_chunks == 2
    assert sorted(await alice.found("report annex")) == ["annex", "report 2021"]


async def test_gaps_hide_no_stale_chunk(alice: Caller) -> None:
    """A document of which a filter deleted the middle is still replaced whole."""
    await alice.put()
    pages = [part(f"text {number}", number, page=number) for number in range(4)]
    await send(alice, [head("doc"), *pages])
    assert (await delete(alice, filter="page = 1")).deleted_chunks == 1
    assert await listed(alice, "doc") == ["text 0", "text 2", "text 3"]
    assert (await alice.write("doc", ["new text"])).deleted_chunks == 2
    assert await listed(alice, "doc") == ["new text"]


async def test_an_index_with_chunks_keeps_its_encoder_and_language(alice: Caller) -> None:
    """Without chunks it may have others."""
    await alice.put()
    await alice.put(encoder="words@r2", dimension=8)
    await alice.put(language="chinese")
    await alice.write("doc", ["text"])
    changes: list[dict[str, Any]] = [{"encoder": "words@r2"}, {"dimension": 8}]
    for change in changes:
        with pytest.raises(FailedPrecondition) as caught:
            await alice.put(language="chinese", **change)
        assert caught.value.reason == "ENCODER_MISMATCH"
    with pytest.raises(FailedPrecondition) as caught:
        await alice.put(language="english")
    assert caught.value.reason == "COLLECTION_NOT_EMPTY"
    assert (await info(alice)).spec.language == "chinese"


async def test_chinese_is_found_by_its_words(alice: Caller) -> None:
    """By pairs of characters: a word in the middle of a sentence is found, one that is not there is not."""
    await alice.put(language="chinese")
    await alice.write("k8s", ["容器编排系统的调度器决定在哪个节点运行", "服务发现与负载均衡"])
    assert await alice.found("调度器", mode="SEARCH_MODE_SPARSE") == ["容器编排系统的调度器决定在哪个节点运行"]
    assert await alice.found("负载", mode="SEARCH_MODE_SPARSE") == ["服务发现与负载均衡"]
    assert await alice.found("存储", mode="SEARCH_MODE_SPARSE") == []


async def test_nothing_of_one_tenant_reaches_another(alice: Caller, bob: Caller) -> None:
    """Same names, other tenant: not by search, by name, by list, by filter, by deletion."""
    for caller in (alice, bob):
        await caller.put(filterable_fields=[{"field": "lang", "type": "TYPE_STRING"}])
    await alice.write("secret", ["the merger is on friday"], metadata={"lang": "en"})
    assert await bob.found("merger friday", filter="lang = en OR lang != en") == []
    assert await listed(bob, "secret") == []
    with pytest.raises(NotFound), peer_errors():
        name = "collections/kb/documents/secret/chunks/0"
        await bob.retriever.GetChunk(retriever_pb2.GetChunkRequest(name=name))
    assert (await delete(bob, document="collections/kb/documents/secret")).deleted_chunks == 0
    assert (await delete(bob, filter="lang = en")).deleted_chunks == 0
    await bob.write("secret", ["nothing to see"])
    request = index_pb2.DeleteIndexRequest(collection="collections/kb")
    assert (await bob.index.DeleteIndex(request)).deleted_chunks == 1
    assert await listed(alice, "secret") == ["the merger is on friday"]


async def test_a_collection_of_another_tenant_is_not_found(alice: Caller, bob: Caller) -> None:
    """As one that nobody has."""
    await alice.put()
    await alice.write("doc", ["text"])
    for caller, collection in [(bob, "kb"), (alice, "none")]:
        for call in (caller.search("text", collection), info(caller, collection), listed(caller, "doc", collection)):
            with pytest.raises(NotFound) as caught:
                await call
            assert caught.value.reason == "COLLECTION_NOT_FOUND"
            assert caught.value.metadata == {"collection": f"collections/{collection}"}


async def test_what_callers_may_do(tmp_path: Path) -> None:
    """Search takes `search` or `ask`, writing takes `ingest`, and nothing goes without an identity."""
    async with serve_embedder(SmallEmbedder()) as embedder, serve_retriever(tmp_path, embedder) as address:
        async with calling(address, ALICE) as alice:
            await alice.put()
        async with calling(address, Identity("acme", "reader", frozenset({"ask"}))) as reader:
            assert await reader.found("text") == []
            with pytest.raises(PermissionDenied) as caught:
                await reader.write("doc", ["text"])
            assert caught.value.metadata == {"scope": "ingest"}
        async with calling(address, Identity("acme", "writer", frozenset({"ingest"}))) as writer:
            await writer.write("doc", ["text"])
            with pytest.raises(PermissionDenied) as caught:
                await writer.search("text")
            assert caught.value.metadata == {"scope": "search"}
        async with calling(address, None) as nobody:
            with pytest.raises(Unauthenticated):
                await nobody.search("text")
