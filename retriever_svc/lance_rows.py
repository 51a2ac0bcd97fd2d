"""Chunks as rows of a LanceDB table, and back; the table's own schema says which columns of the metadata it has."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retriever_svc.filtering import FieldType
from retriever_svc.index import Chunk, IndexSpec, Place, Scope, Vectors
from retriever_svc.lance_filter import column, field_of
from retriever_svc.words import words_of_chunk

CHUNK_COLUMNS = ["key", "text", "page", "title", "uri", "content_hash", "metadata", "details"]

_TYPES: Mapping[FieldType, pa.DataType] = {
    FieldType.TEXT: pa.string(),
    FieldType.NUMBER: pa.float64(),
    FieldType.INTEGER: pa.int64(),
    FieldType.BOOL: pa.bool_(),
    FieldType.TEXT_LIST: pa.list_(pa.string()),
}
_VALUES: Mapping[str, Callable[[Chunk], Any]] = {
    "key": lambda chunk: key_of(chunk.place),
    "document": lambda chunk: chunk.place.document,
    "ordinal": lambda chunk: chunk.place.ordinal,
    "text": lambda chunk: chunk.text,
    "words": words_of_chunk,
    "page": lambda chunk: chunk.page,
    "title": lambda chunk: chunk.title,
    "uri": lambda chunk: chunk.uri,
    "content_hash": lambda chunk: chunk.content_hash,
    "metadata": lambda chunk: json.dumps(dict(chunk.metadata)),
    "details": lambda chunk: json.dumps([chunk.start, chunk.end, chunk.token_count, *chunk.heading_path]),
    "names": lambda chunk: list(chunk.metadata),
}


def table_name(scope: Scope, spec: IndexSpec) -> str:
    """The table of the scope under the settings that its rows depend on; no two scopes have one in common."""
    kind = f"{scope.tenant}\n{scope.collection}\n{spec.encoder}\n{spec.dimension}\n{spec.language.value}"
    return f"{scope.collection}-{hashlib.blake2b(kind.encode(), digest_size=16).hexdigest()}"


def schema(spec: IndexSpec) -> pa.Schema:
    """The columns of a table; all but the key may be null, in rows that are to go."""
    return pa.schema(
        [
            pa.field("key", pa.string()),
            pa.field("document", pa.string()),
            pa.field("ordinal", pa.int64()),
            pa.field("text", pa.string()),
            pa.field("words", pa.string()),
            pa.field("page", pa.int64()),
            *(pa.field(name, pa.string()) for name in ("title", "uri", "content_hash", "metadata", "details")),
            pa.field("names", pa.list_(pa.string())),
            pa.field("vector", pa.list_(pa.float32(), spec.dimension)),
            *metadata_columns(spec),
        ]
    )


def metadata_columns(spec: IndexSpec) -> list[pa.Field]:
    """The columns of the fields of the metadata that filters may name."""
    return [pa.field(column(name, type_), _TYPES[type_]) for name, type_ in spec.fields.items()]


def key_of(place: Place) -> str:
    """The key of a place; no id holds a slash."""
    return f"{place.document}/{place.ordinal}"


def place_of(key: str) -> Place:
    """The place that a key names."""
    document, ordinal = key.split("/")
    return Place(document, int(ordinal))


def write_chunks(columns: pa.Schema, chunks: Sequence[Chunk], vectors: Vectors | None) -> pa.Table:
    """The rows of the chunks with their vectors [n, dimension], null where there are none, in their table's columns."""
    return pa.table([_column(field, chunks, vectors) for field in columns], schema=columns)


def write_gone(columns: pa.Schema, places: Collection[Place]) -> pa.Table:
    """Rows that stand in for chunks that are to go: a key and nothing else, so that nothing finds them."""
    keys = pa.array([key_of(place) for place in places], pa.string())
    return pa.table(
        [keys if field.name == "key" else pa.nulls(len(keys), field.type) for field in columns], schema=columns
    )


def rewrite_metadata(rows: pa.Table, added: Sequence[pa.Field]) -> pa.Table:
    """The keys of the rows and, in the added columns, what their metadata has of it."""
    metadata = [json.loads(value or "{}") for value in rows["metadata"].to_pylist()]
    columns = [pa.array([_value(field.name, values) for values in metadata], field.type) for field in added]
    return pa.table([rows["key"], *columns], schema=pa.schema([pa.field("key", pa.string()), *added]))


def read_chunks(rows: pa.Table) -> dict[Place, Chunk]:
    """The chunks of live rows that have CHUNK_COLUMNS."""
    return {place_of(row["key"]): _read_chunk(row) for row in rows.to_pylist() if row["text"] is not None}


def read_vectors(rows: pa.Table) -> dict[Place, Vectors]:
    """The vectors of the rows that have one."""
    rows = rows.filter(pc.is_valid(rows["vector"]))
    stacked = stack(rows)
    return {} if stacked is None else dict(zip(map(place_of, rows["key"].to_pylist()), stacked, strict=True))


def parted(rows: pa.Table) -> Iterator[pa.Table]:
    """The rows that have a vector, and those that have none."""
    known = pc.is_valid(rows["vector"])
    return (some for some in (rows.filter(known), rows.filter(pc.invert(known))) if len(some))


def stack(rows: pa.Table) -> Vectors | None:
    """The vectors of the rows, [n, dimension]; None where not all of them have one, or there are no rows."""
    vectors = rows["vector"].combine_chunks()
    if vectors.null_count or not len(vectors):
        return None
    values = vectors.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float32).reshape(len(rows), vectors.type.list_size)


def _read_chunk(row: Mapping[str, Any]) -> Chunk:
    start, end, token_count, *heading_path = json.loads(row["details"])
    return Chunk(
        place=place_of(row["key"]),
        text=row["text"],
        start=start,
        end=end,
        page=row["page"],
        heading_path=tuple(heading_path),
        title=row["title"],
        uri=row["uri"],
        token_count=token_count,
        metadata=json.loads(row["metadata"]),
        content_hash=row["content_hash"],
    )


def _column(field: pa.Field, chunks: Sequence[Chunk], vectors: Vectors | None) -> pa.Array:
    if field.name == "vector":
        if vectors is None:
            return pa.nulls(len(chunks), field.type)
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, type=field.type)
    if field.name in _VALUES:
        return pa.array([_VALUES[field.name](chunk) for chunk in chunks], field.type)
    return pa.array([_value(field.name, chunk.metadata) for chunk in chunks], field.type)


def _value(column: str, metadata: Mapping[str, Any]) -> Any:
    """What a column has of the metadata: null where that is missing or of another type."""
    field = field_of(column)
    value = metadata.get(field[0]) if field else None
    match field, value:
        case (_, FieldType.TEXT), str():
            return value
        case (_, FieldType.BOOL), bool():
            return value
        case (_, FieldType.NUMBER | FieldType.INTEGER), int() | float() if not isinstance(value, bool):
            return value
        case (_, FieldType.TEXT_LIST), list() | tuple():
            return [item for item in value if isinstance(item, str)]
    return None
