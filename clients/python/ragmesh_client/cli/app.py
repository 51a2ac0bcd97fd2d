"""The commands and their options."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ragmesh.common.v1 import server_pb2
from ragmesh.generator.v1 import generator_pb2
from ragmesh.retriever.v1 import retriever_pb2
from ragmesh_client.cli import answers, ingesting
from ragmesh_client.cli.collections import collections
from ragmesh_client.cli.documents import documents
from ragmesh_client.cli.jobs import jobs
from ragmesh_client.cli.options import (
    DEFAULT_COLLECTION,
    Collection,
    Json,
    Parameters,
    Strategy,
    assignments,
    chunking_of,
    settings,
)
from ragmesh_client.cli.ray import Cluster, ordered
from ragmesh_client.cli.running import FAILED, WRONG_USAGE, Options, client_of, console, errors, print_json, run
from ragmesh_client.cli.strategies import strategies
from ragmesh_client.client import Client
from ragmesh_client.errors import NotFoundError
from ragmesh_client.intake import HowToTake

app = typer.Typer(no_args_is_help=True, help="Ask questions over your own documents.", pretty_exceptions_enable=False)
app.add_typer(collections, name="collections")
app.add_typer(documents, name="documents")
app.add_typer(jobs, name="jobs")
app.add_typer(strategies, name="strategies")


@app.callback()
def connection(
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
def ingest(
    context: typer.Context,
    sources: Annotated[list[str], typer.Argument(help="Files and folders; or one address that the mesh reads itself.")],
    collection: Collection = DEFAULT_COLLECTION,
    create: Annotated[bool, typer.Option(help="Make the collection where it does not exist.")] = True,
    strategy: Strategy = "",
    parameter: Parameters = None,
    metadata: Annotated[list[str] | None, typer.Option(help="`team=hr`, for filters; may be repeated.")] = None,
    password: Annotated[str, typer.Option(help="Opens encrypted documents; it is not kept.")] = "",
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Files at once.")] = 4,
    include: Annotated[list[str] | None, typer.Option(help="Of an address: only such paths, `**/*.md`.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Of an address: no such paths.")] = None,
    delete_missing: Annotated[bool, typer.Option(help="Of an address: delete what is gone from it.")] = False,
    wait: Annotated[bool, typer.Option(help="Of an address: show how it goes, to the end.")] = True,
    ray: Annotated[
        str, typer.Option(help="Take an address in on this Ray cluster: `auto`, `local`, `host:port`.")
    ] = "",
    ray_workers: Annotated[int, typer.Option(min=1, help="On Ray: workers that parse and cut, a CPU each.")] = 2,
    ray_encoders: Annotated[int, typer.Option(min=1, help="On Ray: workers that get vectors and write.")] = 1,
    ray_gpus: Annotated[float, typer.Option(min=0, help="On Ray: GPUs of each of those; with --ray-model.")] = 0.0,
    ray_model: Annotated[str, typer.Option(help="On Ray: the model they encode with; embedder_svc without.")] = "",
    embedder: Annotated[str, typer.Option(help="On Ray: where the cluster reaches embedder_svc, `host:port`.")] = "",
    json: Json = False,
) -> None:
    """Take documents in: upload files and folders, or let the mesh read `file://`, `s3://`, `gs://` or `az://` itself.

    What is unchanged costs a hash. Ctrl-C stops uploads; a job of the mesh goes on, and `ragmesh jobs` has it.
    """
    options = settings(context, json=json)
    how: HowToTake = {
        "chunking": chunking_of(strategy, parameter),
        "metadata": assignments(metadata, "--metadata"),
        "password": password,
    }
    address = _address(sources)
    paths = [] if address else _paths(sources)
    cluster = Cluster(ray, ray_workers, ray_encoders, ray_gpus, ray_model, embedder)
    if not address:
        of_addresses = {"--include": include, "--exclude": exclude, "--delete-missing": delete_missing, "--ray": ray}
        _refuse(of_addresses, "only an address takes it")
    elif ray:
        _refuse({"--password": password}, "--ray reads no encrypted documents")
    else:
        _refuse({"--metadata": metadata, "--password": password}, "the mesh reads an address without it: upload files")

    async def command() -> None:
        async with client_of(options) as client:
            await _find(client, collection, create=create)
            if not address:
                done = await ingesting.upload(client, paths, collection, how, concurrency=concurrency, as_json=json)
            elif ray:
                order = cluster.order(client, address, collection, how, (include or [], exclude or []))
                done = await ingesting.show_job(
                    ordered(client, order | {"delete_missing": delete_missing}), as_json=json
                )
            else:
                job = await client.start_job(
                    address,
                    collection,
                    include=include or (),
                    exclude=exclude or (),
                    chunking=how["chunking"],
                    delete_missing=delete_missing,
                )
                done = await ingesting.follow(client, job, wait=wait, as_json=json)
            if not done:
                raise typer.Exit(FAILED)

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


def _address(sources: list[str]) -> str:
    """The one address among the sources, or "" where they are paths."""
    addresses = [source for source in sources if "://" in source]
    if addresses and len(sources) > 1:
        raise typer.BadParameter("an address stands alone: each is a job of its own", param_hint="SOURCES")
    return addresses[0] if addresses else ""


def _paths(sources: list[str]) -> list[Path]:
    paths = [Path(source) for source in sources]
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise typer.BadParameter(f"there is no {missing}", param_hint="SOURCES")
    return paths


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Refuses options that would be left out without a word."""
    for option, value in given.items():
        if value:
            raise typer.BadParameter(why, param_hint=option)


async def _find(client: Client, collection: str, *, create: bool) -> None:
    try:
        await client.get_collection(collection)
    except NotFoundError:
        if not create:
            raise
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
