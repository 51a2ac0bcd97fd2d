"""Documents on their way in: a bar that moves, then what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ragmesh.ingest.v1 import jobs_pb2
from ragmesh_client.cli.running import console, print_json, print_object
from ragmesh_client.client import Client
from ragmesh_client.errors import RagmeshError, from_status
from ragmesh_client.intake import HowToTake
from ragmesh_client.uploads import FileProgress, document_files

_MAX_NAME_CHARS = 40


async def upload(
    client: Client, paths: list[Path], collection: str, how: HowToTake, *, concurrency: int, as_json: bool
) -> bool:
    """Uploads files with a bar and prints a summary; returns whether all of them are ready."""
    ended: list[FileProgress] = []
    with _bar(as_json=as_json) as progress:
        task = progress.add_task("ingesting", total=len(document_files(paths)))
        async for step in client.ingest(paths, collection, concurrency=concurrency, **how):
            if as_json:
                print_object(_as_object(step))
            if step.ended:
                ended.append(step)
                progress.advance(task)
            progress.update(task, description=step.path.name[:_MAX_NAME_CHARS])
    if not as_json:
        counts = Counter(_outcome(step) for step in ended)
        console.print(", ".join(f"{counts[outcome]} {outcome}" for outcome in ("ready", "unchanged", "failed")))
        _show_failures([(str(step.path), step.error) for step in ended if step.error])
    return not any(step.error for step in ended)


async def follow(client: Client, job: jobs_pb2.Job, *, wait: bool, as_json: bool) -> bool:
    """Names a job that was started and shows it to its end; without `wait`, only names it."""
    if wait:
        if not as_json:
            console.print(f"{job.name} takes in {job.source_uri}", soft_wrap=True)
        return await show_job(client.watch_job(job.name), as_json=as_json)
    print_json(job) if as_json else console.print(job.name)
    return True


async def show_job(steps: AsyncGenerator[jobs_pb2.WatchJobResponse, None], *, as_json: bool) -> bool:
    """Shows how an ingestion goes and what became of it; returns whether every document is ready."""
    job = jobs_pb2.Job()
    with _bar(as_json=as_json) as progress:
        task = progress.add_task("waiting", total=None)
        async with aclosing(steps) as responses:
            async for response in responses:
                job = response.job
                if as_json:
                    print_json(response)
                progress.update(task, completed=_settled(job), total=job.counts.found or None, description=_pace(job))
    if not as_json:
        _tell(job)
    return job.state == jobs_pb2.Job.STATE_SUCCEEDED and not job.counts.failed


async def show_reindexing(jobs: AsyncGenerator[jobs_pb2.Job, None], *, wait: bool, as_json: bool) -> bool:
    """Shows how a reindexing goes; returns whether it succeeded, or, without `wait`, that it was started."""
    job = jobs_pb2.Job()
    with _bar(as_json=as_json) as progress:
        task = progress.add_task("reindexing", total=None)
        async with aclosing(jobs) as steps:
            async for job in steps:
                if as_json:
                    print_json(job)
                progress.update(task, completed=_settled(job), total=job.counts.found or None)
                if not wait:
                    break
    if not as_json:
        console.print(
            f"{job.name} {_state(job)}: {job.counts.ready} documents with {job.reindexing.encoder}", soft_wrap=True
        )
        for failure in job.failures:
            console.print(f"{failure.document}: {failure.error.message}", markup=False, soft_wrap=True)
    return not wait or job.state == jobs_pb2.Job.STATE_SUCCEEDED


def _bar(*, as_json: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=as_json or not console.is_terminal, transient=True)


def _settled(job: jobs_pb2.Job) -> int:
    return job.counts.ready + job.counts.unchanged + job.counts.failed


def _pace(job: jobs_pb2.Job) -> str:
    """Where its documents are, chunks a second, and the time left."""
    stages = " ".join(f"{stage.stage} {stage.documents}" for stage in job.stages if stage.documents)
    pace = f"{job.chunks_per_s:.0f} chunks/s" if job.chunks_per_s else ""
    left = f"{job.remaining.ToTimedelta().total_seconds():.0f} s left" if job.HasField("remaining") else ""
    return ", ".join(words for words in (stages, pace, left) if words) or _state(job)


def _tell(job: jobs_pb2.Job) -> None:
    counts = job.counts
    words = [f"{counts.ready} ready", f"{counts.unchanged} unchanged", f"{counts.failed} failed"]
    if counts.deleted:
        words.append(f"{counts.deleted} deleted")
    console.print(
        f"{job.name or job.source_uri} {_state(job)}: {', '.join(words)}; {counts.chunks} chunks", soft_wrap=True
    )
    if job.HasField("error"):
        console.print(from_status(job.error).message, markup=False, soft_wrap=True)
    _show_failures([(failure.uri or failure.document, from_status(failure.error)) for failure in job.failures])


def _state(job: jobs_pb2.Job) -> str:
    return jobs_pb2.Job.State.Name(job.state).removeprefix("STATE_").lower()


def _show_failures(failures: Sequence[tuple[str, RagmeshError]]) -> None:
    if failures:
        table = Table("document", "reason", "message")
        for name, error in failures:
            table.add_row(name, error.reason, error.message)
        console.print(table)


def _outcome(step: FileProgress) -> str:
    if step.error:
        return "failed"
    return "unchanged" if step.progress and step.progress.unchanged else "ready"


def _as_object(step: FileProgress) -> dict[str, object]:
    progress = MessageToDict(step.progress, preserving_proto_field_name=True) if step.progress else {}
    return {"path": str(step.path), "progress": progress, "error": _error(step.error)}


def _error(error: RagmeshError | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"code": error.code.name, "reason": error.reason, "message": error.message}
