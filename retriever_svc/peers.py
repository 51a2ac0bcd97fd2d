"""The embedder, as the retriever sees it: one replica or several."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from math import inf

import grpc
import numpy as np

from meshkit.channel import peer_errors
from meshkit.errors import DeadlineExceeded, NotFound, Unavailable
from ragmesh.common.v1 import vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from retriever_svc.hedging import Hedging, in_turn
from retriever_svc.index import encoder_mismatch
from retriever_svc.packing import Width, unpack
from retriever_svc.search import Encoded, too_slow

_MOST_OF_IT = 0.9


class Replica:
    """One server of the embedder, over a channel that it does not own.

    One that has failed is left alone for a while: others go before it. One that has not answered in time is not called
    at all meanwhile, or each search would wait for it anew.
    """

    def __init__(self, channel: grpc.aio.Channel, cooldown_s: float) -> None:
        self.calls = 0
        self._channel = channel
        self._stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        self._cooldown_s = cooldown_s
        self._failed_s = -inf
        self._hung_s = -inf

    @property
    def ready(self) -> bool:
        """Whether it is connected, and has not failed of late; asking connects it."""
        connected = self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY
        return connected and time.monotonic() >= self._failed_s + self._cooldown_s

    @property
    def hangs(self) -> bool:
        """Whether it has not answered in time of late."""
        return time.monotonic() < self._hung_s + self._cooldown_s

    async def embed(self, request: embedder_pb2.EmbedRequest, timeout_s: float) -> embedder_pb2.EmbedResponse:
        """Encode; raises the peer's MeshError."""
        with self._calling(timeout_s):
            return await self._stub.Embed(request, timeout=timeout_s)

    async def rerank(self, request: embedder_pb2.RerankRequest, timeout_s: float) -> embedder_pb2.RerankResponse:
        """Score; raises the peer's MeshError."""
        with self._calling(timeout_s):
            return await self._stub.Rerank(request, timeout=timeout_s)

    @contextmanager
    def _calling(self, timeout_s: float) -> Iterator[None]:
        began_s = time.monotonic()
        self.calls += 1
        try:
            with peer_errors("embedder"):
                yield
        except Unavailable:
            self._failed_s = time.monotonic()
            raise
        except DeadlineExceeded:
            # A caller may have had less time than that, which says nothing of the replica.
            if (now_s := time.monotonic()) - began_s > timeout_s * _MOST_OF_IT:
                self._failed_s = self._hung_s = now_s
            raise
        finally:
            self.calls -= 1


class EmbedderPeer:
    """The embedder, over replicas that it does not own: those that are ready before others, the least busy first."""

    def __init__(
        self,
        present: Callable[[], Sequence[Replica]],
        hedging: Hedging,
        embed_timeout_s: float,
        rerank_timeout_s: float,
    ) -> None:
        self._present = present
        self._hedging = hedging
        self._embed_timeout_s = embed_timeout_s
        self._rerank_timeout_s = rerank_timeout_s
        self._turns = count()

    async def encode(self, encoder: str, queries: Sequence[str]) -> Encoded:
        """The queries' vectors by the encoder, `name@revision`, or another revision of it.

        Raises FailedPrecondition (ENCODER_MISMATCH) where the embedder has none of that name.
        """
        name, _, _ = encoder.rpartition("@")
        request = embedder_pb2.EmbedRequest(
            model=name, texts=queries, task=embedder_pb2.TASK_TYPE_QUERY, dtype=vector_pb2.DATA_TYPE_FLOAT32
        )
        attempts = [partial(replica.embed, request, self._embed_timeout_s) for replica in self._best_first()]
        try:
            response = await self._hedging.call(attempts)
        except NotFound:
            raise encoder_mismatch(encoder, "none that the embedder serves") from None
        except DeadlineExceeded:
            raise too_slow() from None
        packed = response.vectors
        return Encoded(unpack(packed.data, Width.FLOAT32, packed.dimension, packed.count), response.model)

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """The scores by the embedder's default reranker, in the order of the texts."""
        request = embedder_pb2.RerankRequest(query=query, texts=texts)
        # Not hedged: it is much work, which a second replica would do for nothing.
        attempts = [partial(replica.rerank, request, self._rerank_timeout_s) for replica in self._best_first()]
        try:
            response = await in_turn(attempts)
        except DeadlineExceeded:
            raise too_slow() from None
        scores = np.full(len(texts), np.nan)
        for ranked in response.ranked:
            scores[ranked.index] = ranked.score
        if np.isnan(scores).any():
            raise Unavailable("PEER_UNAVAILABLE", "the embedder did not score every text")
        return [float(score) for score in scores]

    def _best_first(self) -> Sequence[Replica]:
        """The replicas to try: those that are ready, or all where none is; each in its turn among equals."""
        present = self._present()
        if not present:
            raise Unavailable("PEER_UNAVAILABLE", "the embedder has no address", metadata={"peer": "embedder"})
        first = next(self._turns) % len(present)
        turned = [*present[first:], *present[:first]]
        awake = [replica for replica in turned if not replica.hangs]
        if not awake:
            raise too_slow()
        ready = [replica for replica in awake if replica.ready]
        return sorted(ready or awake, key=lambda replica: replica.calls)
