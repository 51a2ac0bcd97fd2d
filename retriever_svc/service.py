"""RetrieverService and IndexService: messages to dataclasses and back."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

from meshkit import pagination
from meshkit.errors import InvalidArgument, invalid, not_found
from meshkit.identity import current, require_scope
from meshkit.timing import spans
from meshkit.timing_wire import timings_trailer
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from retriever_svc.grouping import Written
from retriever_svc.index import Scope, State, refuse_encoder
from retriever_svc.indexing import Counts, Indexing
from retriever_svc.receiving import Draft
from retriever_svc.searching import Searching
from retriever_svc.wire import (
    read_chunk,
    read_document,
    read_place,
    read_scope,
    read_search,
    read_searches,
    read_spec,
    read_vectors,
    write_chunk,
    write_index,
    write_result,
)

Context = grpc.aio.ServicerContext[Any, Any]


class RetrieverService(retriever_pb2_grpc.RetrieverServiceServicer):
    """Searches for callers with the scope `search`, or `ask`, for whom the gateway searches."""

    def __init__(self, searching: Searching) -> None:
        self._searching = searching

    async def Search(self, request: retriever_pb2.SearchRequest, context: Context) -> retriever_pb2.SearchResponse:
        _require_search()
        scope = read_scope(request.collection)
        result = await self._searching.search(scope, read_search(request))
        context.set_trailing_metadata(timings_trailer(result.stages))
        return write_result(result, scope, explain=request.explain)

    async def BatchSearch(
        self, request: retriever_pb2.BatchSearchRequest, context: Context
    ) -> retriever_pb2.BatchSearchResponse:
        _require_search()
        searches = read_searches(request.searches)
        results = await self._searching.batch(searches)
        context.set_trailing_metadata(timings_trailer(spans(result.stages for result in results)))
        responses = [
            write_result(result, scope, explain=search.explain)
            for search, (scope, _), result in zip(request.searches, searches, results, strict=True)
        ]
        return retriever_pb2.BatchSearchResponse(responses=responses)

    async def GetChunk(
        self, request: retriever_pb2.GetChunkRequest, context: Context
    ) -> retriever_pb2.GetChunkResponse:
        _require_search()
        scope, place = read_place(request.name)
        chunk, window = await self._searching.read_around(scope, place, request.window)
        if chunk is None:
            raise not_found("chunk", request.name, "CHUNK_NOT_FOUND")
        around = [write_chunk(other, scope) for other in window]
        return retriever_pb2.GetChunkResponse(chunk=write_chunk(chunk, scope), window=around)

    async def ListChunks(
        self, request: retriever_pb2.ListChunksRequest, context: Context
    ) -> retriever_pb2.ListChunksResponse:
        _require_search()
        scope, document = read_document(request.parent)
        token_scope = f"ListChunks {scope.tenant} {request.parent}"
        first = int(pagination.decode(request.page_token, token_scope) or 0)
        size = pagination.page_size(request.page_size)
        chunks = await self._searching.list(scope, document, first, size + 1)
        more = len(chunks) > size
        return retriever_pb2.ListChunksResponse(
            chunks=[write_chunk(chunk, scope) for chunk in chunks[:size]],
            next_page_token=pagination.encode(str(first + size), token_scope) if more else "",
        )


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """The largest document that UpsertDocument takes."""

    max_chunks: int
    max_bytes: int


class IndexService(index_pb2_grpc.IndexServiceServicer):
    """Writes for callers with the scope `ingest`, and describes for those who search too."""

    def __init__(self, indexing: Indexing, limits: DocumentLimits) -> None:
        self._indexing = indexing
        self._limits = limits

    async def PutIndex(self, request: index_pb2.PutIndexRequest, context: Context) -> index_pb2.PutIndexResponse:
        require_scope("ingest")
        scope = read_scope(request.spec.collection)
        state = await self._indexing.put(scope, read_spec(request.spec))
        return index_pb2.PutIndexResponse(index=await self._info(scope, state))

    async def GetIndex(self, request: index_pb2.GetIndexRequest, context: Context) -> index_pb2.GetIndexResponse:
        if "ingest" not in current().scopes:
            _require_search()
        scope = read_scope(request.collection)
        state = await self._indexing.get(scope)
        if request.without_counts:
            return index_pb2.GetIndexResponse(index=write_index(scope, state, Counts(0, 0), self._indexing.engine))
        return index_pb2.GetIndexResponse(index=await self._info(scope, state))

    async def DeleteIndex(
        self, request: index_pb2.DeleteIndexRequest, context: Context
    ) -> index_pb2.DeleteIndexResponse:
        require_scope("ingest")
        deleted = await self._indexing.drop(read_scope(request.collection))
        return index_pb2.DeleteIndexResponse(deleted_chunks=deleted)

    async def UpsertDocument(
        self, request_iterator: AsyncIterator[index_pb2.UpsertDocumentRequest], context: Context
    ) -> index_pb2.UpsertDocumentResponse:
        require_scope("ingest")
        head = await _read_head(request_iterator)
        scope, document = read_document(head.document)
        spec = (await self._indexing.get(scope)).spec
        refuse_encoder(spec, head.encoder)
        draft = Draft(spec, self._limits.max_chunks, self._limits.max_bytes)
        async for message in request_iterator:
            if message.WhichOneof("content") != "part":
                raise _out_of_order("part")
            _add_part(draft, message.part, head)
        # To a server, a caller who died looks like one who has sent all: only who can still be written to has not left.
        await context.send_initial_metadata(())
        written = await self._indexing.replace_document(scope, document, draft.chunks, draft.vectors, head.encoder)
        return index_pb2.UpsertDocumentResponse(
            written_chunks=written.written,
            deleted_chunks=written.deleted,
            collection_version=written.version,
        )

    async def DeleteChunks(
        self, request: index_pb2.DeleteChunksRequest, context: Context
    ) -> index_pb2.DeleteChunksResponse:
        require_scope("ingest")
        deleted = await self._delete(read_scope(request.collection), request)
        return index_pb2.DeleteChunksResponse(deleted_chunks=deleted.deleted, collection_version=deleted.version)

    async def SwitchIndex(
        self, request: index_pb2.SwitchIndexRequest, context: Context
    ) -> index_pb2.SwitchIndexResponse:
        require_scope("ingest")
        scope, target = read_scope(request.collection), read_scope(request.target)
        state = await self._indexing.switch(scope, target, request.expected_version)
        return index_pb2.SwitchIndexResponse(index=await self._info(scope, state))

    async def _delete(self, scope: Scope, request: index_pb2.DeleteChunksRequest) -> Written:
        if request.WhichOneof("selection") == "filter":
            return await self._indexing.delete_where(scope, request.filter)
        named, document = read_document(request.document)
        if named != scope:
            raise invalid("document", f"is not in {request.collection}")
        return await self._indexing.delete_document(scope, document)

    async def _info(self, scope: Scope, state: State) -> index_pb2.IndexInfo:
        counts = await self._indexing.count(scope, state)
        return write_index(scope, state, counts, self._indexing.engine)


async def _read_head(
    messages: AsyncIterator[index_pb2.UpsertDocumentRequest],
) -> index_pb2.UpsertDocumentRequest.Head:
    first = await anext(messages, None)
    if first is None or first.WhichOneof("content") != "head":
        raise _out_of_order("head")
    return first.head


def _add_part(
    draft: Draft,
    part: index_pb2.UpsertDocumentRequest.Part,
    head: index_pb2.UpsertDocumentRequest.Head,
) -> None:
    chunks = [
        read_chunk(chunk, head.document, head.content_hash, f"part.chunks[{place}]")
        for place, chunk in enumerate(part.chunks)
    ]
    draft.add(chunks, read_vectors(part.vectors, "part.vectors") if part.HasField("vectors") else None)


def _out_of_order(expected: str) -> InvalidArgument:
    return InvalidArgument("OUT_OF_ORDER", f"expected a message with the {expected}", metadata={"expected": expected})


def _require_search() -> None:
    if "ask" not in current().scopes:
        require_scope("search")
