"""A small index in memory: exact by vectors, and by how many of the query's words a chunk has."""

from collections.abc import Collection, Sequence

import numpy as np

from retriever_svc.filtering import Condition
from retriever_svc.index import Chunk, IndexSpec, Place, Scope, Scored, State, Vectors
from retriever_svc.search import Encoded
from tests.retriever_svc.doubles import DIMENSION, ENCODER, encode, words

SPEC = IndexSpec(ENCODER, DIMENSION)


class SmallIndex:
    """Finds among the chunks given; reads what a search asks for, and writes nothing."""

    engine = "small"

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self.chunks = {
            Place(f"doc-{number}", ordinal): Chunk(Place(f"doc-{number}", ordinal), text)
            for number, texts in enumerate(documents)
            for ordinal, text in enumerate(texts)
        }
        self.reads = 0

    async def load(self, _scope: Scope) -> State:
        return State(SPEC, 1)

    async def search_dense(
        self, _scope: Scope, _spec: IndexSpec, vector: Vectors, limit: int, _condition: Condition | None
    ) -> list[Scored]:
        return self._best({place: float(vector @ encode(chunk.text)) for place, chunk in self.chunks.items()}, limit)

    async def search_sparse(
        self, _scope: Scope, _spec: IndexSpec, query: str, limit: int, _condition: Condition | None
    ) -> list[Scored]:
        asked = set(words(query))
        shared = {place: float(len(asked & set(words(chunk.text)))) for place, chunk in self.chunks.items()}
        return self._best({place: score for place, score in shared.items() if score}, limit)

    async def read(self, _scope: Scope, _spec: IndexSpec, places: Collection[Place]) -> dict[Place, Chunk]:
        self.reads += 1
        return {place: self.chunks[place] for place in places if place in self.chunks}

    async def vectors(self, _scope: Scope, _spec: IndexSpec, places: Collection[Place]) -> dict[Place, Vectors]:
        return {place: encode(self.chunks[place].text) for place in places}

    def _best(self, scores: dict[Place, float], limit: int) -> list[Scored]:
        ordered = sorted(scores.items(), key=lambda scored: (-scored[1], scored[0]))
        return [Scored(place, score) for place, score in ordered[:limit]]


class WordsEmbedder:
    """Encodes as the small embedder does, without a wire; a reranked text's score is its length, negated."""

    async def encode(self, encoder: str, queries: Sequence[str]) -> Encoded:
        return Encoded(np.stack([encode(query) for query in queries]), encoder)

    async def rerank(self, _query: str, texts: Sequence[str]) -> list[float]:
        return [-float(len(text)) for text in texts]
