"""`ragmesh collections`: the knowledge bases."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ragmesh.ingest.v1 import collections_pb2
from ragmesh.retriever.v1 import index_pb2
from ragmesh_client.cli import ingesting
from ragmesh_client.cli.options import Json, Parameters, Strategy, chunking_of, settings
from ragmesh_client.cli.running import FAILED, client_of, console, print_json, run, show, table

collections = typer.Typer(no_args_is_help=True, help="The knowledge bases.")

_TYPES = {name.removeprefix("TYPE_").lower(): name for name in index_pb2.FilterableField.Type.keys()[1:]}
Title = Annotated[str, typer.Option("--title", help="Its name for people.")]
Description = Annotated[str, typer.Option(help="What it is about.")]
Encoder = Annotated[str, typer.Option(help="The encoder; the server's default without.")]
Language = Annotated[str, typer.Option(help="How BM25 cuts words: standard, english or chinese.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field", help=f"A field of the metadata for filters, `year:number` ({', '.join(_TYPES)}); may be repeated."
    ),
]


@collections.command("list")
def list_collections(context: typer.Context, json: Json = False) -> None:
    """The tenant's collections."""
    options = settings(context, json=json)

    async def command() -> None:
        found_all = table("collection", "documents", "chunks", "chunking", "encoder", "title")
        async with client_of(options) as client:
            async for found in client.list_collections():
                if json:
                    print_json(found)
                name, counts = found.name.removeprefix("collections/"), (found.document_count, found.chunk_count)
                words = (found.chunking.strategy, found.encoder.partition("@")[0], escape(found.display_name))
                found_all.add_row(name, *(str(count) for count in counts), *words)
        if not json:
            console.print(found_all)

    run(options, command)


@collections.command("show")
def show_collection(context: typer.Context, collection: str, json: Json = False) -> None:
    """A collection's settings and what it holds."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            show(await client.get_collection(collection), as_json=json)

    run(options, command)


@collections.command("create")
def create_collection(
    context: typer.Context,
    collection: str,
    title: Title = "",
    description: Description = "",
    strategy: Strategy = "",
    parameter: Parameters = None,
    encoder: Encoder = "",
    language: Language = "",
    field: Fields = None,
    json: Json = False,
) -> None:
    """Make a collection."""
    options = settings(context, json=json)
    wanted = collections_pb2.Collection(
        display_name=title,
        description=description,
        chunking=chunking_of(strategy, parameter),
        encoder=encoder,
        language=language,
        filterable_fields=_fields(field),
    )

    async def command() -> None:
        async with client_of(options) as client:
            made = await client.create_collection(collection, wanted)
        print_json(made) if json else console.print(f"made {made.name}")

    run(options, command)


@collections.command("update")
def update_collection(
    context: typer.Context,
    collection: str,
    title: Annotated[str | None, typer.Option("--title", help="Its name for people.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    strategy: Strategy = "",
    parameter: Parameters = None,
    field: Fields = None,
    json: Json = False,
) -> None:
    """Change what is given; the rest stays. Chunking counts for documents that come later."""
    options = settings(context, json=json)
    changed = {
        "display_name": title,
        "description": description,
        "chunking": chunking_of(strategy, parameter),
        "filterable_fields": _fields(field) if field else None,
    }
    named = {name: value for name, value in changed.items() if value is not None}
    if not named:
        raise typer.BadParameter("nothing to change was given")

    async def command() -> None:
        async with client_of(options) as client:
            found = await client.get_collection(collection)
            # With the etag: a change that another made meanwhile is not overwritten.
            wanted = collections_pb2.Collection(name=found.name, etag=found.etag, **named)  # type: ignore[arg-type]
            made = await client.update_collection(wanted, list(named))
        print_json(made) if json else console.print(f"changed {made.name}: {', '.join(named)}")

    run(options, command)


@collections.command("delete")
def delete_collection(
    context: typer.Context,
    collection: str,
    force: Annotated[bool, typer.Option(help="Also where it has documents.")] = False,
    json: Json = False,
) -> None:
    """Delete a collection with its index and documents."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            await client.delete_collection(collection, force=force)
        if not json:
            console.print(f"deleted {collection}")

    run(options, command)


@collections.command("reindex")
def reindex_collection(
    context: typer.Context,
    collection: str,
    encoder: Encoder = "",
    language: Annotated[str, typer.Option(help="standard, english or chinese; as it is without.")] = "",
    wait: Annotated[bool, typer.Option(help="Show how it goes, to the end.")] = True,
    json: Json = False,
) -> None:
    """Encode a collection's documents with another encoder, while it goes on serving."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            jobs = client.reindex(collection, encoder=encoder, language=language)
            if not await ingesting.show_reindexing(jobs, wait=wait, as_json=json):
                raise typer.Exit(FAILED)

    run(options, command)


def _fields(given: list[str] | None) -> list[index_pb2.FilterableField]:
    found = []
    for each in given or []:
        name, _, type = each.partition(":")
        if not name or (type or "string") not in _TYPES:
            raise typer.BadParameter(
                f"{each!r} is not name:type, type one of {', '.join(_TYPES)}", param_hint="--field"
            )
        number = index_pb2.FilterableField.Type.Value(_TYPES[type or "string"])
        found.append(index_pb2.FilterableField(field=name, type=number))
    return found
