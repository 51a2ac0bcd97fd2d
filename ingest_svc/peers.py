"""The embedder and the retriever's index, as ingestion sees them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from ingest_svc.catalog import Collection, Document, EncoderCard
from ingest_svc.chunking import Chunk
from ingest_svc.encoder import Vectors
from ingest_svc.index import IndexStats, Part
from meshkit.channel import peer_errors, streaming
from meshkit.errors import Internal, NotFound, not_found
from ragmesh.common.v1 import chunk_pb2, vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc, retriever_pb2

_EMBEDDER = "embedder"
_RETRIEVER = "retriever"
_FLOAT32 = vector_pb2.DATA_TYPE_FLOAT32


class EmbedderPeer:
    """The embedder over a channel; lives as long as the channel. See Encoder."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = embedder_pb2_grpc.EmbedderServiceStub(channel)

    async def describe(self, model: str) -> EncoderCard:
        with peer_errors(_EMBEDDER):
            answer = await self._stub.GetInfo(embedder_pb2.GetInfoRequest(model=model))
        for info in answer.models:
            if info.kind == embedder_pb2.EncoderInfo.KIND_ENCODER:
                return EncoderCard(
                    model=info.model,
                    revision=info.revision,
                    dimension=info.dimension,
                    max_tokens=info.max_tokens,
                )
        raise not_found("model", model, "MODEL_NOT_FOUND")

    async def token_ends(self, model: str, text: str) -> Sequence[int]:
        with peer_errors(_EMBEDDER):
            answer = await self._stub.Tokenize(embedder_pb2.TokenizeRequest(model=model, texts=[text]))
        return list(answer.texts[0].ends)

    async def embed(self, model: str, batches: AsyncIterator[Sequence[str]]) -> AsyncGenerator[Vectors]:
        with peer_errors(_EMBEDDER):
            async with streaming(self._stub.EmbedStream()) as call:
                sending = asyncio.create_task(_send(call, model, batches))
                try:
                    while (answer := await call.read()) is not grpc.aio.EOF:
                        yield _vectors(answer)
                    if not sending.done():
                        raise Internal("INTERNAL_ERROR", "the embedder ended its stream before its caller")
                    await sending
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)


async def _send(call: Any, model: str, batches: AsyncIterator[Sequence[str]]) -> None:
    """Send the batches; where that fails, nobody waits for answers any more."""
    try:
        async for batch in batches:
            await send(call, _embed(model, batch))
        await call.done_writing()
    except BaseException:
        call.cancel()
        raise


def _embed(model: str, texts: Sequence[str]) -> embedder_pb2.EmbedStreamRequest:
    batch = embedder_pb2.EmbedRequest(model=model, texts=texts, task=embedder_pb2.TASK_TYPE_DOCUMENT, dtype=_FLOAT32)
    return embedder_pb2.EmbedStreamRequest(batch=batch)


def _vectors(answer: Any) -> Vectors:
    packed = answer.batch.vectors
    dtype = vector_pb2.DataType.Name(packed.dtype)
    return Vectors(packed.data, dtype, packed.dimension, packed.count, answer.batch.model)


class RetrieverPeer:
    """The retriever's index over a channel; lives as long as the channel. See Index."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = index_pb2_grpc.IndexServiceStub(channel)

    async def put(self, collection: Collection) -> None:
        with peer_errors(_RETRIEVER):
            await self._stub.PutIndex(index_pb2.PutIndexRequest(spec=_spec(collection)))

    async def stats(self, collection: str) -> IndexStats:
        try:
            with peer_errors(_RETRIEVER):
                answer = await self._stub.GetIndex(index_pb2.GetIndexRequest(collection=collection))
        except NotFound:
            return IndexStats()
        index = answer.index
        counts = (index.document_count, index.chunk_count, index.version)
        return IndexStats(*counts, index.spec.encoder, index.spec.language)

    async def delete(self, collection: str) -> None:
        with peer_errors(_RETRIEVER):
            await self._stub.DeleteIndex(index_pb2.DeleteIndexRequest(collection=collection))

    async def switch(self, collection: str, target: str) -> None:
        with peer_errors(_RETRIEVER):
            await self._stub.SwitchIndex(index_pb2.SwitchIndexRequest(collection=collection, target=target))

    async def write(
        self, document: Document, encoder: str, metadata: dict[str, Any], parts: AsyncGenerator[Part]
    ) -> None:
        kept = ParseDict(metadata, Struct())
        head = index_pb2.UpsertDocumentRequest.Head(
            document=document.name, content_hash=document.content_hash, encoder=encoder
        )
        with peer_errors(_RETRIEVER):
            async with streaming(self._stub.UpsertDocument()) as call:
                await send(call, index_pb2.UpsertDocumentRequest(head=head))
                async for part in parts:
                    await send(call, index_pb2.UpsertDocumentRequest(part=write_part(document, kept, part)))
                await call.done_writing()
                await call

    async def delete_document(self, document: Document) -> int:
        request = index_pb2.DeleteChunksRequest(collection=f"collections/{document.collection}", document=document.name)
        try:
            with peer_errors(_RETRIEVER):
                answer = await self._stub.DeleteChunks(request)
        except NotFound:
            return 0
        return int(answer.deleted_chunks)


async def send(call: Any, request: Any) -> None:
    """Send a message; where the peer has ended the stream already, raise its reason."""
    try:
        await call.write(request)
    except asyncio.InvalidStateError:
        code = await call.code()
        details, trailers = await call.details(), await call.trailing_metadata()
        raise grpc.aio.AioRpcError(code, await call.initial_metadata(), trailers, details) from None


def write_part(document: Document, metadata: Struct, part: Part) -> index_pb2.UpsertDocumentRequest.Part:
    """Some of a document's chunks, as the index takes them."""
    chunks = [_chunk(document, metadata, chunk) for chunk in part.chunks]
    return index_pb2.UpsertDocumentRequest.Part(chunks=chunks, vectors=_packed(part.vectors))


def _packed(vectors: Vectors | None) -> vector_pb2.PackedVectors | None:
    if vectors is None:
        return None
    return vector_pb2.PackedVectors(
        data=vectors.data,
        dtype=vector_pb2.DataType.Value(vectors.dtype),
        dimension=vectors.dimension,
        count=vectors.count,
    )


def _chunk(document: Document, metadata: Struct, chunk: Chunk) -> chunk_pb2.Chunk:
    return chunk_pb2.Chunk(
        name=f"{document.name}/chunks/{chunk.ordinal}",
        document=document.name,
        ordinal=chunk.ordinal,
        text=chunk.text,
        source=chunk_pb2.Span(start=chunk.start, end=chunk.end),
        page=chunk.page,
        heading_path=chunk.heading_path,
        title=document.title,
        uri=document.uri,
        token_count=chunk.token_count,
        metadata=metadata,
        content_hash=document.content_hash,
    )


def _spec(collection: Collection) -> index_pb2.IndexSpec:
    return index_pb2.IndexSpec(
        collection=collection.name,
        encoder=collection.encoder.name,
        dimension=collection.encoder.dimension,
        language=collection.language,
        fusion=ParseDict(collection.fusion, retriever_pb2.Fusion()) if collection.fusion else None,
        filterable_fields=[
            index_pb2.FilterableField(field=each.field, type=index_pb2.FilterableField.Type.Value(f"TYPE_{each.type}"))
            for each in collection.filterable_fields
        ],
    )
