"""Ingestion's dataclasses as messages of the contract, and back."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseDict, SerializeToJsonError
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from ingest_svc.catalog import Collection, EncoderCard, FilterableField, Request, Timing
from ingest_svc.chunking import Choice, Chooser, Chunk, Chunking, Strategy
from ingest_svc.encoder import Vectors
from ingest_svc.failure import Failure
from ingest_svc.importing import Import, Made
from ingest_svc.index import IndexStats, Part
from ingest_svc.intake import Head
from ingest_svc.inviting import Invitation
from ingest_svc.keeping import Wanted
from ingest_svc.progress import Progress
from ingest_svc.uploading import Begin, Bytes
from meshkit import pagination, status
from meshkit.errors import invalid
from ragmesh.common.v1 import vector_pb2
from ragmesh.ingest.v1 import chunking_pb2, collections_pb2, documents_pb2
from ragmesh.retriever.v1 import index_pb2, retriever_pb2

# Of what was made of a document elsewhere, no more is kept.
_MAX_MADE_CHARS = 512
_MAX_WARNINGS = 64
_MAX_TIMINGS = 8


def last_id(name: str) -> str:
    """The last id of a name: `handbook` of `collections/handbook`."""
    return name.rpartition("/")[2]


def document_ids(name: str) -> tuple[str, str]:
    """The collection's and the document's id in `collections/{collection}/documents/{document}`."""
    _, collection, _, document = name.split("/")
    return collection, document


def read_request(message: Message, request_id: str) -> Request | None:
    """The caller's id of the call, with a digest of all the rest of it; None where it gave no id."""
    if not request_id:
        return None
    rest = type(message)()
    rest.CopyFrom(message)
    rest.ClearField("request_id")
    return Request(request_id, hashlib.sha256(rest.SerializeToString(deterministic=True)).hexdigest())


def read_struct(struct: Struct, field: str) -> dict[str, Any]:
    """A Struct's values; raises INVALID_FIELD for those that JSON has not."""
    try:
        return MessageToDict(struct)
    except (SerializeToJsonError, ValueError) as error:
        raise invalid(field, "has a number that is not finite") from error


def read_chunking(message: chunking_pb2.Chunking, field: str) -> tuple[str, Mapping[str, Any]]:
    """A strategy's name and the parameters given."""
    return message.strategy, read_struct(message.parameters, f"{field}.parameters")


def read_wanted(message: collections_pb2.Collection) -> Wanted:
    """The settings of a collection that a caller asks for."""
    return Wanted(
        display_name=message.display_name,
        description=message.description,
        chunking=read_chunking(message.chunking, "collection.chunking"),
        encoder=message.encoder,
        language=message.language,
        fusion=MessageToDict(message.fusion) if message.HasField("fusion") else None,
        filterable_fields=[
            FilterableField.model_validate(
                {
                    "field": each.field,
                    "type": index_pb2.FilterableField.Type.Name(each.type).removeprefix("TYPE_"),
                }
            )
            for each in message.filterable_fields
        ],
    )


def read_head(message: documents_pb2.DocumentHead, field: str) -> Head:
    """What comes with a document's bytes; `field` is the request's field that holds it."""
    chunking = read_chunking(message.chunking, f"{field}.chunking") if message.HasField("chunking") else None
    return Head(
        collection=last_id(message.parent),
        document_id=message.document_id,
        title=message.title,
        uri=message.uri,
        metadata=read_struct(message.metadata, f"{field}.metadata"),
        chunking=chunking,
        password=message.password,
        size_bytes=message.size_bytes,
    )


def read_upload(message: documents_pb2.UploadDocumentRequest) -> Begin | Bytes:
    """A message of an upload."""
    if message.WhichOneof("content") == "begin":
        begin = message.begin
        return Begin(read_head(begin.document, "begin.document"), begin.upload_id, begin.offset)
    return _read_bytes(message.part)


def _read_bytes(part: documents_pb2.UploadDocumentRequest.Part) -> Bytes:
    return Bytes(part.data, part.crc32c if part.HasField("crc32c") else None)


def read_import(message: documents_pb2.ImportDocumentRequest) -> Import | Bytes | Part:
    """A message of an import."""
    if message.HasField("part"):
        return _read_bytes(message.part)
    if message.HasField("chunks"):
        return _read_part(message.chunks)
    begin = message.begin
    return Import(
        head=read_head(begin.document, "begin.document"),
        content_hash=begin.content_hash,
        made=_read_made(begin),
        source=begin.source_uri,
        version=begin.source_version,
    )


