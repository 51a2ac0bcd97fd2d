"""From a query and texts to the texts' order by relevance, as a cross-encoder sees it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from embedder_svc.batching import Batcher, BatcherLoad, BatchLimits, Device, Entry, Priority, open_batcher
from embedder_svc.encoding import Card, Reranker
from embedder_svc.tokenizing import Tokenizing, open_tokenizing
from meshkit.timing import Stage, Stopwatch

_Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A text by its place in the call, and its score."""

    position: int
    score: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """The texts, best first, and where the call's time went."""

    ranked: list[Ranked]
    stages: tuple[Stage, ...]


class Ranker:
    """A reranker that many callers share; `open_ranker` makes and closes it."""

    def __init__(self, reranker: Reranker, batcher: Batcher[_Pair, float], tokenizing: Tokenizing) -> None:
        self._reranker = reranker
        self._batcher = batcher
        self._tokenizing = tokenizing

    @property
    def card(self) -> Card:
        """What scores."""
        return self._reranker.card

    @property
    def alive(self) -> bool:
        """Whether calls will be answered."""
        return self._batcher.alive

    @property
    def load(self) -> BatcherLoad:
        """Its calls now."""
        return self._batcher.load

    async def rank(self, query: str, texts: Sequence[str], top_n: int = 0) -> Ranking:
        """The first `top_n` of the texts (0 for all), best first; equal scores keep the order of the texts.

        Raises ResourceExhausted where the queue is full, and what the reranker raised.
        """
        watch = Stopwatch()
        self._batcher.refuse_if_full()
        with watch.stage("tokenize"):
            # A pair is counted whole, so the query as often as there are texts.
            chars = sum(map(len, texts)) + len(query) * len(texts)
            lengths = await self._tokenizing.run(partial(self._reranker.lengths, query, texts), chars)
        entries = [Entry((query, text), max(length.tokens, 1)) for text, length in zip(texts, lengths, strict=True)]
        done = await self._batcher.submit(entries, Priority.INTERACTIVE)
        watch.add("queue", done.submitted_s, done.started_s)
        watch.add("encode", done.started_s, done.ended_s)
        ranked = [Ranked(position, score) for position, score in enumerate(done.results)]
        ranked.sort(key=lambda text: -text.score)
        return Ranking(ranked[: top_n or None], watch.stages)


@asynccontextmanager
async def open_ranker(
    reranker: Reranker, limits: BatchLimits, device: Device, tokenize_threads: int
) -> AsyncIterator[Ranker]:
    """The reranker behind a queue of its own, with so many threads beside it that count tokens."""

    def run(pairs: Sequence[_Pair]) -> Sequence[float]:
        return [float(score) for score in reranker.score(pairs)]

    with open_tokenizing(tokenize_threads) as tokenizing:
        async with open_batcher(run, limits, device) as batcher:
            yield Ranker(reranker, batcher, tokenizing)
