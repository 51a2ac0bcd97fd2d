"""Requests that are wrong, by what is wrong with them: the RPC, the message, the reason and the field at fault."""

from __future__ import annotations

from google.protobuf.message import Message

from ragmesh.common.v1 import vector_pb2
from ragmesh.embedder.v1 import embedder_pb2
from ragmesh.gateway.v1 import answers_pb2
from ragmesh.generator.v1 import generator_pb2
from ragmesh.ingest.v1 import collections_pb2, documents_pb2, jobs_pb2
from ragmesh.retriever.v1 import index_pb2, retriever_pb2
from tests.mesh.conftest import COLLECTION

NAME = f"collections/{COLLECTION}"
CODES = {
    "COLLECTION_EXISTS": "ALREADY_EXISTS",
    "COLLECTION_NOT_EMPTY": "FAILED_PRECONDITION",
    "COLLECTION_NOT_FOUND": "NOT_FOUND",
    "DOCUMENT_NOT_FOUND": "NOT_FOUND",
    "INVALID_FIELD": "INVALID_ARGUMENT",
    "INVALID_FILTER": "INVALID_ARGUMENT",
    "INVALID_PAGE_TOKEN": "INVALID_ARGUMENT",
    "JOB_NOT_FOUND": "NOT_FOUND",
    "MODEL_NOT_FOUND": "NOT_FOUND",
    "OUT_OF_ORDER": "INVALID_ARGUMENT",
    "SOURCE_NOT_READABLE": "INVALID_ARGUMENT",
    "TOO_LARGE": "INVALID_ARGUMENT",
    "UNSUPPORTED_BY_ENGINE": "INVALID_ARGUMENT",
}
"""The status of each reason."""

Head, Part = documents_pb2.UploadDocumentRequest.Begin, documents_pb2.UploadDocumentRequest.Part
Ask, Search = "AnswerService.Ask", "RetrieverService.Search"
Embed, Generate = "EmbedderService.Embed", "GeneratorService.Generate"
CreateCollection, UploadDocument = "CollectionService.CreateCollection", "DocumentService.UploadDocument"
LONG = "x" * 40_000


def ask(**fields: object) -> answers_pb2.AskRequest:
    """A question about the collection, with these fields instead."""
    return answers_pb2.AskRequest(**{"question": "Why?", "collection": NAME, **fields})  # type: ignore[arg-type]


def search(**fields: object) -> retriever_pb2.SearchRequest:
    """A search of the collection, with these fields instead."""
    return retriever_pb2.SearchRequest(**{"query": "x", "collection": NAME, **fields})  # type: ignore[arg-type]


def retrieving(**fields: object) -> answers_pb2.AskRequest:
    """A question with these search options."""
    return ask(retrieval=answers_pb2.RetrievalOptions(**fields))  # type: ignore[arg-type]


