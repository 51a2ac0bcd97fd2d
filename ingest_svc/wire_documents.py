"""Documents' records as messages of the contract."""

from collections.abc import Sequence

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from ingest_svc.catalog import Document, FailedReplacement, Revision, Timing
from ingest_svc.wire import write_chunking, write_duration, write_status, write_time
from ragmesh.common.v1 import usage_pb2
from ragmesh.ingest.v1 import documents_pb2


def write_document(document: Document) -> documents_pb2.Document:
    """A document's record."""
    return documents_pb2.Document(
        name=document.name,
        state=documents_pb2.Document.State.Value(f"STATE_{document.state}"),
        error=write_status(document.failure),
        title=document.title,
        uri=document.uri,
        media_type=document.media_type,
        size_bytes=document.size_bytes,
        content_hash=document.content_hash,
        metadata=ParseDict(document.metadata, Struct()),
        page_count=document.page_count,
        chunk_count=document.chunk_count,
        token_count=document.token_count,
        chunking=write_chunking(document.cut_by),
        chunking_rationale=document.choice.rationale if document.choice else "",
        parser=document.parser,
        warnings=document.warnings,
        timings=_timings(document.timings),
        create_time=write_time(document.create_time),
        update_time=write_time(document.update_time),
        searchable_time=write_time(document.searchable_time) if document.searchable_time else None,
        encoder=document.encoder,
        source_uri=document.source,
        failed_replacement=_failed_replacement(document.failed_replacement),
        history=map(_revision, document.history),
    )


def _revision(revision: Revision) -> documents_pb2.Revision:
    return documents_pb2.Revision(
        content_hash=revision.content_hash,
        chunking=write_chunking(revision.chunking),
        parser=revision.parser,
        chunk_count=revision.chunk_count,
        create_time=write_time(revision.create_time),
        encoder=revision.encoder,
        size_bytes=revision.size_bytes,
        page_count=revision.page_count,
        token_count=revision.token_count,
        warnings=revision.warnings,
        timings=_timings(revision.timings),
    )


def _failed_replacement(lost: FailedReplacement | None) -> documents_pb2.FailedReplacement | None:
    if lost is None:
        return None
    return documents_pb2.FailedReplacement(
        content_hash=lost.content_hash,
        size_bytes=lost.size_bytes,
        error=write_status(lost.failure),
        create_time=write_time(lost.create_time),
    )


def _timings(timings: Sequence[Timing]) -> usage_pb2.Timings:
    return usage_pb2.Timings(
        timings=[
            usage_pb2.Timing(
                stage=timing.stage, start=write_duration(timing.start_s), duration=write_duration(timing.duration_s)
            )
            for timing in timings
        ]
    )
