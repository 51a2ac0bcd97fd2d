"""Documents on their way in: a progress bar, then what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ragmesh.ingest.v1 import jobs_pb2
from ragmesh_client.cli.running import console, print_json, print_object
from ragmesh_client.client import Client
from ragmesh_client.errors import RagmeshError
from ragmesh_client.uploads import FileProgress, document_files


async def ingest(client: Client, paths: list[Path], collection: str, *, concurrency: int, as_json: bool) -> bool:
    """Takes files in with a progress bar and prints a summary; returns whether all of them are ready."""
    ended: list[FileProgress] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=as_json or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("ingesting", total=len(document_files(paths)))
        async for step in client.ingest(paths, collection, concurrency=concurrency):
            if as_json:
                print_object(_as_object(step))
            if step.ended:
                ended.append(step)
                progress.advance(task)
            progress.update(task, description=step.path.name[:40])
    if not as_json:
        _summarise(ended)
    return not any(step.error for step in ended)


async def reindex(jobs: AsyncGenerator[jobs_pb2.Job, None], *, wait: bool, as_json: bool) -> bool:
    """Shows how a reindexing goes; returns whether it succeeded, or, without `wait`, that it was started."""
    job = jobs_pb2.Job()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=as_json or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("reindexing", total=None)
        async with aclosing(jobs) as steps:
            async for job in steps:
                if as_json:
                    print_json(job)
                counts = job.counts
                done = counts.ready + counts.unchanged + counts.failed
                progress.update(task, completed=done, total=counts.found or None)
                if not wait:
                    break
    if not as_json:
        _tell(job)
    return not wait or job.state == jobs_pb2.Job.STATE_SUCCEEDED


def _tell(job: jobs_pb2.Job) -> None:
    state = jobs_pb2.Job.State.Name(job.state).removeprefix("STATE_").lower()
    console.print(f"{job.name} {state}: {job.counts.ready} documents with {job.reindexing.encoder}", soft_wrap=True)
    for failure in job.failures:
        console.print(f"{failure.document}: {failure.error.message}", markup=False, soft_wrap=True)


def _summarise(ended: list[FileProgress]) -> None:
    counts = Counter(_outcome(step) for step in ended)
    console.print(", ".join(f"{counts[outcome]} {outcome}" for outcome in ("ready", "unchanged", "failed")))
    failures = [(step.path, step.error) for step in ended if step.error]
    if failures:
        table = Table("file", "reason", "message")
        for path, error in failures:
            table.add_row(str(path), error.reason, error.message)
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
