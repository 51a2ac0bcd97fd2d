"""IndexService over a real channel and a real index."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import ParseDict

from meshkit.channel import peer_errors
from meshkit.errors import (
    FailedPrecondition,
    InvalidArgument,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from meshkit.identity import Identity
from ragmesh.common.v1 import chunk_pb2, vector_pb2
from ragmesh.retriever.v1 import index_pb2, retriever_pb2
from tests.retriever_svc.doubles import DIMENSION, SmallEmbedder, encode, pack
from tests.retriever_svc.indexes import ENGINES
from tests.retriever_svc.serving import (
    ALICE,
    Caller,
    calling,
    head,
    part,
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


async def send(caller: Caller, messages: Iterable[index_pb2.UpsertDocumentRequest]) -> index_pb2.UpsertDocumentResponse:
    """Send the messages as one UpsertDocument."""
    with peer_errors():
        return await caller.index.UpsertDocument(iter(messages))


async def info(caller: Caller, collection: str = "kb") -> index_pb2.IndexInfo:
    """What GetIndex says."""
    request = index_pb2.GetIndexRequest(collection=f"collections/{collection}")
    with peer_errors():
        return (await caller.index.GetIndex(request)).index


async def delete(caller: Caller, **selection: str) -> index_pb2.DeleteChunksResponse:
    """Delete chunks of the collection `kb`."""
    with peer_errors():
        return await caller.index.DeleteChunks(index_pb2.DeleteChunksRequest(collection="collections/kb", **selection))


async def listed(caller: Caller, document: str, collection: str = "kb") -> list[str]:
    """The texts of a document's chunks."""
    parent = f"collections/{collection}/documents/{document}"
    with peer_errors():
        response = await caller.retriever.ListChunks(retriever_pb2.ListChunksRequest(parent=parent))
    return [chunk.text for chunk in response.chunks]


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


async def test_the_version_stays_where_nothing_changes(alice: Caller) -> None:
    """Deleting what is not there, and settings, are no change of the content."""
    version = (await alice.put()).version
    assert (await delete(alice, document="collections/kb/documents/none")).collection_version == version
    assert (await alice.put(language="english")).version == version


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


def with_vector(vectors: vector_pb2.PackedVectors, text: str = "text") -> index_pb2.UpsertDocumentRequest:
    """A part of one chunk with these vectors."""
    chunks = [chunk_pb2.Chunk(text=text)]
    return index_pb2.UpsertDocumentRequest(part=index_pb2.UpsertDocumentRequest.Part(chunks=chunks, vectors=vectors))


NAN = np.full(DIMENSION, np.nan, dtype=np.float32)
BAD_STREAMS: dict[str, tuple[list[index_pb2.UpsertDocumentRequest], type[MeshError], str, str]] = {
    "nothing": ([], InvalidArgument, "OUT_OF_ORDER", ""),
    "no head": ([part("text", 0)], InvalidArgument, "OUT_OF_ORDER", ""),
    "two heads": ([head("doc"), head("doc")], InvalidArgument, "OUT_OF_ORDER", ""),
    "unknown collection": ([head("doc", "none")], NotFound, "COLLECTION_NOT_FOUND", ""),
    "bad name": ([head("../doc")], InvalidArgument, "INVALID_FIELD", "head.document"),
    "ordinal missing": (
        [head("doc"), part("a", 0), part("c", 2)],
        InvalidArgument,
        "INVALID_FIELD",
        "part.chunks[0].ordinal",
    ),
    "ordinal twice": (
        [head("doc"), part("a", 0), part("b", 0)],
        InvalidArgument,
        "INVALID_FIELD",
        "part.chunks[0].ordinal",
    ),
    "another document": (
        [head("doc"), part("a", 0, document="collections/kb/documents/other")],
        InvalidArgument,
        "INVALID_FIELD",
        "part.chunks[0].document",
    ),
    "another name": (
        [head("doc"), part("a", 0, name="collections/kb/documents/doc/chunks/1")],
        InvalidArgument,
        "INVALID_FIELD",
        "part.chunks[0].name",
    ),
    "long text": (
        [head("doc"), part("é" * 40_000, 0)],
        InvalidArgument,
        "TOO_LARGE",
        "part.chunks[0].text",
    ),
    "long title": (
        [head("doc"), part("a", 0, title="t" * 5000)],
        InvalidArgument,
        "TOO_LARGE",
        "part.chunks[0].title",
    ),
    "large metadata": (
        [head("doc"), part("a", 0, metadata={"x": "y" * 70_000})],
        InvalidArgument,
        "TOO_LARGE",
        "part.chunks[0].metadata",
    ),
    "no vectors": ([head("doc"), with_vector(pack([]))], InvalidArgument, "INVALID_FIELD", "part.vectors.count"),
    "bytes missing": (
        [head("doc"), with_vector(vector_pb2.PackedVectors(data=b"123", dimension=DIMENSION, count=1))],
        InvalidArgument,
        "INVALID_FIELD",
        "part.vectors",
    ),
    "not finite": ([head("doc"), with_vector(pack([NAN]))], InvalidArgument, "INVALID_FIELD", "part.vectors"),
    "another dimension": (
        [head("doc"), with_vector(pack([encode("text", 8)], 8))],
        FailedPrecondition,
        "ENCODER_MISMATCH",
        "",
    ),
}


