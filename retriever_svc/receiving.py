"""A document on its way in: its chunks are checked and gathered as they come, and written when all are here."""

import json
from collections.abc import Sequence

import numpy as np

from meshkit.errors import InvalidArgument, invalid
from retriever_svc.index import MAX_BYTES, Chunk, IndexSpec, Vectors, refuse_dimension

# What Milvus takes as a JSON value.
_MAX_JSON_BYTES = 65_535


class Draft:
    """The chunks of one document received so far; lives as long as the call that sends them."""

    def __init__(self, spec: IndexSpec, max_chunks: int, max_bytes: int) -> None:
        self._spec = spec
        self._max_chunks = max_chunks
        self._max_bytes = max_bytes
        self._bytes = 0
        self._vectors: list[Vectors] = []
        self._encoded: bool | None = None
        self.chunks: list[Chunk] = []

    @property
    def vectors(self) -> Vectors | None:
        """The chunks' vectors, [n, dimension], or None where they came without."""
        if self._encoded is False:
            return None
        none = np.zeros((0, self._spec.dimension), dtype=np.float32)
        return np.asarray(np.concatenate([none, *self._vectors]))

    def add(self, chunks: Sequence[Chunk], vectors: Vectors | None) -> None:
        """Take a part of the document: its next chunks, and their vectors [n, dimension] or none.

        Raises InvalidArgument for a chunk that is out of order or has a text too long, for vectors that some parts
        have and others have not, FailedPrecondition (ENCODER_MISMATCH) for vectors of another dimension,
        InvalidArgument (TOO_LARGE) where the document is larger than it may be.
        """
        self._take_vectors(chunks, vectors)
        for place, chunk in enumerate(chunks):
            self._check(chunk, f"part.chunks[{place}]")
            self.chunks.append(chunk)
        self._bytes += sum(len(chunk.text.encode()) for chunk in chunks)
        self._refuse_too_large()

    def _take_vectors(self, chunks: Sequence[Chunk], vectors: Vectors | None) -> None:
        if self._encoded not in (None, vectors is not None):
            raise invalid("part.vectors", "is in some parts of the document and not in others")
        self._encoded = vectors is not None
        if vectors is None:
            return
        if len(chunks) != len(vectors):
            raise invalid("part.vectors.count", f"is {len(vectors)} for {len(chunks)} chunks")
        if chunks:
            refuse_dimension(self._spec, vectors.shape[1])
        self._bytes += vectors.nbytes
        self._vectors.append(vectors)

    def _check(self, chunk: Chunk, field: str) -> None:
        expected = len(self.chunks)
        if chunk.place.ordinal != expected:
            raise invalid(f"{field}.ordinal", f"is {chunk.place.ordinal} where {expected} is next")
        for name, limit in MAX_BYTES.items():
            _refuse_long(f"{field}.{name}", len(getattr(chunk, name).encode()), limit)
        _refuse_long(f"{field}.metadata", _json_bytes(chunk.metadata), _MAX_JSON_BYTES)
        # Kept with some numbers beside it.
        _refuse_long(f"{field}.heading_path", _json_bytes(chunk.heading_path), _MAX_JSON_BYTES // 2)

    def _refuse_too_large(self) -> None:
        if len(self.chunks) > self._max_chunks:
            raise _too_large("chunks", len(self.chunks), self._max_chunks)
        if self._bytes > self._max_bytes:
            raise _too_large("bytes", self._bytes, self._max_bytes)


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _refuse_long(field: str, size: int, limit: int) -> None:
    if size > limit:
        raise invalid(field, f"has {size} bytes of at most {limit}", reason="TOO_LARGE")


def _too_large(unit: str, size: int, limit: int) -> InvalidArgument:
    metadata = {f"limit_{unit}": str(limit), unit: str(size)}
    return InvalidArgument("TOO_LARGE", f"the document has more than {limit} {unit}", metadata=metadata)
