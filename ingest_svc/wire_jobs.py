"""Jobs as messages of the contract, and back."""

from ingest_svc.job_starting import JobOrder, ReindexOrder
from ingest_svc.jobs import DocumentFailure, Job, Reindex
from ingest_svc.wire import last_id, read_chunking, write_duration, write_status, write_time
from ragmesh.ingest.v1 import jobs_pb2


def read_order(message: jobs_pb2.StartJobRequest) -> JobOrder:
    """A job as asked for."""
    chunking = read_chunking(message.chunking, "chunking") if message.HasField("chunking") else None
    return JobOrder(
        collection=last_id(message.collection),
        source_uri=message.source_uri,
        include=tuple(message.include),
        exclude=tuple(message.exclude),
        chunking=chunking,
        delete_missing=message.delete_missing,
    )


def read_reindex_order(message: jobs_pb2.ReindexCollectionRequest) -> ReindexOrder:
    """A reindexing as asked for."""
    return ReindexOrder(last_id(message.collection), message.encoder, message.language)


def write_job(job: Job) -> jobs_pb2.Job:
    """A job with its counts and failures."""
    remaining = job.remaining()
    return jobs_pb2.Job(
        name=job.name,
        collection=f"collections/{job.collection}",
        source_uri=job.source_uri,
        state=jobs_pb2.Job.State.Value(f"STATE_{job.state}"),
        error=write_status(job.failure),
        counts=jobs_pb2.JobCounts(**job.counts.model_dump()),
        failures=[_document_failure(failure) for failure in job.failures],
        create_time=write_time(job.create_time),
        end_time=write_time(job.end_time) if job.end_time else None,
        remaining=write_duration(remaining.total_seconds()) if remaining is not None else None,
        reindexing=_reindexing(job.reindex) if job.reindex is not None else None,
        stages=[jobs_pb2.StageProgress(**stage.model_dump()) for stage in job.stages()],
        chunks_per_s=job.chunks_per_s(),
    )


def _reindexing(reindex: Reindex) -> jobs_pb2.Reindexing:
    return jobs_pb2.Reindexing(encoder=reindex.encoder.name, language=reindex.language or "standard")


def _document_failure(failure: DocumentFailure) -> jobs_pb2.DocumentFailure:
    return jobs_pb2.DocumentFailure(uri=failure.uri, document=failure.document, error=write_status(failure.failure))
