"""`ragmesh documents`: what is in a collection."""

from __future__ import annotations

import typer
from rich.table import Table

from ragmesh.ingest.v1 import documents_pb2
from ragmesh_client.cli.options import DEFAULT_COLLECTION, Collection, Json, settings
from ragmesh_client.cli.running import client_of, console, print_json, run, show

documents = typer.Typer(no_args_is_help=True, help="What is in a collection.")


@documents.command("list")
def list_documents(context: typer.Context, collection: Collection = DEFAULT_COLLECTION, json: Json = False) -> None:
    """The documents of a collection."""
    options = settings(context, json=json)

    async def command() -> None:
        table = Table("document", "state", "chunks", "kind", "title")
        async with client_of(options) as client:
            async for found in client.list_documents(collection):
                if json:
                    print_json(found)
                state = documents_pb2.Document.State.Name(found.state).removeprefix("STATE_").lower()
                table.add_row(found.name, state, str(found.chunk_count), found.media_type, found.title)
        if not json:
            console.print(table)

    run(options, command)


@documents.command("show")
def show_document(context: typer.Context, name: str, json: Json = False) -> None:
    """A document's record, by its full name: how it was read and cut, how long that took, and what came before."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            show(await client.get_document(name), as_json=json)

    run(options, command)


@documents.command("delete")
def delete_document(context: typer.Context, name: str, json: Json = False) -> None:
    """Delete a document, by its full name, with its chunks."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            chunks = await client.delete_document(name)
        if not json:
            console.print(f"deleted {name} with {chunks} chunks")

    run(options, command)
