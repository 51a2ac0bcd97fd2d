"""Messages to dataclasses and back."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.struct_pb2 import Struct, Value

from meshkit.errors import at_field, invalid
from meshkit.identity import current
from meshkit.timing_wire import timings_message
from ragmesh.common.v1 import chunk_pb2, vector_pb2
from ragmesh.retriever.v1 import index_pb2, retriever_pb2
from retriever_svc.filtering import FieldType
from retriever_svc.fusion import Fusion, ReciprocalRank, Weighted
from retriever_svc.index import Chunk, IndexSpec, Language, Place, Scope, State, Vectors
from retriever_svc.indexing import Counts
from retriever_svc.packing import Width, unpack
from retriever_svc.search import Hit, Mode, Result, Search

_DEFAULT_TOP_K = 10
_DEFAULT_K = 60

_MODES = {
    retriever_pb2.SEARCH_MODE_UNSPECIFIED: Mode.HYBRID,
    retriever_pb2.SEARCH_MODE_DENSE: Mode.DENSE,
    retriever_pb2.SEARCH_MODE_SPARSE: Mode.SPARSE,
    retriever_pb2.SEARCH_MODE_HYBRID: Mode.HYBRID,
}
_WIDTHS = {
    vector_pb2.DATA_TYPE_UNSPECIFIED: Width.FLOAT32,
    vector_pb2.DATA_TYPE_FLOAT32: Width.FLOAT32,
    vector_pb2.DATA_TYPE_FLOAT16: Width.FLOAT16,
    vector_pb2.DATA_TYPE_BFLOAT16: Width.BFLOAT16,
}
_TYPES = {
    index_pb2.FilterableField.TYPE_STRING: FieldType.TEXT,
    index_pb2.FilterableField.TYPE_NUMBER: FieldType.NUMBER,
    index_pb2.FilterableField.TYPE_BOOL: FieldType.BOOL,
    index_pb2.FilterableField.TYPE_STRING_LIST: FieldType.TEXT_LIST,
}
_TYPES_OUT = {type_: number for number, type_ in _TYPES.items()}


def read_scope(collection: str) -> Scope:
    """The scope that a name of the form `collections/{collection}/...` is in, for the current tenant."""
    return Scope(current().tenant, collection.split("/")[1])


def read_document(name: str) -> tuple[Scope, str]:
    """The scope and the document's id in `collections/{collection}/documents/{document}/...`."""
    return read_scope(name), name.split("/")[3]


def read_place(name: str) -> tuple[Scope, Place]:
    """The scope and the place in `collections/{collection}/documents/{document}/chunks/{ordinal}`."""
    scope, document = read_document(name)
    return scope, Place(document, int(name.split("/")[5]))


def read_vectors(message: vector_pb2.PackedVectors, field: str) -> Vectors:
    """The vectors [count, dimension]; raises InvalidArgument for bytes that are not as many finite numbers."""
    try:
        return unpack(message.data, _WIDTHS[message.dtype], message.dimension, message.count)
    except ValueError as error:
        raise invalid(field, str(error)) from None


def read_search(message: retriever_pb2.SearchRequest) -> Search:
    """The search; raises InvalidArgument for a vector that is not one."""
    return Search(
        query=message.query,
        vector=_read_vector(message.vector) if message.HasField("vector") else None,
        mode=_MODES[message.mode],
        top_k=message.top_k or _DEFAULT_TOP_K,
        filter=message.filter,
        fusion=_read_fusion(message.fusion),
        rerank=message.rerank,
        candidates=message.candidates,
        diversity=message.diversity,
        window=message.window,
        min_score=message.min_score,
    )


def read_searches(messages: Sequence[retriever_pb2.SearchRequest]) -> list[tuple[Scope, Search]]:
    """The searches of a batch, each in its scope; raises as `read_search` does, with the search's path."""
    searches = []
    for place, message in enumerate(messages):
        with at_field(f"searches[{place}]"):
            searches.append((read_scope(message.collection), read_search(message)))
    return searches


def _read_vector(message: vector_pb2.PackedVectors) -> Vectors:
    if message.count != 1:
        raise invalid("vector.count", f"is {message.count} where one is asked for")
    return np.asarray(read_vectors(message, "vector")[0])


def _read_fusion(message: retriever_pb2.Fusion) -> Fusion | None:
    match message.WhichOneof("method"):
        case "reciprocal_rank":
            return ReciprocalRank(message.reciprocal_rank.k or _DEFAULT_K)
        case "weighted":
            return Weighted(message.weighted.dense)
        case _:
            return None


def _write_fusion(fusion: Fusion | None) -> retriever_pb2.Fusion | None:
    match fusion:
        case ReciprocalRank(k):
            return retriever_pb2.Fusion(reciprocal_rank=retriever_pb2.Fusion.ReciprocalRank(k=k))
        case Weighted(dense):
            return retriever_pb2.Fusion(weighted=retriever_pb2.Fusion.Weighted(dense=dense))
        case None:
            return None


