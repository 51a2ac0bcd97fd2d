"""The service of jobs: messages to dataclasses and back."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc

from ingest_svc.job_starting import JobDesk
from ingest_svc.jobs import JobState, JobStore
from ingest_svc.object_events import ObjectEvents
from ingest_svc.wire import last_id, read_page, read_request, read_struct, write_next, write_progress
from ingest_svc.wire_jobs import read_order, read_reindex_order, write_job
from meshkit.errors import FailedPrecondition
from meshkit.identity import current, require_scope
from ragmesh.ingest.v1 import jobs_pb2, jobs_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_SCOPE = "ingest"


class JobService(jobs_pb2_grpc.JobServiceServicer):
    """Takes in many documents at once, or reindexes a collection, in the background."""

    def __init__(self, desk: JobDesk, jobs: JobStore, events: ObjectEvents) -> None:
        self._desk = desk
        self._jobs = jobs
        self._events = events

    async def StartJob(self, request: jobs_pb2.StartJobRequest, context: Context) -> jobs_pb2.StartJobResponse:
        require_scope(_SCOPE)
        caller, again = current(), read_request(request, request.request_id)
        job = await self._desk.start(caller.tenant, caller.subject, read_order(request), again)
        return jobs_pb2.StartJobResponse(job=write_job(job))

    async def ReindexCollection(
        self, request: jobs_pb2.ReindexCollectionRequest, context: Context
    ) -> jobs_pb2.ReindexCollectionResponse:
        require_scope(_SCOPE)
        caller, again = current(), read_request(request, request.request_id)
        job = await self._desk.reindex(caller.tenant, caller.subject, read_reindex_order(request), again)
        return jobs_pb2.ReindexCollectionResponse(job=write_job(job))

    async def ReceiveObjectEvents(
        self, request: jobs_pb2.ReceiveObjectEventsRequest, context: Context
    ) -> jobs_pb2.ReceiveObjectEventsResponse:
        require_scope(_SCOPE)
        caller, notification = current(), read_struct(request.notification, "notification")
        collection = last_id(request.collection)
        jobs = await self._events.receive(caller.tenant, caller.subject, collection, notification)
        return jobs_pb2.ReceiveObjectEventsResponse(jobs=map(write_job, jobs))

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.GetJobResponse:
        job = await self._jobs.get(current().tenant, last_id(request.name))
        return jobs_pb2.GetJobResponse(job=write_job(job))

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Context) -> jobs_pb2.ListJobsResponse:
        tenant, scope = current().tenant, f"ListJobs {current().tenant}"
        after, size = read_page(request, scope)
        found = await self._jobs.list(tenant, after, size + 1)
        return jobs_pb2.ListJobsResponse(
            jobs=map(write_job, found[:size]), next_page_token=write_next(found, size, scope)
        )

    async def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, context: Context
    ) -> AsyncGenerator[jobs_pb2.WatchJobResponse]:
        async with aclosing(self._desk.watch(current().tenant, last_id(request.name))) as moves:
            async for job, progress in moves:
                moved = write_progress(progress) if progress else None
                yield jobs_pb2.WatchJobResponse(job=write_job(job), document=moved)

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.CancelJobResponse:
        require_scope(_SCOPE)
        tenant, id = current().tenant, last_id(request.name)
        running = (JobState.PENDING, JobState.RUNNING)
        cancelled = await self._jobs.change(tenant, id, running, JobState.CANCELLED)
        job = await self._jobs.get(tenant, id)
        if not cancelled:
            metadata = {"state": str(job.state)}
            raise FailedPrecondition("JOB_ENDED", f"{job.name} has ended", metadata=metadata)
        return jobs_pb2.CancelJobResponse(job=write_job(job))
