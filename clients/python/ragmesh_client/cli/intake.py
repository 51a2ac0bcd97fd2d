"""Documents on their way in: a progress bar, then what became of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ragmesh_client.cli.running import console, print_object
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
