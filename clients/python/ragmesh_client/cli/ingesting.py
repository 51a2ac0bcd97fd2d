"""Documents on their way in: a bar that moves, then what became of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ragmesh.ingest.v1 import jobs_pb2
from ragmesh_client.cli.running import console, print_json, print_object, show, table
from ragmesh_client.client import Client
from ragmesh_client.errors import RagmeshError, from_status
from ragmesh_client.intake import HowToTake
from ragmesh_client.uploads import FileProgress, document_files

_MAX_NAME_CHARS = 40
_STOPPED = "CANCELLED"
_EMPTY = "without text"
# What the bar, the counts and the time beside it need, and what is told however narrow the terminal is.
_BAR_CHARS, _MIN_PACE_CHARS = 28, 10


async def upload(
    client: Client, paths: list[Path], collection: str, how: HowToTake, *, concurrency: int, as_json: bool
) -> bool:
    """Uploads files with a bar and prints a summary; returns whether all of them are ready."""
    ended: list[FileProgress] = []
    with _bar(as_json=as_json) as progress:
        total = len(document_files(paths))
        task = progress.add_task("ingesting", total=total)
        try:
            async for step in client.ingest(paths, collection, concurrency=concurrency, **how):
                if as_json:
                    print_object(_as_object(step))
                if step.ended:
                    ended.append(step)
                    progress.advance(task)
                progress.update(task, description=step.path.name[:_MAX_NAME_CHARS])
        finally:
            # Also where Ctrl-C ends it.
            progress.stop()
            if not as_json:
                _sum_up(ended, paths, total)
    return len(ended) == total and all(_outcome(step) != "failed" for step in ended)


async def follow(client: Client, job: jobs_pb2.Job, *, wait: bool, as_json: bool) -> bool:
    """Names a job that was started and shows it to its end; without `wait`, only names it."""
    if wait:
        if not as_json:
            console.print(f"{job.name} takes in {job.source_uri}", markup=False, soft_wrap=True)
        try:
            return await show_job(client.watch_job(job.name), as_json=as_json)
        except asyncio.CancelledError:
            if not as_json:
                console.print(f"{job.name} goes on; `ragmesh jobs cancel` would stop it", soft_wrap=True)
            raise
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
    return job.state == jobs_pb2.Job.STATE_SUCCEEDED and job.counts.failed == job.counts.without_text


def show_job_as_it_stands(job: jobs_pb2.Job) -> None:
    """Prints a job's fields, then its failed documents."""
    rest = jobs_pb2.Job()
    rest.CopyFrom(job)
    rest.ClearField("failures")
    show(rest, as_json=False)
    _show_failures(_failures(job))


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
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=as_json or not console.is_terminal, transient=True)


def _settled(job: jobs_pb2.Job) -> int:
    return job.counts.ready + job.counts.unchanged + job.counts.failed


def _pace(job: jobs_pb2.Job) -> str:
    """The time left, chunks a second, and where its documents are, as far as the terminal has room."""
    stages = " ".join(f"{stage.stage} {stage.documents}" for stage in job.stages if stage.documents)
    pace = f"{job.chunks_per_s:.0f} chunks/s" if job.chunks_per_s else ""
    left = f"{job.remaining.ToTimedelta().total_seconds():.0f} s left" if job.HasField("remaining") else ""
    told = ", ".join(words for words in (left, pace, stages) if words) or _state(job)
    return told[: max(console.width - _BAR_CHARS, _MIN_PACE_CHARS)]


def _tell(job: jobs_pb2.Job) -> None:
    counts = job.counts
    failed = counts.failed - counts.without_text
    words = [f"{counts.ready} ready", f"{counts.unchanged} unchanged", f"{failed} failed"]
    if counts.without_text:
        words.append(f"{counts.without_text} without text")
    if counts.deleted:
        words.append(f"{counts.deleted} deleted")
    console.print(
        f"{job.name or job.source_uri} {_state(job)}: {', '.join(words)}; {counts.chunks} chunks", soft_wrap=True
    )
    if job.HasField("error"):
        console.print(from_status(job.error).message, markup=False, soft_wrap=True)
    _show_failures(_failures(job))


def _sum_up(ended: Sequence[FileProgress], paths: Sequence[Path], total: int) -> None:
    counts = Counter(_outcome(step) for step in ended)
    words = [f"{counts[outcome]} {outcome}" for outcome in ("ready", "unchanged", "failed")]
    if counts[_EMPTY]:
        words.append(f"{counts[_EMPTY]} {_EMPTY}")
    if len(ended) < total:
        words.append(f"{total - len(ended)} not done")
    console.print(", ".join(words))
    _show_failures([(_below(paths, step.path), step.error) for step in ended if step.error])


def _below(paths: Sequence[Path], path: Path) -> str:
    """The file as its folder has it, or as it was given."""
    folder = next((given for given in paths if given.is_dir() and path.is_relative_to(given)), None)
    return str(path.relative_to(folder) if folder else path)


def _failures(job: jobs_pb2.Job) -> list[tuple[str, RagmeshError]]:
    """Its failed documents; those that stopped with it make one row."""
    folder = f"{job.source_uri.rstrip('/')}/"
    found = [(fail.uri.removeprefix(folder) or fail.document, from_status(fail.error)) for fail in job.failures]
    stopped = [error for _, error in found if error.reason == _STOPPED]
    listed = [(name, error) for name, error in found if error.reason != _STOPPED]
    return [*listed, (f"{len(stopped)} documents", stopped[0])] if stopped else listed


def _state(job: jobs_pb2.Job) -> str:
    return jobs_pb2.Job.State.Name(job.state).removeprefix("STATE_").lower()


def _show_failures(failures: Sequence[tuple[str, RagmeshError]]) -> None:
    if failures:
        rows = table("document", "reason", "message")
        for name, error in failures:
            rows.add_row(escape(name), error.reason or error.code.name, escape(error.message))
        console.print(rows)


def _outcome(step: FileProgress) -> str:
    if step.error:
        # Pages that OCR could read are missing, what has no text is not.
        return _EMPTY if step.error.reason == "NO_TEXT" and "ocr" not in step.error.metadata else "failed"
    return "unchanged" if step.progress and step.progress.unchanged else "ready"


def _as_object(step: FileProgress) -> dict[str, object]:
    progress = MessageToDict(step.progress, preserving_proto_field_name=True) if step.progress else {}
    return {"path": str(step.path), "progress": progress, "error": _error(step.error)}


def _error(error: RagmeshError | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"code": error.code.name, "reason": error.reason, "message": error.message}
