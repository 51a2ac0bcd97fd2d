"""The commands and their options."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from ragmesh.common.v1 import server_pb2
from ragmesh.generator.v1 import generator_pb2
from ragmesh.retriever.v1 import retriever_pb2
from ragmesh_client.cli import answers, records
from ragmesh_client.cli.collections import collections
from ragmesh_client.cli.documents import documents
from ragmesh_client.cli.feedback import feedback
from ragmesh_client.cli.ingest import ingest
from ragmesh_client.cli.jobs import jobs
from ragmesh_client.cli.options import DEFAULT_COLLECTION, Collection, Json, settings
from ragmesh_client.cli.running import FAILED, WRONG_USAGE, Options, client_of, console, errors, print_json, run
from ragmesh_client.cli.strategies import strategies

app = typer.Typer(no_args_is_help=True, help="Ask questions over your own documents.", pretty_exceptions_enable=False)
app.command()(ingest)
app.add_typer(records.answers, name="answers")
app.add_typer(records.sessions, name="sessions")
app.add_typer(feedback, name="feedback")
app.add_typer(collections, name="collections")
app.add_typer(documents, name="documents")
app.add_typer(jobs, name="jobs")
app.add_typer(strategies, name="strategies")


def _target(given: str | None) -> str | None:
    if given and given.startswith(("http://", "https://")):
        raise typer.BadParameter(f"must be host:port, {given.partition('://')[2].rstrip('/')}; --tls is for TLS")
    return given


@app.callback()
def connection(
    context: typer.Context,
    target: Annotated[
        str | None, typer.Option(help="Where the mesh is, `host:port`.", envvar="RAGMESH_TARGET", callback=_target)
    ] = None,
    token: Annotated[str | None, typer.Option(help="The caller's token.", envvar="RAGMESH_TOKEN")] = None,
    tls: Annotated[bool, typer.Option(help="Speak TLS.")] = False,
) -> None:
    """Ask questions over your own documents."""
    context.obj = Options(target, token, tls)


@app.command()
def up() -> None:
    """Start a mesh on this machine and keep it up; Ctrl-C drains it. Works in a checkout."""
    if importlib.util.find_spec("deploy") is None:
        errors.print("`ragmesh up` starts a mesh from a checkout of ragmesh; there is none here.")
        raise typer.Exit(WRONG_USAGE)
    raise typer.Exit(subprocess.call([sys.executable, "-m", "deploy.local", "up"]))


@app.command()
def ask(
    context: typer.Context,
    question: str,
    collection: Collection = DEFAULT_COLLECTION,
    session: Annotated[str | None, typer.Option(help="The conversation to go on with, or to begin.")] = None,
    model: Annotated[str, typer.Option(help="The model; the default one without.")] = "",
    timeout_s: Annotated[float, typer.Option(help="Seconds that the answer may take.")] = 120.0,
    json: Json = False,
) -> None:
    """Ask a question; the answer streams in, with its citations below."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options, timeout_s) as client:
            events = client.ask(question, collection, session=session, model=model)
            await answers.render(events, as_json=json)

    run(options, command)


@app.command()
def search(
    context: typer.Context,
    query: str,
    collection: Collection = DEFAULT_COLLECTION,
    mode: Annotated[str, typer.Option(help="hybrid, dense or sparse.")] = "hybrid",
    top_k: Annotated[int, typer.Option(min=1, help="Hits to show.")] = 5,
    filter: Annotated[str, typer.Option(help='Which chunks, as `lang = "en"`.')] = "",  # the contract's word
    json: Json = False,
) -> None:
    """Search a collection's chunks."""
    options = settings(context, json=json)
    modes = {name.removeprefix("SEARCH_MODE_").lower(): name for name in retriever_pb2.SearchMode.keys()[1:]}
    if mode not in modes:
        raise typer.BadParameter(f"{mode!r} is none of {', '.join(modes)}", param_hint="--mode")

    async def command() -> None:
        async with client_of(options) as client:
            number = retriever_pb2.SearchMode.Value(modes[mode])
            response = await client.search(query, collection, mode=number, top_k=top_k, filter=filter)
            print_json(response) if json else answers.show_hits(response)

    run(options, command)


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Every server's health, version and load; exit code 1 where one does not serve."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            servers = await client.status()
        if json:
            for server in servers:
                print_json(server)
        else:
            console.print(_status_table(servers))
        if not all(_serves(server) for server in servers):
            raise typer.Exit(FAILED)

    run(options, command)


@app.command()
def models(context: typer.Context, json: Json = False) -> None:
    """The models that questions can name, the default one first."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            found = await client.models()
        table = Table("model", "kind", "engine", "context", "description")
        for model in found:
            if json:
                print_json(model)
            kind = generator_pb2.EngineKind.Name(model.kind).removeprefix("ENGINE_KIND_").replace("_", " ").lower()
            table.add_row(model.model, kind, model.engine, str(model.max_model_tokens or "-"), model.description)
        if not json:
            console.print(table)

    run(options, command)


def main() -> None:
    """The console script."""
    app()


def _serves(server: server_pb2.ServerInfo) -> bool:
    return all(service.state == server_pb2.ServiceHealth.STATE_SERVING for service in server.services)


def _status_table(servers: Sequence[server_pb2.ServerInfo]) -> Table:
    table = Table("server", "health", "version", "running", "waiting", "limit", "since")
    for server in servers:
        health = "[green]serving[/green]" if _serves(server) else "[red]not serving[/red]"
        since = server.start_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S") if server.start_time.seconds else "-"
        load = server.load
        counts = (str(load.running), str(load.waiting), str(load.limit or "-"))
        table.add_row(server.name, health, server.version or "-", *counts, since)
    return table
