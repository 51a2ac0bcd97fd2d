"""Options that several commands have, and what stands in them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ragmesh.ingest.v1 import chunking_pb2
from ragmesh_client.cli.running import Options
from ragmesh_client.strategies import chunking

DEFAULT_COLLECTION = "default"

Collection = Annotated[str, typer.Option("--collection", "-c", help="The collection, `handbook`.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Strategy = Annotated[str, typer.Option(help="The chunking strategy; `ragmesh strategies list` has them.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", help="One of its parameters, `max_tokens=200`; may be repeated."),
]


def settings(context: typer.Context, *, json: bool) -> Options:
    """What stands before the command's name, and how to print."""
    found: Options = context.obj
    found.json = json
    return found


def assignments(given: list[str] | None, option: str) -> dict[str, Any]:
    """`name=value` pairs; a value that is JSON is read as that, any other is text."""
    found: dict[str, Any] = {}
    for each in given or []:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{each!r} is not name=value", param_hint=option)
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def chunking_of(strategy: str, parameters: list[str] | None) -> chunking_pb2.Chunking | None:
    """The chunking that the options name, or None where they name none."""
    named = assignments(parameters, "--parameter")
    return chunking(strategy, **named) if strategy or named else None
