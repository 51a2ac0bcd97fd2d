"""`ragmesh documents`: what is in a collection."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ragmesh.ingest.v1 import documents_pb2
from ragmesh_client.cli.options import DEFAULT_COLLECTION, Collection, Json, settings
from ragmesh_client.cli.running import client_of, console, print_json, run, show, table
from ragmesh_client.connection import full_name

documents = typer.Typer(no_args_is_help=True, help="What is in a collection.")

Document = Annotated[str, typer.Argument(help="Its id in the collection, or its full name.")]


@documents.command("list")
def list_documents(context: typer.Context, collection: Collection = DEFAULT_COLLECTION, json: Json = False) -> None:
    """The documents of a collection: their ids, and their titles below."""
    options = settings(context, json=json)

    async def command() -> None:
        rows = table("document", "state", "chunks")
        async with client_of(options) as client:
            async for found in client.list_documents(collection):
                if json:
                    print_json(found)
                state = documents_pb2.Document.State.Name(found.state).removeprefix("STATE_").lower()
                words = [found.name.rpartition("/")[2], found.title]
                rows.add_row(escape("\n".join(filter(None, words))), state, str(found.chunk_count))
        if not json:
            console.print(rows)

    run(options, command)


@documents.command("show")
def show_document(
    context: typer.Context, document: Document, collection: Collection = DEFAULT_COLLECTION, json: Json = False
) -> None:
    """A document's record: how it was read and cut, how long that took, and what came before."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            show(await client.get_document(_name(collection, document)), as_json=json)

    run(options, command)


@documents.command("delete")
def delete_document(
    context: typer.Context, document: Document, collection: Collection = DEFAULT_COLLECTION, json: Json = False
) -> None:
    """Delete a document with its chunks."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            chunks = await client.delete_document(_name(collection, document))
        if not json:
            console.print(f"deleted {document} with {chunks} chunks", markup=False, soft_wrap=True)

    run(options, command)


def _name(collection: str, document: str) -> str:
    return document if "/" in document else f"{full_name('collections', collection)}/documents/{document}"
