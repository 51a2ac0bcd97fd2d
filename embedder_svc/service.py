"""EmbedderService: proto to domain and back."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

import grpc

from embedder_svc import packing
from embedder_svc.batching import Priority
from embedder_svc.embedding import Embedder, Embedding
from embedder_svc.encoding import Card, EncoderCard, Task
from embedder_svc.ordering import in_order
from embedder_svc.packing import Width
from embedder_svc.ranking import Ranker
from meshkit.errors import not_found
from meshkit.identity import current
from meshkit.timing_wire import timings_message, timings_trailer
from ragmesh.common.v1 import vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Model = TypeVar("Model", Embedder, Ranker)

_TASKS = {
    embedder_pb2.TASK_TYPE_UNSPECIFIED: Task.DOCUMENT,
    embedder_pb2.TASK_TYPE_DOCUMENT: Task.DOCUMENT,
    embedder_pb2.TASK_TYPE_QUERY: Task.QUERY,
}
_WIDTHS = {
    vector_pb2.DATA_TYPE_UNSPECIFIED: Width.FLOAT32,
    vector_pb2.DATA_TYPE_FLOAT32: Width.FLOAT32,
    vector_pb2.DATA_TYPE_FLOAT16: Width.FLOAT16,
    vector_pb2.DATA_TYPE_BFLOAT16: Width.BFLOAT16,
}
_DTYPES = {
    Width.FLOAT32: vector_pb2.DATA_TYPE_FLOAT32,
    Width.FLOAT16: vector_pb2.DATA_TYPE_FLOAT16,
    Width.BFLOAT16: vector_pb2.DATA_TYPE_BFLOAT16,
}


class EmbedderService(embedder_pb2_grpc.EmbedderServiceServicer):
    """Answers for encoders and cross-encoders by name; its app opens and closes them.

    The first of each kind is the one of requests that name none.
    """

    def __init__(self, embedders: Mapping[str, Embedder], rankers: Mapping[str, Ranker], stream_depth: int) -> None:
        self._embedders = embedders
        self._rankers = rankers
        self._stream_depth = stream_depth

    async def Embed(self, request: embedder_pb2.EmbedRequest, context: Context) -> embedder_pb2.EmbedResponse:
        """The vectors of the texts; queries go before bulk work."""
        interactive = _TASKS[request.task] is Task.QUERY
        embedder = _named(self._embedders, request.model, "encoder")
        embedding = await _embed(embedder, request, Priority.INTERACTIVE if interactive else Priority.BULK)
        context.set_trailing_metadata(timings_trailer(embedding.stages))
        return _embed_response(embedding, request, embedder.card)

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedder_pb2.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[embedder_pb2.EmbedStreamResponse]:
        """The vectors of batch after batch, in order, a few at once."""
        async with aclosing(in_order(request_iterator, self._embed_batch, self._stream_depth)) as answers:
            async for answer in answers:
                yield answer

    async def Rerank(self, request: embedder_pb2.RerankRequest, context: Context) -> embedder_pb2.RerankResponse:
        """The texts, best first."""
        ranker = _named(self._rankers, request.model, "reranker")
        ranking = await ranker.rank(request.query, list(request.texts), request.top_n)
        ranked = [embedder_pb2.RankedText(index=text.position, score=text.score) for text in ranking.ranked]
        timings = timings_message(ranking.stages)
        context.set_trailing_metadata(timings_trailer(ranking.stages))
        return embedder_pb2.RerankResponse(ranked=ranked, model=ranker.card.versioned, timings=timings)

    async def Tokenize(self, request: embedder_pb2.TokenizeRequest, context: Context) -> embedder_pb2.TokenizeResponse:
        """Where the tokens end."""
        embedder = _named(self._embedders, request.model, "encoder")
        ends = await embedder.byte_ends(list(request.texts))
        return embedder_pb2.TokenizeResponse(texts=[embedder_pb2.TokenEnds(ends=of_text) for of_text in ends])

    async def GetInfo(self, request: embedder_pb2.GetInfoRequest, context: Context) -> embedder_pb2.GetInfoResponse:
        """The models, the default encoder first."""
        infos = [_encoder_info(model.card, ready=model.alive) for model in self._embedders.values()]
        infos += [_reranker_info(model.card, ready=model.alive) for model in self._rankers.values()]
        found = [info for info in infos if request.model in ("", info.model)]
        if not found:
            raise not_found("model", request.model, "MODEL_NOT_FOUND")
        return embedder_pb2.GetInfoResponse(models=found)

    async def _embed_batch(self, request: embedder_pb2.EmbedStreamRequest) -> embedder_pb2.EmbedStreamResponse:
        embedder = _named(self._embedders, request.batch.model, "encoder")
        embedding = await _embed(embedder, request.batch, Priority.BULK)
        return embedder_pb2.EmbedStreamResponse(batch=_embed_response(embedding, request.batch, embedder.card))


def _named(models: Mapping[str, Model], name: str, kind: str) -> Model:
    """The model of this name, or the first; raises MODEL_NOT_FOUND."""
    found = models.get(name) if name else next(iter(models.values()), None)
    if found is None:
        raise not_found("model", name or f"(the default {kind})", "MODEL_NOT_FOUND")
    return found


async def _embed(embedder: Embedder, request: embedder_pb2.EmbedRequest, priority: Priority) -> Embedding:
    return await embedder.embed(
        list(request.texts),
        _TASKS[request.task],
        request.dimensions,
        tenant=current().tenant,
        priority=priority,
    )


def _embed_response(
    embedding: Embedding, request: embedder_pb2.EmbedRequest, card: EncoderCard
) -> embedder_pb2.EmbedResponse:
    count, dimension = embedding.vectors.shape
    width = _WIDTHS[request.dtype]
    packed = vector_pb2.PackedVectors(
        data=packing.pack(embedding.vectors, width), dtype=_DTYPES[width], dimension=dimension, count=count
    )
    return embedder_pb2.EmbedResponse(
        vectors=packed,
        token_counts=[length.tokens for length in embedding.lengths],
        truncated=[place for place, length in enumerate(embedding.lengths) if length.truncated],
        model=card.versioned,
        timings=timings_message(embedding.stages),
    )


def _encoder_info(card: EncoderCard, *, ready: bool) -> embedder_pb2.EncoderInfo:
    return embedder_pb2.EncoderInfo(
        model=card.name,
        revision=card.revision,
        kind=embedder_pb2.EncoderInfo.KIND_ENCODER,
        dimension=card.dimension,
        max_tokens=card.max_tokens,
        normalized=True,
        matryoshka_dimensions=card.matryoshka_dimensions,
        backend=card.backend,
        ready=ready,
    )


def _reranker_info(card: Card, *, ready: bool) -> embedder_pb2.EncoderInfo:
    return embedder_pb2.EncoderInfo(
        model=card.name,
        revision=card.revision,
        kind=embedder_pb2.EncoderInfo.KIND_RERANKER,
        max_tokens=card.max_tokens,
        backend=card.backend,
        ready=ready,
    )
