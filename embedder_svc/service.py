"""EmbedderService: proto to domain and back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration

from embedder_svc import packing
from embedder_svc.batching import Priority
from embedder_svc.embedding import Embedder, Embedding
from embedder_svc.encoding import Card, EncoderCard, Task
from embedder_svc.ordering import in_order
from embedder_svc.packing import Width
from embedder_svc.ranking import Ranker
from embedder_svc.timing import Stage
from meshkit.errors import not_found
from ragmesh.common.v1 import usage_pb2, vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

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
    """Answers for one encoder and, where configured, one cross-encoder; its app opens and closes them."""

    def __init__(self, embedder: Embedder, ranker: Ranker | None, stream_depth: int) -> None:
        self._embedder = embedder
        self._ranker = ranker
        self._stream_depth = stream_depth

    async def Embed(self, request: embedder_pb2.EmbedRequest, context: Context) -> embedder_pb2.EmbedResponse:
        """The vectors of the texts; queries go before bulk work."""
        interactive = _TASKS[request.task] is Task.QUERY
        return await self._embed(request, Priority.INTERACTIVE if interactive else Priority.BULK)

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedder_pb2.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[embedder_pb2.EmbedStreamResponse]:
        """The vectors of batch after batch, in order, a few at once."""
        async with aclosing(in_order(request_iterator, self._embed_batch, self._stream_depth)) as answers:
            async for answer in answers:
                yield answer

    async def Rerank(self, request: embedder_pb2.RerankRequest, context: Context) -> embedder_pb2.RerankResponse:
        """The texts, best first."""
        ranker = self._reranker(request.model)
        ranking = await ranker.rank(request.query, list(request.texts), request.top_n)
        ranked = [embedder_pb2.RankedText(index=text.position, score=text.score) for text in ranking.ranked]
        timings = _timings(ranking.stages)
        return embedder_pb2.RerankResponse(ranked=ranked, model=ranker.card.versioned, timings=timings)

    async def Tokenize(self, request: embedder_pb2.TokenizeRequest, context: Context) -> embedder_pb2.TokenizeResponse:
        """Where the tokens end."""
        embedder = self._encoder(request.model)
        ends = await embedder.byte_ends(list(request.texts))
        return embedder_pb2.TokenizeResponse(texts=[embedder_pb2.TokenEnds(ends=of_text) for of_text in ends])

    async def GetInfo(self, request: embedder_pb2.GetInfoRequest, context: Context) -> embedder_pb2.GetInfoResponse:
        """The models, the encoder first."""
        infos = [_encoder_info(self._embedder.card, ready=self._embedder.alive)]
        if self._ranker:
            infos.append(_reranker_info(self._ranker.card, ready=self._ranker.alive))
        found = [info for info in infos if request.model in ("", info.model)]
        if not found:
            raise not_found("model", request.model, "MODEL_NOT_FOUND")
        return embedder_pb2.GetInfoResponse(models=found)

    async def _embed_batch(self, request: embedder_pb2.EmbedStreamRequest) -> embedder_pb2.EmbedStreamResponse:
        return embedder_pb2.EmbedStreamResponse(batch=await self._embed(request.batch, Priority.BULK))

    async def _embed(self, request: embedder_pb2.EmbedRequest, priority: Priority) -> embedder_pb2.EmbedResponse:
        embedder = self._encoder(request.model)
        task = _TASKS[request.task]
        embedding = await embedder.embed(list(request.texts), task, request.dimensions, priority=priority)
        return _embed_response(embedding, _WIDTHS[request.dtype], embedder.card.versioned)

    def _encoder(self, model: str) -> Embedder:
        if model not in ("", self._embedder.card.name):
            raise not_found("model", model, "MODEL_NOT_FOUND")
        return self._embedder

    def _reranker(self, model: str) -> Ranker:
        if self._ranker is None or model not in ("", self._ranker.card.name):
            raise not_found("model", model or "(the default reranker)", "MODEL_NOT_FOUND")
        return self._ranker


def _embed_response(embedding: Embedding, width: Width, model: str) -> embedder_pb2.EmbedResponse:
    count, dimension = embedding.vectors.shape
    packed = vector_pb2.PackedVectors(
        data=packing.pack(embedding.vectors, width), dtype=_DTYPES[width], dimension=dimension, count=count
    )
    return embedder_pb2.EmbedResponse(
        vectors=packed,
        token_counts=[length.tokens for length in embedding.lengths],
        truncated=[place for place, length in enumerate(embedding.lengths) if length.truncated],
        model=model,
        timings=_timings(embedding.stages),
    )


def _timings(stages: Sequence[Stage]) -> usage_pb2.Timings:
    return usage_pb2.Timings(
        timings=[
            usage_pb2.Timing(stage=stage.name, start=_duration(stage.start_s), duration=_duration(stage.duration_s))
            for stage in stages
        ]
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


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
