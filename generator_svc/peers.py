"""The embedder, as the generator sees it."""

import struct
from collections.abc import Sequence
from operator import mul

import grpc

from meshkit.channel import peer_errors, streaming
from meshkit.errors import Unavailable
from ragmesh.common.v1 import vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc


class EncoderPeer:
    """The embedder's default encoder, over a channel that it does not own."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        self._timeout_s = timeout_s

    async def similarities(self, question: str, texts: Sequence[str]) -> list[float]:
        """The cosine of each text with the question, in order; raises MeshError where it cannot be had in time."""
        # Two calls at once, as some encoders treat a question unlike what it is compared with.
        with peer_errors("embedder"):
            async with (
                streaming(self._embed([question], embedder_pb2.TASK_TYPE_QUERY)) as asking,
                streaming(self._embed(texts, embedder_pb2.TASK_TYPE_DOCUMENT)) as comparing,
            ):
                asked, found = _vectors(await asking, 1)[0], _vectors(await comparing, len(texts))
        return [sum(map(mul, asked, vector)) for vector in found]

    def _embed(
        self, texts: Sequence[str], task: embedder_pb2.TaskType.ValueType
    ) -> grpc.aio.UnaryUnaryCall[embedder_pb2.EmbedRequest, embedder_pb2.EmbedResponse]:
        request = embedder_pb2.EmbedRequest(texts=texts, task=task, dtype=vector_pb2.DATA_TYPE_FLOAT32)
        return self._stub.Embed(request, timeout=self._timeout_s)


def _vectors(response: embedder_pb2.EmbedResponse, count: int) -> list[tuple[float, ...]]:
    """So many vectors, of unit length; raises Unavailable where the embedder sent others."""
    packed = response.vectors
    if len(packed.data) != 4 * count * packed.dimension or not packed.dimension:
        raise Unavailable("PEER_UNAVAILABLE", "the embedder did not encode every text")
    return list(struct.iter_unpack(f"<{packed.dimension}f", packed.data))