@pytest.mark.parametrize("case", BAD_STREAMS)
async def test_bad_documents_are_refused(case: str, alice: Caller) -> None:
    """Each with its status, reason and field; the document has what it had."""
    messages, kind, reason, field = BAD_STREAMS[case]
    await alice.put()
    await alice.write("doc", ["old"])
    with pytest.raises(MeshError) as caught:
        await send(alice, messages)
    assert (type(caught.value), caught.value.reason) == (kind, reason)
    assert [violation.field for violation in caught.value.violations] == ([field] if field else [])
    assert await listed(alice, "doc") == ["old"]


async def test_a_document_may_not_be_larger_than_the_limits(tmp_path: Path) -> None:
    """In chunks or in bytes; the limit is told."""
    limits: dict[str, Any] = {"max_document_chunks": 2, "max_document_bytes": 1000}
    async with serve_retriever(tmp_path, **limits) as address, calling(address) as alice:
        await alice.put()
        with pytest.raises(InvalidArgument) as caught:
            await alice.write("doc", ["a", "b", "c"])
        assert caught.value.reason == "TOO_LARGE"
        assert caught.value.metadata == {"limit_chunks": "2", "chunks": "3"}
        with pytest.raises(InvalidArgument) as caught:
            await alice.write("doc", ["a" * 1000])
        assert caught.value.metadata["limit_bytes"] == "1000"
        assert await listed(alice, "doc") == []


BAD_SEARCHES: dict[str, tuple[dict[str, Any], type[MeshError], str, str]] = {
    "no query": ({"query": " "}, InvalidArgument, "INVALID_FIELD", "query"),
    "no query for words": ({"vector": pack([encode("a")])}, InvalidArgument, "INVALID_FIELD", "query"),
    "long query": ({"query": "a" * 70_000}, InvalidArgument, "INVALID_FIELD", "query"),
    "bad collection": ({"collection": "No Such"}, InvalidArgument, "INVALID_FIELD", "collection"),
    "mode": ({"mode": 9}, InvalidArgument, "INVALID_FIELD", "mode"),
    "top_k": ({"top_k": 1001}, InvalidArgument, "INVALID_FIELD", "top_k"),
    "negative top_k": ({"top_k": -1}, InvalidArgument, "INVALID_FIELD", "top_k"),
    "candidates": ({"candidates": 2001}, InvalidArgument, "INVALID_FIELD", "candidates"),
    "diversity": ({"diversity": 1.5}, InvalidArgument, "INVALID_FIELD", "diversity"),
    "diversity nan": ({"diversity": "NaN"}, InvalidArgument, "INVALID_FIELD", "diversity"),
    "window": ({"window": 11}, InvalidArgument, "INVALID_FIELD", "window"),
    "window and top_k": ({"window": 10, "top_k": 1000}, InvalidArgument, "INVALID_FIELD", "window"),
    "min_score": ({"min_score": "Infinity"}, InvalidArgument, "INVALID_FIELD", "min_score"),
    "weight": ({"fusion": {"weighted": {"dense": 2}}}, InvalidArgument, "INVALID_FIELD", "fusion.weighted.dense"),
    "two vectors": ({"vector": pack([encode("a")] * 2)}, InvalidArgument, "INVALID_FIELD", "vector.count"),
    "no vector": ({"vector": pack([])}, InvalidArgument, "INVALID_FIELD", "vector.count"),
    "zero vector": (
        {"vector": pack([np.zeros(DIMENSION, dtype=np.float32)])},
        InvalidArgument,
        "INVALID_FIELD",
        "vector",
    ),
    "broken vector": (
        {"vector": vector_pb2.PackedVectors(data=b"1", dimension=4, count=1)},
        InvalidArgument,
        "INVALID_FIELD",
        "vector",
    ),
    "another dimension": ({"vector": pack([encode("a", 8)], 8)}, FailedPrecondition, "ENCODER_MISMATCH", ""),
    "filter": ({"filter": "lang ="}, InvalidArgument, "INVALID_FILTER", "filter"),
    "filter on the tenant": ({"filter": "tenant = bolt"}, InvalidArgument, "INVALID_FILTER", "filter"),
    "long filter": ({"filter": "a" * 9000}, InvalidArgument, "INVALID_FIELD", "filter"),
}


