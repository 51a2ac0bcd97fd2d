"""`python -m ingest_svc.ray_ingest ORDER`: an ingestion on a Ray cluster; `ragmesh ingest --ray` starts it.

It writes a WatchJobResponse a line, as JSON, for each document that ended; the last one has the failures.
"""

import asyncio
import importlib.util
import os
import sys
from typing import Any, TextIO

from google.protobuf.json_format import MessageToJson
from pydantic import BaseModel, Field

from ingest_svc.catalog import DocumentState, now
from ingest_svc.chunking import Chunking
from ingest_svc.edge_peer import EdgeAccess, open_edge
from ingest_svc.encoder import describe
from ingest_svc.failure import Failure
from ingest_svc.intake import document_id
from ingest_svc.job_running import check_patterns, selected
from ingest_svc.jobs import DocumentFailure, Entry, Job, JobState, Settled
from ingest_svc.peers import EmbedderPeer
from ingest_svc.progress import Progress
from ingest_svc.ray_stages import IDENTITY, Plan, failed, open_source
from ingest_svc.settings import Settings
from ingest_svc.wire import last_id, read_collection, write_progress
from ingest_svc.wire_jobs import write_job
from meshkit.channel import open_channel
from meshkit.errors import Internal, MeshError
from meshkit.settings import load
from ragmesh.ingest.v1 import jobs_pb2

_MAX_FAILURES = 1000
_WRONG_USAGE = 2
_INTERRUPTED = 130


class Order(BaseModel):
    """What to take in, and on which cluster; the token comes by RAGMESH_TOKEN, limits by RAGMESH_INGEST_*."""

    address: str
    source_uri: str
    collection: str
    target: str
    tls: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    strategy: str = ""
    parameters: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    delete_missing: bool = False
    workers: int = Field(2, ge=1)
    encoders: int = Field(1, ge=1)
    gpus: float = Field(0.0, ge=0)
    embedder: str = ""
    model: str = ""
    wait_s: float = Field(600.0, gt=0)


class _Account:
    """What became of the documents so far, told line by line; lives for one run."""

    def __init__(self, order: Order, out: TextIO) -> None:
        self.job = Job(
            id="",
            collection=order.collection,
            subject="",
            source_uri=order.source_uri,
            chunking=Chunking(strategy=order.strategy, parameters=order.parameters),
            state=JobState.RUNNING,
            create_time=now(),
        )
        self._failures: list[DocumentFailure] = []
        self._seen: set[str] = set()
        self._out = out

    def found(self, count: int) -> None:
        """Tell how many files there are."""
        self._count(found=count)
        self._tell()

    def settled(self, settled: Settled) -> None:
        """Count a document, once however often it comes."""
        if settled.key in self._seen:
            return
        self._seen.add(settled.key)
        counts = self.job.counts
        values = {settled.outcome: getattr(counts, settled.outcome) + 1, "bytes": counts.bytes + settled.bytes}
        values |= {"without_text": counts.without_text + settled.without_text}
        self._count(**values, chunks=counts.chunks + settled.chunks, pages=counts.pages + settled.pages)
        if settled.failure and len(self._failures) < _MAX_FAILURES:
            self._failures.append(settled.failure)
        self._tell(settled)

    def deleted(self) -> None:
        """Count a document deleted."""
        self._count(deleted=self.job.counts.deleted + 1)

    def end(self, failure: Failure | None = None) -> None:
        """Tell the end, with all that failed."""
        state = JobState.FAILED if failure else JobState.SUCCEEDED
        values = {"state": state, "failure": failure, "failures": tuple(self._failures), "end_time": now()}
        self.job = self.job.model_copy(update=values)
        self._tell()

    def _count(self, **values: int) -> None:
        self.job = self.job.model_copy(update={"counts": self.job.counts.model_copy(update=values)})

    def _tell(self, settled: Settled | None = None) -> None:
        job = write_job(self.job)
        # The mesh has no job of it.
        job.name = ""
        moved = write_progress(_progress(settled)) if settled else None
        response = jobs_pb2.WatchJobResponse(job=job, document=moved)
        print(MessageToJson(response, indent=None), file=self._out, flush=True)


