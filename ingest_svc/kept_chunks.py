"""The chunks of a document while they wait for their vectors, kept as an object beside its bytes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest_svc.chunking import Chunk


@dataclass(frozen=True, slots=True)
class Cut:
    """A document's chunks, for which encoder (name@revision) they were cut, and the metadata that they get."""

    chunks: Sequence[Chunk]
    encoder: str
    metadata: dict[str, Any]

    @property
    def tokens(self) -> int:
        """Tokens to encode."""
        return sum(chunk.token_count for chunk in self.chunks)


def dump(cut: Cut) -> bytes:
    """The cut as JSON."""
    chunks = [
        [chunk.start, chunk.end, chunk.text, chunk.heading_path, chunk.page, chunk.token_count] for chunk in cut.chunks
    ]
    kept = {"encoder": cut.encoder, "metadata": cut.metadata, "chunks": chunks}
    return json.dumps(kept, ensure_ascii=False).encode()


def load(data: bytes) -> Cut:
    """The cut that was dumped."""
    kept = json.loads(data)
    chunks = [
        Chunk(ordinal, start, end, text, tuple(path), page, tokens)
        for ordinal, (start, end, text, path, page, tokens) in enumerate(kept["chunks"])
    ]
    return Cut(chunks, kept["encoder"], kept["metadata"])
