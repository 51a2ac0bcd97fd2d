"""From texts to vectors: look them up, count tokens, wait for a batch, cut to the dimensions asked for."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from embedder_svc.batching import Batcher, BatcherLoad, BatchLimits, Device, Entry, Priority, open_batcher
from embedder_svc.embedding_cache import Encoded, Memory
from embedder_svc.encoding import Encoder, EncoderCard, Length, Task, Vectors
from embedder_svc.offsets import byte_ends
from embedder_svc.packing import cut
from embedder_svc.tokenizing import Tokenizing, open_tokenizing
from meshkit.errors import invalid
from meshkit.timing import Stage, Stopwatch


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vectors of a call ([n, dimension], unit length), the lengths of its texts, where its time went."""

    vectors: Vectors
    lengths: list[Length]
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    task: Task


class Embedder:
    """An encoder that many callers share; `open_embedder` makes and closes it."""

    def __init__(
        self,
        encoder: Encoder,
        batcher: Batcher[_Text, Vectors],
        tokenizing: Tokenizing,
        memory: Memory | None = None,
    ) -> None:
        self._encoder = encoder
        self._batcher = batcher
        self._tokenizing = tokenizing
        self._memory = memory

    @property
    def card(self) -> EncoderCard:
        """What encodes."""
        return self._encoder.card

    @property
    def alive(self) -> bool:
        """Whether calls will be answered."""
        return self._batcher.alive

    @property
    def load(self) -> BatcherLoad:
        """Its calls now."""
        return self._batcher.load

    async def embed(
        self,
        texts: Sequence[str],
        task: Task,
        dimensions: int = 0,
        *,
        tenant: str = "",
        priority: Priority = Priority.BULK,
    ) -> Embedding:
        """The vectors of the texts (at least one), in order; 0 dimensions are all of them.

        Equal texts are encoded once, and those whose vectors the tenant has had made before not at all: a call of
        such texts alone does not see the queue. Raises InvalidArgument for dimensions that the encoder cannot be
        cut to, ResourceExhausted where the queue is full, and what the encoder raised.
        """
        watch = Stopwatch()
        dimension = self._dimension(dimensions)
        wanted = list(dict.fromkeys(texts))
        encoded = await self._remembered(wanted, task, tenant, watch)
        if missing := [text for text in wanted if text not in encoded]:
            made = await self._encode(missing, task, priority, watch)
            encoded |= made
            if self._memory:
                self._memory.keep(tenant, task, made)
        vectors = cut(np.stack([encoded[text].vector for text in texts]), dimension)
        return Embedding(vectors, [encoded[text].length for text in texts], watch.stages)

    async def byte_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text the byte after each token's last one: the text whole, no special tokens."""
        return await self._tokenizing.run(partial(self._byte_ends, texts), sum(map(len, texts)))

    async def _remembered(self, texts: Sequence[str], task: Task, tenant: str, watch: Stopwatch) -> dict[str, Encoded]:
        if self._memory is None:
            return {}
        with watch.stage("cache"):
            return await self._memory.find(tenant, task, texts)

    async def _encode(
        self, texts: Sequence[str], task: Task, priority: Priority, watch: Stopwatch
    ) -> dict[str, Encoded]:
        self._batcher.refuse_if_full()
        with watch.stage("tokenize"):
            count = partial(self._encoder.lengths, texts, task)
            lengths = await self._tokenizing.run(count, sum(map(len, texts)))
        entries = [
            Entry(_Text(text, task), max(length.tokens, 1), task.value)
            for text, length in zip(texts, lengths, strict=True)
        ]
        done = await self._batcher.submit(entries, priority)
        watch.add("queue", done.submitted_s, done.started_s)
        watch.add("encode", done.started_s, done.ended_s)
        return {
            text: Encoded(vector, length) for text, vector, length in zip(texts, done.results, lengths, strict=True)
        }

    def _byte_ends(self, texts: Sequence[str]) -> list[list[int]]:
        return [byte_ends(text, ends) for text, ends in zip(texts, self._encoder.char_ends(texts), strict=True)]

    def _dimension(self, asked: int) -> int:
        whole, allowed = self.card.dimension, self.card.matryoshka_dimensions
        if asked in (0, whole, *allowed):
            return asked or whole
        choice = ", ".join(str(dimension) for dimension in sorted({*allowed, whole}))
        raise invalid("dimensions", f"{self.card.name} can be cut to: {choice}")


@asynccontextmanager
async def open_embedder(
    encoder: Encoder, limits: BatchLimits, device: Device, tokenize_threads: int, memory: Memory | None = None
) -> AsyncIterator[Embedder]:
    """The encoder behind a queue of its own, with so many threads beside it that count tokens."""

    def run(items: Sequence[_Text]) -> Sequence[Vectors]:
        return list(encoder.encode([item.text for item in items], items[0].task))

    with open_tokenizing(tokenize_threads) as tokenizing:
        async with open_batcher(run, limits, device) as batcher:
            yield Embedder(encoder, batcher, tokenizing, memory)
