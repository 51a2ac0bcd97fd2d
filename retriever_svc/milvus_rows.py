"""Chunks as rows of a Milvus collection, and back."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from retriever_svc import index_state
from retriever_svc.filtering import Comparison, Condition, Field, FieldType, Operator
from retriever_svc.index import MAX_BYTES, Chunk, IndexSpec, Place, Scope, State, Vectors
from retriever_svc.milvus_filter import WAITING
from retriever_svc.words import words_of_chunk

# No id holds a slash, so a key names one chunk of one tenant; its longest is 63 + 63 + 128 + 9 bytes and slashes.
MAX_KEY_BYTES = 512

Row = Mapping[str, Any]
STATE_FIELDS = ["spec", "version", "gaps"]
CHUNK_FIELDS = ["document", "ordinal", "text", "page", "title", "uri", "content_hash", "metadata", "details"]
VECTOR_FIELDS = ["collection", "dense"]


def chunks_table(spec: IndexSpec) -> str:
    """The Milvus collection that holds the chunks of an encoder and a language, of every tenant."""
    kind = f"{spec.encoder}\n{spec.dimension}\n{spec.language.value}"
    return f"ragmesh_chunks_{hashlib.blake2b(kind.encode(), digest_size=12).hexdigest()}"


def index_key(scope: Scope) -> str:
    """The key of the scope's settings."""
    return f"{scope.tenant}/{scope.collection}"


def scope_of(key: str) -> Scope:
    """The scope that the key of its settings names."""
    tenant, collection = key.split("/")
    return Scope(tenant, collection)


def chunk_key(scope: Scope, place: Place) -> str:
    """The key of a chunk: the same place has the same key, so that writing again writes over."""
    return f"{scope.tenant}/{scope.collection}/{place.document}/{place.ordinal}"


def place_of(key: str) -> Place:
    """The place that a chunk's key names."""
    _, _, document, ordinal = key.split("/")
    return Place(document, int(ordinal))


def from_place(first: Place) -> tuple[Condition, Condition]:
    """The conditions for the document's chunks from the place on."""
    document = Field("document", FieldType.TEXT, in_metadata=False)
    ordinal = Field("ordinal", FieldType.INTEGER, in_metadata=False)
    return (
        Comparison(document, Operator.EQUAL, first.document),
        Comparison(ordinal, Operator.GREATER_EQUAL, first.ordinal),
    )


def fitting(words: str) -> str:
    """The words that BM25 takes; what is beyond the longest text is left out."""
    return words.encode()[: MAX_BYTES["text"]].decode(errors="ignore")


def write_chunks(
    scope: Scope, spec: IndexSpec, chunks: Sequence[Chunk], vectors: Vectors | None
) -> list[dict[str, Any]]:
    """The rows of the chunks with their vectors [n, dimension], or of chunks that wait for theirs."""
    if vectors is not None:
        return [_write_chunk(scope, chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True)]
    # Older servers have no rows without a vector; nothing compares this one.
    some = np.ones(spec.dimension, dtype=np.float32)
    return [{**_write_chunk(scope, chunk, some), "collection": scope.collection + WAITING} for chunk in chunks]


def _write_chunk(scope: Scope, chunk: Chunk, vector: Vectors) -> dict[str, Any]:
    return {
        "words": fitting(words_of_chunk(chunk)),
        "key": chunk_key(scope, chunk.place),
        "tenant": scope.tenant,
        "collection": scope.collection,
        "document": chunk.place.document,
        "ordinal": chunk.place.ordinal,
        "text": chunk.text,
        "page": chunk.page,
        "title": chunk.title,
        "uri": chunk.uri,
        "content_hash": chunk.content_hash,
        "metadata": dict(chunk.metadata),
        "details": {
            "start": chunk.start,
            "end": chunk.end,
            "heading_path": list(chunk.heading_path),
            "token_count": chunk.token_count,
        },
        "dense": vector,
    }


def read_chunk(row: Row) -> Chunk:
    """The chunk of a row that has CHUNK_FIELDS."""
    details = row["details"]
    return Chunk(
        place=Place(row["document"], int(row["ordinal"])),
        text=row["text"],
        start=details["start"],
        end=details["end"],
        page=int(row["page"]),
        heading_path=tuple(details["heading_path"]),
        title=row["title"],
        uri=row["uri"],
        token_count=details["token_count"],
        metadata=row["metadata"],
        content_hash=row["content_hash"],
    )


def is_encoded(row: Row) -> bool:
    """Whether a row that has VECTOR_FIELDS has a vector of its own."""
    return not str(row["collection"]).endswith(WAITING)


def read_vector(row: Row) -> Vectors:
    """The vector of a row."""
    return np.asarray(row["dense"], dtype=np.float32)


def read_page(rows: Sequence[Row]) -> Iterator[tuple[list[Chunk], Vectors | None]]:
    """The chunks of the rows that have vectors, with those, and of the rows that have none."""
    encoded = [row for row in rows if is_encoded(row)]
    if encoded:
        yield [read_chunk(row) for row in encoded], np.stack([read_vector(row) for row in encoded])
    if waiting := [row for row in rows if not is_encoded(row)]:
        yield [read_chunk(row) for row in waiting], None


def batches(rows: Sequence[Row], max_bytes: int) -> Iterator[list[Row]]:
    """The rows in order, in batches of at most so many bytes of text and vectors, or of a single row."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        row_bytes = len(row["text"].encode()) + row["dense"].nbytes
        if batch and size + row_bytes > max_bytes:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row_bytes
    if batch:
        yield batch


def write_state(scope: Scope, state: State) -> dict[str, Any]:
    """The row of an index's state; its version and gaps stand in columns of their own too."""
    return {
        "key": index_key(scope),
        "spec": index_state.write_state(state),
        "version": state.version,
        "gaps": state.gaps,
        "unused": [1.0, 0.0],
    }


def read_state(row: Row) -> State:
    """The state of a row that has STATE_FIELDS."""
    return index_state.read_state({**row["spec"], "version": int(row["version"]), "gaps": bool(row["gaps"])})
