"""`ragmesh ingest`: files that are uploaded, and addresses that the mesh or a Ray cluster reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ragmesh.ingest.v1 import jobs_pb2
from ragmesh_client.cli import ingesting
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
from ragmesh_client.cli.ray import Address, Cluster, ordered
from ragmesh_client.cli.running import FAILED, client_of, run
from ragmesh_client.client import Client
from ragmesh_client.errors import NotFoundError
from ragmesh_client.intake import HowToTake


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
    of_addresses = Address(_address(sources), include or [], exclude or [], delete_missing)
    cluster = Cluster(ray, ray_workers, ray_encoders, ray_gpus, ray_model, embedder)
    paths = [] if of_addresses.uri else _paths(sources)
    _refuse_unread(of_addresses, how, cluster)

    async def command() -> None:
        async with client_of(options) as client:
            await _find(client, collection, create=create)
            if not of_addresses.uri:
                done = await ingesting.upload(client, paths, collection, how, concurrency=concurrency, as_json=json)
            elif ray:
                steps = ordered(client, cluster.order(client, of_addresses, collection, how))
                done = await ingesting.show_job(steps, as_json=json)
            else:
                job = await _start(client, of_addresses, collection, how)
                done = await ingesting.follow(client, job, wait=wait, as_json=json)
            if not done:
                raise typer.Exit(FAILED)

    run(options, command)


async def _start(client: Client, address: Address, collection: str, how: HowToTake) -> jobs_pb2.Job:
    return await client.start_job(
        address.uri,
        collection,
        include=address.include,
        exclude=address.exclude,
        chunking=how["chunking"],
        delete_missing=address.delete_missing,
    )


def _refuse_unread(address: Address, how: HowToTake, cluster: Cluster) -> None:
    """Refuses options that would be left out without a word."""
    metadata: dict[str, object] = {"--metadata": how["metadata"]}
    password: dict[str, object] = {"--password": how["password"]}
    if not address.uri:
        patterns: dict[str, object] = {"--include": address.include, "--exclude": address.exclude}
        others: dict[str, object] = {"--delete-missing": address.delete_missing, "--ray": cluster.address}
        _refuse(patterns | others, "only an address takes it")
    elif cluster.address:
        _refuse(password, "--ray reads no encrypted documents")
    else:
        _refuse(metadata | password, "the mesh reads an address without it: upload files")


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