def write_result(result: Result, scope: Scope, *, explain: bool) -> retriever_pb2.SearchResponse:
    """The response to a search."""
    return retriever_pb2.SearchResponse(
        hits=[_write_hit(hit, scope, explain=explain) for hit in result.hits],
        degradations=[
            retriever_pb2.Degradation(stage=left_out.stage, reason=left_out.reason) for left_out in result.degradations
        ],
        timings=timings_message(result.stages),
        collection_version=result.version,
    )


def _write_hit(hit: Hit, scope: Scope, *, explain: bool) -> retriever_pb2.Hit:
    return retriever_pb2.Hit(
        chunk=write_chunk(hit.chunk, scope),
        score=hit.find.score,
        explanation=_write_explanation(hit) if explain else None,
        window=[write_chunk(chunk, scope) for chunk in hit.window],
    )


def _write_explanation(hit: Hit) -> retriever_pb2.Explanation:
    fused = hit.find.fused
    return retriever_pb2.Explanation(
        dense_rank=fused.dense.rank if fused.dense else 0,
        dense_score=fused.dense.score if fused.dense else 0.0,
        sparse_rank=fused.sparse.rank if fused.sparse else 0,
        sparse_score=fused.sparse.score if fused.sparse else 0.0,
        fused_score=fused.score,
        rerank_score=hit.find.rerank_score,
    )


def read_chunk(message: chunk_pb2.Chunk, document: str, content_hash: str, field: str) -> Chunk:
    """The chunk of the document, which is the one its message names if it names one."""
    _, _, _, document_id = document.split("/")
    if message.document not in ("", document):
        raise invalid(f"{field}.document", f"is not {document}")
    if message.name not in ("", f"{document}/chunks/{message.ordinal}"):
        raise invalid(f"{field}.name", f"is not {document}/chunks/{message.ordinal}")
    return Chunk(
        place=Place(document_id, message.ordinal),
        text=message.text,
        start=message.source.start,
        end=message.source.end,
        page=message.page,
        heading_path=tuple(message.heading_path),
        title=message.title,
        uri=message.uri,
        token_count=message.token_count,
        metadata=_read_struct(message.metadata, f"{field}.metadata"),
        content_hash=message.content_hash or content_hash,
    )


def write_chunk(chunk: Chunk, scope: Scope) -> chunk_pb2.Chunk:
    """The chunk with its names."""
    document = f"{scope.name}/documents/{chunk.place.document}"
    return chunk_pb2.Chunk(
        name=f"{document}/chunks/{chunk.place.ordinal}",
        document=document,
        ordinal=chunk.place.ordinal,
        text=chunk.text,
        source=chunk_pb2.Span(start=chunk.start, end=chunk.end),
        page=chunk.page,
        heading_path=chunk.heading_path,
        title=chunk.title,
        uri=chunk.uri,
        token_count=chunk.token_count,
        metadata=_write_struct(chunk.metadata),
        content_hash=chunk.content_hash,
    )


def _read_struct(message: Struct, field: str) -> dict[str, Any]:
    return {key: _read_value(value, f"{field}.{key}") for key, value in message.fields.items()}


def _read_value(message: Value, field: str) -> Any:
    match message.WhichOneof("kind"):
        case "number_value":
            return _read_number(message.number_value, field)
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "struct_value":
            return _read_struct(message.struct_value, field)
        case "list_value":
            return [_read_value(value, field) for value in message.list_value.values]
        case _:
            return None


def _read_number(number: float, field: str) -> float:
    """A whole number as an int: every index compares it with the numbers of a filter alike."""
    if not math.isfinite(number):
        raise invalid(field, "is not finite")
    return int(number) if number.is_integer() and abs(number) <= 2.0**53 else number


def _write_struct(metadata: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(metadata)
    return struct


def read_spec(message: index_pb2.IndexSpec) -> IndexSpec:
    """The settings; raises InvalidArgument where a field is declared twice."""
    fields = {declared.field: _TYPES[declared.type] for declared in message.filterable_fields}
    if len(fields) < len(message.filterable_fields):
        raise invalid("spec.filterable_fields", "names a field twice")
    return IndexSpec(
        encoder=message.encoder,
        dimension=message.dimension,
        language=Language(message.language or Language.STANDARD.value),
        fusion=_read_fusion(message.fusion),
        fields=fields,
    )


def write_index(scope: Scope, state: State, counts: Counts, engine: str) -> index_pb2.IndexInfo:
    """The index as callers see it."""
    spec = state.spec
    return index_pb2.IndexInfo(
        spec=index_pb2.IndexSpec(
            collection=scope.name,
            encoder=spec.encoder,
            dimension=spec.dimension,
            language=spec.language.value,
            fusion=_write_fusion(spec.fusion),
            filterable_fields=[
                index_pb2.FilterableField(field=name, type=_TYPES_OUT[type_]) for name, type_ in spec.fields.items()
            ],
        ),
        chunk_count=counts.chunks,
        document_count=counts.documents,
        version=state.version,
        engine=engine,
    )
