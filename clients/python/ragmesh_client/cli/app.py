"""The commands and their options."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ragmesh.common.v1 import server_pb2
from ragmesh.generator.v1 import generator_pb2
from ragmesh.ingest.v1 import documents_pb2
from ragmesh.retriever.v1 import retriever_pb2
from ragmesh_client.cli import answers, intake
from ragmesh_client.cli.running import (
    FAILED,
    WRONG_USAGE,
    Options,
    client_of,
    console,
    errors,
    print_json,
    run,
)
from ragmesh_client.client import Client
from ragmesh_client.errors import NotFoundError

app = typer.Typer(no_args_is_help=True, help="Ask questions over your own documents.", pretty_exceptions_enable=False)
collections = typer.Typer(no_args_is_help=True, help="The knowledge bases.")
documents = typer.Typer(no_args_is_help=True, help="What is in them.")
app.add_typer(collections, name="collections")
app.add_typer(documents, name="documents")

Collection = Annotated[str, typer.Option("--collection", "-c", help="The collection, `handbook`.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
DEFAULT_COLLECTION = "default"


@app.callback()
def options(
    context: typer.Context,
    target: Annotated[str | None, typer.Option(help="Where the mesh is, `host:port`.", envvar="RAGMESH_TARGET")] = None,
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
    settings = _settings(context, json=json)

    async def command() -> None:
        async with client_of(settings, timeout_s) as client:
            events = client.ask(question, collection, session=session, model=model)
            await answers.render(events, as_json=json)

    run(settings, command)


@app.command()
def search(
    context: typer.Context,
    query: str,
    collection: Collection = DEFAULT_COLLECTION,
    mode: Annotated[str, typer.Option(help="hybrid, dense or sparse.")] = "hybrid",
    top_k: Annotated[int, typer.Option(help="Hits to show.")] = 5,
    filter: Annotated[str, typer.Option(help='Which chunks, as `lang = "en"`.')] = "",  # the contract's word
    json: Json = False,
) -> None:
    """Search a collection's chunks."""
    settings = _settings(context, json=json)
    modes = {name.removeprefix("SEARCH_MODE_").lower(): name for name in retriever_pb2.SearchMode.keys()[1:]}
    if mode not in modes:
        raise typer.BadParameter(f"{mode!r} is none of {', '.join(modes)}", param_hint="--mode")

    async def command() -> None:
        async with client_of(settings) as client:
            number = retriever_pb2.SearchMode.Value(modes[mode])
            response = await client.search(query, collection, mode=number, top_k=top_k, filter=filter)
            print_json(response) if json else answers.show_hits(response)

    run(settings, command)


@app.command()
def ingest(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(exists=True, readable=True, help="Files and folders.")],
    collection: Collection = DEFAULT_COLLECTION,
    create: Annotated[bool, typer.Option(help="Make the collection where it does not exist.")] = True,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Files at once.")] = 4,
    json: Json = False,
) -> None:
    """Take documents in; unchanged ones cost a hash."""
    settings = _settings(context, json=json)

    async def command() -> None:
        async with client_of(settings) as client:
            if create:
                await _make_if_missing(client, collection)
            ready = await intake.ingest(client, paths, collection, concurrency=concurrency, as_json=json)
            if not ready:
                raise typer.Exit(FAILED)

    run(settings, command)


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Every server's health, version and load; exit code 1 where one does not serve."""
    settings = _settings(context, json=json)

    async def command() -> None:
        async with client_of(settings) as client:
            servers = await client.status()
        if json:
            for server in servers:
                print_json(server)
        else:
            console.print(_status_table(servers))
        if not all(_serves(server) for server in servers):
            raise typer.Exit(FAILED)

    run(settings, command)


