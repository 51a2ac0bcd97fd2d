"""`ragmesh jobs`: what the mesh takes in by itself."""

from __future__ import annotations

import typer
from rich.markup import escape

from ragmesh.ingest.v1 import jobs_pb2
from ragmesh_client.cli import ingesting
from ragmesh_client.cli.options import Json, settings
from ragmesh_client.cli.running import FAILED, client_of, console, print_json, run, table

jobs = typer.Typer(no_args_is_help=True, help="What the mesh takes in by itself.")


@jobs.command("list")
def list_jobs(context: typer.Context, json: Json = False) -> None:
    """The tenant's jobs, newest first: documents that are ready, the same as before or failed, of those found."""
    options = settings(context, json=json)

    async def command() -> None:
        rows = table("job", "collection", "state", "ready", "same", "failed", "of")
        async with client_of(options) as client:
            async for found in client.list_jobs():
                if json:
                    print_json(found)
                counts = found.counts
                numbers = (counts.ready, counts.unchanged, counts.failed, counts.found)
                job = f"{found.name.removeprefix('jobs/')}\n{found.source_uri or found.reindexing.encoder}"
                place = found.collection.removeprefix("collections/")
                rows.add_row(escape(job), place, _state(found), *(str(each) for each in numbers))
        if not json:
            console.print(rows)

    run(options, command)


@jobs.command("show")
def show_job(context: typer.Context, job: str, json: Json = False) -> None:
    """A job as it stands."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            found = await client.get_job(job)
        if json:
            print_json(found)
        else:
            ingesting.show_job_as_it_stands(found)

    run(options, command)


@jobs.command("watch")
def watch_job(context: typer.Context, job: str, json: Json = False) -> None:
    """Show how a job goes, to its end; Ctrl-C leaves it alone."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            if not await ingesting.show_job(client.watch_job(job), as_json=json):
                raise typer.Exit(FAILED)

    run(options, command)


@jobs.command("cancel")
def cancel_job(context: typer.Context, job: str, json: Json = False) -> None:
    """Stop a job; documents that are ready stay."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            cancelled = await client.cancel_job(job)
        print_json(cancelled) if json else console.print(f"{cancelled.name} {_state(cancelled)}")

    run(options, command)


def _state(job: jobs_pb2.Job) -> str:
    return jobs_pb2.Job.State.Name(job.state).removeprefix("STATE_").lower()
