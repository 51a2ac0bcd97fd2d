"""Jobs: many documents at once, taken in or encoded again by the mesh itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Self

from ragmesh.ingest.v1 import chunking_pb2, jobs_pb2, jobs_pb2_grpc
from ragmesh_client.connection import Connection, drained, full_name

_DAY_S = 86_400.0


class Jobs(Connection):
    """The calls about jobs. A job goes on when its watcher leaves; `cancel_job` stops it."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._jobs = jobs_pb2_grpc.JobServiceStub(self.channel)
        return self

    async def start_job(
        self,
        source_uri: str,
        collection: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        chunking: chunking_pb2.Chunking | None = None,
        delete_missing: bool = False,
        request_id: str = "",
    ) -> jobs_pb2.Job:
        """Begins to take in a folder or an object-store prefix that the mesh's settings allow.

        `include` and `exclude` are glob patterns on the paths below it. With `delete_missing`, documents that came from
        the same source and are gone from it are deleted.
        """
        request = jobs_pb2.StartJobRequest(
            collection=full_name("collections", collection),
            source_uri=source_uri,
            include=include,
            exclude=exclude,
            chunking=chunking,
            delete_missing=delete_missing,
            request_id=request_id,
        )
        return (await self.call(self._jobs.StartJob, request)).job

    async def get_job(self, job: str) -> jobs_pb2.Job:
        """Reads a job."""
        return (await self.call(self._jobs.GetJob, jobs_pb2.GetJobRequest(name=full_name("jobs", job)))).job

    async def list_jobs(self) -> AsyncGenerator[jobs_pb2.Job, None]:
        """All jobs of the tenant, newest first."""
        request = jobs_pb2.ListJobsRequest()
        while True:
            page = await self.call(self._jobs.ListJobs, request)
            for job in page.jobs:
                yield job
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch_job(
        self, job: str, *, timeout_s: float = _DAY_S
    ) -> AsyncGenerator[jobs_pb2.WatchJobResponse, None]:
        """The job at once, then each document as it moves, and at last the job as it ended."""
        watch = jobs_pb2.WatchJobRequest(name=full_name("jobs", job))
        call = self._jobs.WatchJob(watch, timeout=timeout_s, metadata=self.metadata)
        async with aclosing(drained(call)) as responses:
            async for response in responses:
                yield response

    async def reindex(
        self, collection: str, *, encoder: str = "", language: str = "", timeout_s: float = _DAY_S
    ) -> AsyncGenerator[jobs_pb2.Job, None]:
        """Encodes a collection's documents with another encoder, the server's default without one, while it serves.

        Yields the job at once and as it comes along; the last has ended.
        """
        request = jobs_pb2.ReindexCollectionRequest(
            collection=full_name("collections", collection), encoder=encoder, language=language
        )
        job = (await self.call(self._jobs.ReindexCollection, request)).job
        yield job
        async with aclosing(self.watch_job(job.name, timeout_s=timeout_s)) as steps:
            async for step in steps:
                yield step.job

    async def cancel_job(self, job: str) -> jobs_pb2.Job:
        """Stops a job; documents that are ready stay, and a collection that it reindexes stays as it was."""
        request = jobs_pb2.CancelJobRequest(name=full_name("jobs", job))
        return (await self.call(self._jobs.CancelJob, request)).job