@app.command()
def models(context: typer.Context, json: Json = False) -> None:
    """The models that questions can name, the default one first."""
    settings = _settings(context, json=json)

    async def command() -> None:
        async with client_of(settings) as client:
            found = await client.models()
        table = Table("model", "kind", "engine", "context", "description")
        for model in found:
            if json:
                print_json(model)
            kind = generator_pb2.EngineKind.Name(model.kind).removeprefix("ENGINE_KIND_").replace("_", " ").lower()
            table.add_row(model.model, kind, model.engine, str(model.max_model_tokens or "-"), model.description)
        if not json:
            console.print(table)

    run(settings, command)


@collections.command("list")
def list_collections(context: typer.Context, json: Json = False) -> None:
    """The tenant's collections."""
    settings = _settings(context, json=json)

    async def command() -> None:
        table = Table("collection", "documents", "chunks", "encoder", "name")
        async with client_of(settings) as client:
            async for found in client.list_collections():
                if json:
                    print_json(found)
                name, counts = (
                    found.name.removeprefix("collections/"),
                    (found.document_count, found.chunk_count),
                )
                table.add_row(name, *(str(count) for count in counts), found.encoder, found.display_name)
        if not json:
            console.print(table)

    run(settings, command)


@collections.command("create")
def create_collection(context: typer.Context, collection: str, json: Json = False) -> None:
    """Make a collection."""
    settings = _settings(context, json=json)

    async def command() -> None:
        async with client_of(settings) as client:
            made = await client.create_collection(collection)
        print_json(made) if json else console.print(f"made {made.name}")

    run(settings, command)


@collections.command("delete")
def delete_collection(
    context: typer.Context,
    collection: str,
    force: Annotated[bool, typer.Option(help="Also where it has documents.")] = False,
    json: Json = False,
) -> None:
    """Delete a collection with its index and documents."""
    settings = _settings(context, json=json)

    async def command() -> None:
        async with client_of(settings) as client:
            await client.delete_collection(collection, force=force)
        if not json:
            console.print(f"deleted {collection}")

    run(settings, command)


@collections.command("reindex")
def reindex_collection(
    context: typer.Context,
    collection: str,
    encoder: Annotated[str, typer.Option(help="The encoder; the server's default without.")] = "",
    language: Annotated[str, typer.Option(help="standard, english or chinese; as it is without.")] = "",
    wait: Annotated[bool, typer.Option(help="Show how it goes, to the end.")] = True,
    json: Json = False,
) -> None:
    """Encode a collection's documents with another encoder, while it goes on serving."""
    settings = _settings(context, json=json)

    async def command() -> None:
        async with client_of(settings) as client:
            jobs = client.reindex(collection, encoder=encoder, language=language)
            if not await intake.reindex(jobs, wait=wait, as_json=json):
                raise typer.Exit(FAILED)

    run(settings, command)


@documents.command("list")
def list_documents(context: typer.Context, collection: Collection = DEFAULT_COLLECTION, json: Json = False) -> None:
    """The documents of a collection."""
    settings = _settings(context, json=json)

    async def command() -> None:
        table = Table("document", "state", "chunks", "kind", "title")
        async with client_of(settings) as client:
            async for found in client.list_documents(collection):
                if json:
                    print_json(found)
                state = documents_pb2.Document.State.Name(found.state).removeprefix("STATE_").lower()
                table.add_row(found.name, state, str(found.chunk_count), found.media_type, found.title)
        if not json:
            console.print(table)

    run(settings, command)


@documents.command("delete")
def delete_document(context: typer.Context, name: str, json: Json = False) -> None:
    """Delete a document, by its full name, with its chunks."""
    settings = _settings(context, json=json)

    async def command() -> None:
        async with client_of(settings) as client:
            chunks = await client.delete_document(name)
        if not json:
            console.print(f"deleted {name} with {chunks} chunks")

    run(settings, command)


def main() -> None:
    """The console script."""
    app()


def _settings(context: typer.Context, *, json: bool) -> Options:
    settings: Options = context.obj
    settings.json = json
    return settings


async def _make_if_missing(client: Client, collection: str) -> None:
    try:
        await client.get_collection(collection)
    except NotFoundError:
        await client.create_collection(collection)


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