BAD: dict[str, tuple[str, Message, str, str]] = {
    "a question of no collection": (Ask, ask(collection=""), "INVALID_FIELD", "collection"),
    "an empty question": (Ask, ask(question=""), "INVALID_FIELD", "question"),
    "a question too long": (Ask, ask(question=LONG), "INVALID_FIELD", "question"),
    "an unknown collection": (Ask, ask(collection="collections/none"), "COLLECTION_NOT_FOUND", ""),
    "an unknown model": (Ask, ask(model="none"), "MODEL_NOT_FOUND", ""),
    "a wrong enum in a question": (Ask, ask(cache=99), "INVALID_FIELD", "cache"),
    "a wrong mode in a question": (Ask, retrieving(mode=99), "INVALID_FIELD", "retrieval.mode"),
    "a malformed filter in a question": (Ask, retrieving(filter="page >"), "INVALID_FILTER", "retrieval.filter"),
    "a session's name that is none": (Ask, ask(session="../../etc"), "INVALID_FIELD", "session"),
    "a search of nothing": (Search, search(query=""), "INVALID_FIELD", "query"),
    "a search of an unknown collection": (Search, search(collection="collections/none"), "COLLECTION_NOT_FOUND", ""),
    "a wrong search mode": (Search, search(mode=99), "INVALID_FIELD", "mode"),
    "too many hits": (Search, search(top_k=100_000), "INVALID_FIELD", "top_k"),
    "a malformed filter": (Search, search(filter="title = = 1"), "INVALID_FILTER", "filter"),
    "a filter on an unknown field": (Search, search(filter='salary = "1"'), "INVALID_FILTER", "filter"),
    "a collection's id that is none": (
        CreateCollection,
        collections_pb2.CreateCollectionRequest(collection_id="No Such"),
        "INVALID_FIELD",
        "collection_id",
    ),
    "a collection that exists": (
        CreateCollection,
        collections_pb2.CreateCollectionRequest(collection_id=COLLECTION),
        "COLLECTION_EXISTS",
        "",
    ),
    "a collection that is not there": (
        "CollectionService.GetCollection",
        collections_pb2.GetCollectionRequest(name="collections/none"),
        "COLLECTION_NOT_FOUND",
        "",
    ),
    "a collection with documents": (
        "CollectionService.DeleteCollection",
        collections_pb2.DeleteCollectionRequest(name=NAME),
        "COLLECTION_NOT_EMPTY",
        "",
    ),
    "a page token of another's": (
        "CollectionService.ListCollections",
        collections_pb2.ListCollectionsRequest(page_token="zzz"),
        "INVALID_PAGE_TOKEN",
        "page_token",
    ),
    "a document that is not there": (
        "DocumentService.GetDocument",
        documents_pb2.GetDocumentRequest(name=f"{NAME}/documents/none"),
        "DOCUMENT_NOT_FOUND",
        "",
    ),
    "an upload that begins with bytes": (
        UploadDocument,
        documents_pb2.UploadDocumentRequest(part=Part(data=b"x")),
        "OUT_OF_ORDER",
        "",
    ),
    "a document for no collection": (
        "DocumentService.CreateDocument",
        documents_pb2.CreateDocumentRequest(parent="collections/none", text="x"),
        "COLLECTION_NOT_FOUND",
        "",
    ),
    "a document announced too large": (
        UploadDocument,
        documents_pb2.UploadDocumentRequest(
            begin=Head(document=documents_pb2.DocumentHead(parent=NAME, size_bytes=1 << 50))
        ),
        "TOO_LARGE",
        "",
    ),
    "a job that is not there": ("JobService.GetJob", jobs_pb2.GetJobRequest(name="jobs/none"), "JOB_NOT_FOUND", ""),
    "a job over the server's own files": (
        "JobService.StartJob",
        jobs_pb2.StartJobRequest(collection=NAME, source_uri="file:///etc"),
        "SOURCE_NOT_READABLE",
        "",
    ),
    "nothing to embed": (Embed, embedder_pb2.EmbedRequest(), "INVALID_FIELD", "texts"),
    "an empty text to embed": (Embed, embedder_pb2.EmbedRequest(texts=["a", ""]), "INVALID_FIELD", "texts[1]"),
    "an unknown encoder": (Embed, embedder_pb2.EmbedRequest(texts=["a"], model="none"), "MODEL_NOT_FOUND", ""),
    "a wrong number format": (
        Embed,
        embedder_pb2.EmbedRequest(texts=["a"], dtype=99),  # type: ignore[arg-type]
        "INVALID_FIELD",
        "dtype",
    ),
    "nothing to rerank with": (
        "EmbedderService.Rerank",
        embedder_pb2.RerankRequest(query="a", texts=["b"]),
        "MODEL_NOT_FOUND",
        "",
    ),
    "nothing to generate from": (Generate, generator_pb2.GenerateRequest(), "INVALID_FIELD", "input"),
    "an unknown language model": (
        Generate,
        generator_pb2.GenerateRequest(model="none", prompt="a"),
        "MODEL_NOT_FOUND",
        "",
    ),
    "a prompt for an engine that takes none": (
        Generate,
        generator_pb2.GenerateRequest(prompt="a"),
        "UNSUPPORTED_BY_ENGINE",
        "",
    ),
    "a temperature below zero": (
        Generate,
        generator_pb2.GenerateRequest(prompt="a", sampling=generator_pb2.Sampling(temperature=-1)),
        "INVALID_FIELD",
        "sampling.temperature",
    ),
    "chunks before their document": (
        "IndexService.UpsertDocument",
        index_pb2.UpsertDocumentRequest(part=index_pb2.UpsertDocumentRequest.Part(vectors=vector_pb2.PackedVectors())),
        "OUT_OF_ORDER",
        "",
    ),
    "an index of no dimension": (
        "IndexService.PutIndex",
        index_pb2.PutIndexRequest(spec=index_pb2.IndexSpec(collection=NAME, encoder="x")),
        "INVALID_FIELD",
        "spec.dimension",
    ),
    "an index put in its own place": (
        "IndexService.SwitchIndex",
        index_pb2.SwitchIndexRequest(collection=NAME, target=NAME),
        "INVALID_FIELD",
        "target",
    ),
    "a reindexing by an unknown encoder": (
        "JobService.ReindexCollection",
        jobs_pb2.ReindexCollectionRequest(collection=NAME, encoder="none"),
        "MODEL_NOT_FOUND",
        "",
    ),
    "a deletion by a malformed filter": (
        "IndexService.DeleteChunks",
        index_pb2.DeleteChunksRequest(collection=NAME, filter="(("),
        "INVALID_FILTER",
        "filter",
    ),
}