@pytest.mark.parametrize("case", BAD_SEARCHES)
async def test_bad_searches_are_refused(case: str, alice: Caller) -> None:
    """Each with its status, reason and field."""
    fields, kind, reason, field = BAD_SEARCHES[case]
    await alice.put()
    values = {"query": "text" if case != "no query for words" else "", **fields}
    with pytest.raises(MeshError) as caught:
        await alice.search(**values)
    assert (type(caught.value), caught.value.reason) == (kind, reason)
    assert [violation.field for violation in caught.value.violations] == ([field] if field else [])


BAD_SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "collection": ({"collection": "../x"}, "spec.collection"),
    "encoder": ({"encoder": ""}, "spec.encoder"),
    "dimension": ({"dimension": 0}, "spec.dimension"),
    "language": ({"language": "klingon"}, "spec.language"),
    "field's name": (
        {"filterable_fields": [{"field": "A b", "type": "TYPE_BOOL"}]},
        "spec.filterable_fields[0].field",
    ),
    "field's type": ({"filterable_fields": [{"field": "a"}]}, "spec.filterable_fields[0].type"),
    "built-in field": (
        {"filterable_fields": [{"field": "title", "type": "TYPE_STRING"}]},
        "spec.filterable_fields[0].field",
    ),
    "field twice": (
        {"filterable_fields": [{"field": "a", "type": "TYPE_BOOL"}, {"field": "a", "type": "TYPE_STRING"}]},
        "spec.filterable_fields",
    ),
}


@pytest.mark.parametrize("case", BAD_SPECS)
async def test_bad_settings_are_refused(case: str, alice: Caller) -> None:
    """With the field."""
    values, field = BAD_SPECS[case]
    with pytest.raises(InvalidArgument) as caught:
        await alice.put(**values)
    assert caught.value.reason == "INVALID_FIELD"
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_bad_deletions_are_refused(alice: Caller) -> None:
    """No selection, a document of another collection, a filter that is none."""
    await alice.put()
    for selection, reason in [
        ({}, "INVALID_FIELD"),
        ({"document": "collections/other/documents/doc"}, "INVALID_FIELD"),
        ({"filter": "lang = en"}, "INVALID_FILTER"),
        ({"filter": " "}, "INVALID_FILTER"),
    ]:
        with pytest.raises(InvalidArgument) as caught:
            await delete(alice, **selection)
        assert caught.value.reason == reason


async def test_bad_page_tokens_are_refused(alice: Caller) -> None:
    """One made up, and one of another document."""
    await alice.put()
    await alice.write("doc", ["one", "two"])
    request = retriever_pb2.ListChunksRequest(parent="collections/kb/documents/doc", page_size=1)
    token = (await alice.retriever.ListChunks(request)).next_page_token
    for parent, bad in [("doc", "made-up"), ("other", token)]:
        request = retriever_pb2.ListChunksRequest(parent=f"collections/kb/documents/{parent}", page_token=bad)
        with pytest.raises(InvalidArgument) as caught, peer_errors():
            await alice.retriever.ListChunks(request)
        assert caught.value.reason == "INVALID_PAGE_TOKEN"


async def test_bytes_that_are_no_message_are_refused(tmp_path: Path) -> None:
    """Never INTERNAL."""
    async with serve_retriever(tmp_path) as address, grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/ragmesh.retriever.v1.RetrieverService/Search")
        metadata = (("x-ragmesh-tenant", "acme"), ("x-ragmesh-subject", "a"), ("x-ragmesh-scopes", "search"))
        with pytest.raises(InvalidArgument) as caught, peer_errors():
            await call(b"\x12\x02\xff\xfe", metadata=metadata)
    assert caught.value.reason == "MALFORMED_MESSAGE"