def _progress(settled: Settled) -> Progress:
    failure = settled.failure.failure if settled.failure else None
    return Progress(
        document=settled.key,
        generation="",
        state=DocumentState.FAILED if failure else DocumentState.READY,
        bytes_received=settled.bytes,
        chunks_done=settled.chunks,
        chunks_total=settled.chunks,
        failure=failure,
        unchanged=settled.outcome == "unchanged",
        page_count=settled.pages,
    )


def main(text: str) -> int:
    """Carry out an order, as JSON; 0 where every document that has text is ready."""
    out = _own_stdout()
    order = Order.model_validate_json(text)
    if importlib.util.find_spec("ray") is None:
        sys.stderr.write("`--ray` needs the extra: pip install 'ragmesh[ray]', on the cluster's nodes too.\n")
        return _WRONG_USAGE
    account = _Account(order, out)
    try:
        _ingest(order, account)
        account.end()
    except MeshError as error:
        account.end(Failure.of(error))
    except KeyboardInterrupt:
        return _INTERRUPTED
    counts = account.job.counts
    return 0 if account.job.state is JobState.SUCCEEDED and counts.failed == counts.without_text else 1


def _ingest(order: Order, account: _Account) -> None:
    from ingest_svc import ray_pipeline

    check_patterns("include", order.include)
    check_patterns("exclude", order.exclude)
    plan, entries = asyncio.run(_prepared(order, account))
    wanted = [entry for entry in entries if selected(entry.path, order.include, order.exclude)]
    account.found(len(wanted))
    cluster = ray_pipeline.Cluster(order.address, order.workers, order.encoders, order.gpus)
    if wanted:
        with ray_pipeline.open_ray(cluster):
            for settled in ray_pipeline.run(cluster, plan, wanted):
                account.settled(settled)
        for entry in wanted:
            account.settled(_lost(plan, entry))
    if order.delete_missing:
        asyncio.run(_delete_missing(plan, {document_id(entry.uri) for entry in entries}, account))


def _lost(plan: Plan, entry: Entry) -> Settled:
    """What is told of a file whose block the cluster lost."""
    error = Internal("INTERNAL_ERROR", "the cluster lost it")
    return failed(plan, entry.uri, error)


async def _prepared(order: Order, account: _Account) -> tuple[Plan, list[Entry]]:
    """What the workers need to know, and the source's files; raises where the collection or the source is not there."""
    settings = load(Settings)
    if order.embedder:
        settings = settings.model_copy(update={"embedder_target": order.embedder})
    access = EdgeAccess(order.target, os.environ.get("RAGMESH_TOKEN", ""), order.tls)
    async with open_edge(access) as edge, open_channel(settings.embedder_target, identity=IDENTITY) as channel:
        message = await edge.collection(order.collection)
        card = await describe(EmbedderPeer(channel), message.encoder)
    source = await open_source(order.source_uri, settings)
    entries = [entry async for entry in source.entries()]
    asked = (order.strategy, order.parameters) if order.strategy or order.parameters else None
    plan = Plan(
        access=access,
        settings=settings,
        collection=read_collection(message, card),
        source_uri=order.source_uri,
        began=account.job.create_time,
        wait_s=order.wait_s,
        chunking=asked,
        metadata=order.metadata,
        model=order.model,
    )
    return plan, entries


async def _delete_missing(plan: Plan, present: set[str], account: _Account) -> None:
    """Delete what was taken from the source, or from another that shares its place, and is no longer there."""
    below = f"{plan.source_uri.rstrip('/')}/"
    async with open_edge(plan.access) as edge:
        gone = [
            document.name
            async for document in edge.documents(plan.collection.id)
            if document.source_uri and f"{document.uri}/".startswith(below) and last_id(document.name) not in present
        ]
        for name in gone:
            if await edge.delete(name):
                account.deleted()


def _own_stdout() -> TextIO:
    """The real stdout, for what we tell only: Ray prints on what it takes for it."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