def _read_made(begin: documents_pb2.ImportDocumentRequest.Begin) -> Made:
    made = begin.made
    strategy, parameters = read_chunking(made.chunking, "begin.made.chunking")
    chunking = Chunking(strategy=strategy, parameters=dict(parameters))
    return Made(
        encoder=begin.encoder,
        choice=Choice(chunking, made.chunking_rationale[:_MAX_MADE_CHARS]),
        chunk_count=made.chunk_count,
        title=made.title[:_MAX_MADE_CHARS],
        media_type=made.media_type[:_MAX_MADE_CHARS],
        page_count=made.page_count,
        parser=made.parser[:_MAX_MADE_CHARS],
        warnings=tuple(warning[:_MAX_MADE_CHARS] for warning in made.warnings[:_MAX_WARNINGS]),
        timings=tuple(
            Timing(
                stage=each.stage,
                start_s=each.start.ToTimedelta().total_seconds(),
                duration_s=each.duration.ToTimedelta().total_seconds(),
            )
            for each in made.timings.timings[:_MAX_TIMINGS]
        ),
        metadata=read_struct(begin.metadata, "begin.metadata"),
    )


def _read_part(message: index_pb2.UpsertDocumentRequest.Part) -> Part:
    chunks = [
        Chunk(
            ordinal=each.ordinal,
            start=each.source.start,
            end=each.source.end,
            text=each.text,
            heading_path=tuple(each.heading_path),
            page=each.page,
            token_count=each.token_count,
        )
        for each in message.chunks
    ]
    packed = message.vectors
    vectors = Vectors(packed.data, vector_pb2.DataType.Name(packed.dtype), packed.dimension, packed.count, "")
    return Part(chunks, vectors if message.HasField("vectors") else None)


def read_collection(message: collections_pb2.Collection, card: EncoderCard) -> Collection:
    """A collection as its callers see it; `card` is its encoder's."""
    return Collection(
        id=last_id(message.name),
        chunking=Chunking(
            strategy=message.chunking.strategy, parameters=read_struct(message.chunking.parameters, "chunking")
        ),
        encoder=card,
        filterable_fields=read_wanted(message).filterable_fields,
        create_time=message.create_time.ToDatetime(UTC),
        update_time=message.update_time.ToDatetime(UTC),
    )


def write_collection(collection: Collection, stats: IndexStats) -> collections_pb2.Collection:
    """A collection with what its index holds."""
    kinds = index_pb2.FilterableField.Type
    return collections_pb2.Collection(
        name=collection.name,
        display_name=collection.display_name,
        description=collection.description,
        chunking=write_chunking(collection.chunking),
        encoder=collection.encoder.name,
        language=collection.language,
        fusion=ParseDict(collection.fusion, retriever_pb2.Fusion()) if collection.fusion else None,
        filterable_fields=[
            index_pb2.FilterableField(field=each.field, type=kinds.Value(f"TYPE_{each.type}"))
            for each in collection.filterable_fields
        ],
        document_count=stats.documents,
        chunk_count=stats.chunks,
        version=stats.version,
        create_time=write_time(collection.create_time),
        update_time=write_time(collection.update_time),
        etag=collection.etag,
    )


def write_invitation(invitation: Invitation) -> documents_pb2.CreateUploadUrlResponse:
    """An upload URL."""
    return documents_pb2.CreateUploadUrlResponse(
        url=invitation.url,
        source_uri=invitation.source_uri,
        expire_time=write_time(invitation.expire_time),
    )


def write_progress(progress: Progress) -> documents_pb2.DocumentProgress:
    """How far a document has come."""
    return documents_pb2.DocumentProgress(
        document=progress.document,
        state=documents_pb2.Document.State.Value(f"STATE_{progress.state}"),
        upload_id=progress.upload_id,
        bytes_received=progress.bytes_received,
        chunks_done=progress.chunks_done,
        chunks_total=progress.chunks_total,
        elapsed=write_duration(progress.elapsed_s),
        error=write_status(progress.failure),
        unchanged=progress.unchanged,
        page_count=progress.page_count,
        searchable=progress.searchable,
    )


def write_strategy(strategy: Chooser | Strategy) -> chunking_pb2.ChunkingStrategy:
    """A strategy with the schema of its parameters."""
    return chunking_pb2.ChunkingStrategy(
        strategy=strategy.name,
        description=strategy.description,
        parameters_schema=ParseDict(strategy.parameters.model_json_schema(), Struct()),
    )


def write_chunking(chunking: Chunking) -> chunking_pb2.Chunking:
    """A strategy by name, with parameters."""
    return chunking_pb2.Chunking(strategy=chunking.strategy, parameters=ParseDict(chunking.parameters, Struct()))


def write_status(failure: Failure | None) -> status_pb2.Status | None:
    """A failure as it is said to callers; None for none."""
    return status.to_status(failure.error()) if failure else None


def write_time(time: datetime) -> Timestamp:
    """A time of day."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def write_duration(seconds: float) -> Duration:
    """A span of time."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def read_page(request: Any, scope: str) -> tuple[str, int]:
    """The id behind which the page asked for begins, and its size."""
    return pagination.decode(request.page_token, scope), pagination.page_size(request.page_size)


def write_next(found: Sequence[Any], size: int, scope: str) -> str:
    """The token of the next page; one more was found than the page has where there is one."""
    return pagination.encode(found[size - 1].id, scope) if len(found) > size else ""
