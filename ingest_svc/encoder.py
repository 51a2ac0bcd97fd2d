"""The encoder as ingestion sees it."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ingest_svc.catalog import EncoderCard
from ingest_svc.chunking import Chunk
from meshkit.errors import not_found


@dataclass(frozen=True, slots=True)
class Vectors:
    """Packed vectors, one row a text; `dtype` is the contract's name, `encoder` is who made them: name@revision."""

    data: bytes
    dtype: str
    dimension: int
    count: int
    encoder: str


class VectorMaker(Protocol):
    """Makes vectors; raises what its service answers."""

    def embed(self, model: str, batches: AsyncIterator[Sequence[str]]) -> AsyncGenerator[Vectors]:
        """The vectors of each batch, in order, on one stream that sends batches as they come, before the answers.

        Close it where it may be left early.
        """


class Encoder(VectorMaker, Protocol):
    """Counts tokens too."""

    async def describe(self, model: str) -> EncoderCard:
        """The encoder of that name, or the default one for ""; raises MODEL_NOT_FOUND."""

    async def token_ends(self, model: str, text: str) -> Sequence[int]:
        """The byte after each token's last one, ascending; special tokens are not counted."""


async def describe(encoder: Encoder, name: str) -> EncoderCard:
    """The encoder of a name, which may hold the revision wanted; raises MODEL_NOT_FOUND."""
    model, _, revision = name.partition("@")
    card = await encoder.describe(model)
    if revision not in ("", card.revision):
        raise not_found("model", name, "MODEL_NOT_FOUND")
    return card


def batches(chunks: Sequence[Chunk], max_tokens: int, max_chunks: int) -> list[list[Chunk]]:
    """The chunks in runs of at most so many tokens and chunks; a chunk that is larger is a run of its own."""
    runs: list[list[Chunk]] = []
    tokens = 0
    for chunk in chunks:
        tokens += chunk.token_count
        if not runs or tokens > max_tokens or len(runs[-1]) == max_chunks:
            runs.append([])
            tokens = chunk.token_count
        runs[-1].append(chunk)
    return runs
