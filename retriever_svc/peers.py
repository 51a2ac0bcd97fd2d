"""The embedder, as the retriever sees it."""

from collections.abc import Sequence

import grpc
import numpy as np

from meshkit.channel import peer_errors
from meshkit.errors import Unavailable
from ragmesh.common.v1 import vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from retriever_svc.packing import Width, unpack
from retriever_svc.search import Encoded


class EmbedderPeer:
    """The embedder, over a channel that it does not own."""

    def __init__(self, channel: grpc.aio.Channel, embed_timeout_s: float, rerank_timeout_s: float) -> None:
        self._stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        self._embed_timeout_s = embed_timeout_s
        self._rerank_timeout_s = rerank_timeout_s

    async def encode(self, query: str) -> Encoded:
        """The query's vector, by the embedder's default encoder."""
        request = embedder_pb2.EmbedRequest(
            texts=[query], task=embedder_pb2.TASK_TYPE_QUERY, dtype=vector_pb2.DATA_TYPE_FLOAT32
        )
        with peer_errors("embedder"):
            response = await self._stub.Embed(request, timeout=self._embed_timeout_s)
        packed = response.vectors
        vectors = unpack(packed.data, Width.FLOAT32, packed.dimension, packed.count)
        return Encoded(vectors[0], response.model)

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """The scores by the embedder's default reranker, in the order of the texts."""
        request = embedder_pb2.RerankRequest(query=query, texts=texts)
        with peer_errors("embedder"):
            response = await self._stub.Rerank(request, timeout=self._rerank_timeout_s)
        scores = np.full(len(texts), np.nan)
        for ranked in response.ranked:
            scores[ranked.index] = ranked.score
        if np.isnan(scores).any():
            raise Unavailable("PEER_UNAVAILABLE", "the embedder did not score every text")
        return [float(score) for score in scores]
