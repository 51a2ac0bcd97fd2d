"""`ragmesh strategies`: the ways to cut documents into chunks."""

from __future__ import annotations

import json as json_module
import mimetypes
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from rich.table import Table

from ragmesh_client.cli.options import Json, settings
from ragmesh_client.cli.running import client_of, console, print_json, run, whole

strategies = typer.Typer(no_args_is_help=True, help="The ways to cut documents into chunks.")

_SAMPLE_BYTES = 48 * 1024
# Kinds that mimetypes has no word for on every machine.
_KINDS = {".md": "text/markdown", ".markdown": "text/markdown", ".jsonl": "application/jsonl"}


@strategies.command("list")
def list_strategies(context: typer.Context, json: Json = False) -> None:
    """The strategies and their parameters, the default one first."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            found = await client.list_strategies()
        table = Table("strategy", "what it does", "parameters", show_lines=True)
        for strategy in found:
            if json:
                print_json(strategy)
            table.add_row(
                strategy.strategy, strategy.description, _parameters(MessageToDict(strategy.parameters_schema))
            )
        if not json:
            console.print(table)

    run(options, command)


@strategies.command("recommend")
def recommend(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A document of the kind.")],
    use_case: Annotated[str, typer.Option(help="What the collection is for, in words.")] = "",
    json: Json = False,
) -> None:
    """The strategy that suits a document and a use, and why."""
    options = settings(context, json=json)
    kind = _KINDS.get(file.suffix.lower()) or mimetypes.guess_type(file)[0] or ""

    async def command() -> None:
        async with client_of(options) as client:
            found = await client.recommend_strategy(media_type=kind, sample=_sample(file), use_case=use_case)
        if json:
            print_json(found)
            return
        given = whole(MessageToDict(found.chunking.parameters))
        words = " ".join(f"-p {name}={value}" for name, value in sorted(given.items()))
        console.print(f"--strategy {found.chunking.strategy} {words}".rstrip(), markup=False, soft_wrap=True)
        console.print(found.rationale, markup=False, soft_wrap=True)

    run(options, command)


def _sample(file: Path) -> str:
    """The beginning of a text; nothing of a file that is none."""
    with file.open("rb") as opened:
        data = opened.read(_SAMPLE_BYTES)
    return "" if b"\x00" in data else data.decode("utf-8", "ignore")


def _parameters(schema: dict[str, Any]) -> str:
    lines = []
    for name, what in sorted(schema.get("properties", {}).items()):
        default = json_module.dumps(whole(what.get("default")), ensure_ascii=False)
        lines.append(f"{name} = {default}: {what.get('description', '')}")
    return "\n".join(lines)
