"""What IndexService and searches refuse, and by which reason."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from meshkit.channel import peer_errors
from meshkit.errors import (
    FailedPrecondition,
    InvalidArgument,
    MeshError,
    NotFound,
)
from ragmesh.common.v1 import chunk_pb2, vector_pb2
from ragmesh.retriever.v1 import index_pb2, retriever_pb2
from tests.retriever_svc.doubles import DIMENSION, encode, pack
from tests.retriever_svc.serving import (
    Caller,
    calling,
    delete,
    head,
    listed,
    part,
    send,
    serve_retriever,
    waiting,
)


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
    "vectors of some": ([head("doc"), part("a", 0), waiting("b", 1)], InvalidArgument, "INVALID_FIELD", "part.vectors"),
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
