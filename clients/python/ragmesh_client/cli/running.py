"""How a command runs: one client, one clear line for an error, and exit codes that scripts can use."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ragmesh_client.client import Client
from ragmesh_client.errors import NotAllowedError, RagmeshError

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
_NUMBERS = {"documents", "chunks", "ready", "same", "failed", "of"}

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@dataclass
class Options:
    """What stands before the command's name."""

    target: str | None = None
    token: str | None = None
    tls: bool = False
    json: bool = False


@asynccontextmanager
async def client_of(options: Options, timeout_s: float = 60.0) -> AsyncIterator[Client]:
    """A client for one command."""
    async with Client(options.target, options.token, tls=options.tls, timeout_s=timeout_s) as client:
        yield client


def run(options: Options, command: Callable[[], Awaitable[None]]) -> None:
    """Runs a command to its end; an error is one line on stderr and exit code 1, Ctrl-C is exit code 130."""
    try:
        asyncio.run(_awaited(command))
    except RagmeshError as error:
        _show(error, options)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def print_json(message: Message) -> None:
    """One JSON object on one line, with the contract's own field names."""
    print_object(MessageToDict(message, preserving_proto_field_name=True))


def print_object(fields: dict[str, object]) -> None:
    """One JSON object on one line."""
    sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show(message: Message, *, as_json: bool) -> None:
    """A message's fields, one a line, the names of its own first; or one JSON object."""
    if as_json:
        print_json(message)
        return
    fields = whole(MessageToDict(message, preserving_proto_field_name=True))
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        console.print(f"{name:{width}}  {words}", markup=False, soft_wrap=True)


def table(*columns: str) -> Table:
    """A table to add rows to: no cell is cut short, so that names can be copied, and numbers stand on the right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold", justify="right" if column in _NUMBERS else "left")
    return made


def whole(value: Any) -> Any:
    """JSON without the points that a Struct gives to whole numbers."""
    if isinstance(value, dict):
        return {name: whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def _awaited(command: Callable[[], Awaitable[None]]) -> None:
    await command()


def _show(error: RagmeshError, options: Options) -> None:
    if options.json:
        print_object({"error": {"code": error.code.name, "reason": error.reason, "message": error.message}})
    errors.print(f"[red]error[/red] {error.reason or error.code.name}: ", end="")
    errors.print(error.message, markup=False, soft_wrap=True)
    for name, what in error.violations.items():
        if f"{name}: {what}" == error.message:
            continue
        errors.print(f"  {name}: {what}", markup=False, soft_wrap=True)
    if hint := _hint(error):
        errors.print(hint, markup=False, soft_wrap=True)


def _hint(error: RagmeshError) -> str:
    if error.reason == "PEER_UNAVAILABLE":
        return "Is the mesh up? `make up` starts one here; --target or RAGMESH_TARGET names another."
    if isinstance(error, NotAllowedError) and error.reason != "SCOPE_MISSING":
        return "Give a token with --token or RAGMESH_TOKEN; a local mesh keeps its own in its data folder."
    if error.reason == "COLLECTION_NOT_FOUND":
        return "`ragmesh collections list` shows what there is."
    if error.retry_after_s is not None:
        return f"Try again in {error.retry_after_s:g} s."
    return ""
