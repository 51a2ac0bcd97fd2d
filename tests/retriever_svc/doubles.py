"""A small embedder: hashed bags of words, so that texts that share words are near."""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshkit.errors import not_found
from ragmesh.common.v1 import vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc

DIMENSION = 32
ENCODER = "words@r1"


def encode(text: str, dimension: int = DIMENSION) -> NDArray[np.float32]:
    """The text's vector, of unit length; each word adds one number of its own."""
    vector = np.full(dimension, 1e-3, dtype=np.float32)
    for word in words(text):
        vector[int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big") % dimension] += 1
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def words(text: str) -> list[str]:
    """The words of a text."""
    return re.findall(r"\w+", text.lower())


def pack(vectors: Sequence[NDArray[np.float32]], dimension: int = DIMENSION) -> vector_pb2.PackedVectors:
    """Vectors as the contract carries them."""
    data = b"".join(vector.astype("<f4").tobytes() for vector in vectors)
    return vector_pb2.PackedVectors(
        data=data, dtype=vector_pb2.DATA_TYPE_FLOAT32, dimension=dimension, count=len(vectors)
    )


class SmallEmbedder(embedder_pb2_grpc.EmbedderServiceServicer):
    """Encodes with `encode`, for its models; a reranked text's score is its share of the query's words, less one.

    It has a reranker or has none.
    """

    def __init__(self, *, reranker: bool = False, model: str = ENCODER) -> None:
        self.reranker = reranker
        self.model = model
        self.other_models: tuple[str, ...] = ()
        self.tasks: list[int] = []
        self.asked: list[list[str]] = []
        # Calls wait while it is cleared; `left` counts those that were cancelled.
        self.answers = asyncio.Event()
        self.answers.set()
        self.left = 0

    async def Embed(self, request: embedder_pb2.EmbedRequest, context: Any) -> embedder_pb2.EmbedResponse:
        self.tasks.append(request.task)
        self.asked.append(list(request.texts))
        models = {model.partition("@")[0]: model for model in (self.model, *self.other_models)}
        if request.model not in models:
            raise not_found("model", request.model, "MODEL_NOT_FOUND")
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        vectors = pack([encode(text) for text in request.texts])
        return embedder_pb2.EmbedResponse(vectors=vectors, model=models[request.model])

    async def Rerank(self, request: embedder_pb2.RerankRequest, context: Any) -> embedder_pb2.RerankResponse:
        if not self.reranker:
            raise not_found("model", "(the default reranker)", "MODEL_NOT_FOUND")
        asked = set(words(request.query))
        scores = [len(asked & set(words(text))) / len(asked) - 1 for text in request.texts]
        ranked = sorted(range(len(scores)), key=lambda place: -scores[place])
        return embedder_pb2.RerankResponse(
            ranked=[embedder_pb2.RankedText(index=place, score=scores[place]) for place in ranked]
        )
