"""`ragmesh feedback`: what people think of answers."""

from __future__ import annotations

import re
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from rich.markup import escape

from ragmesh.common.v1 import chunk_pb2
from ragmesh.gateway.v1 import feedback_pb2
from ragmesh_client.cli.options import Json, settings
from ragmesh_client.cli.running import client_of, console, print_json, print_object, run, table

feedback = typer.Typer(no_args_is_help=True, help="What people think of answers.")

_NAME = re.compile(r"(collections/[^/]+/documents/[^/]+)(/chunks/[^/]+)?")
_MARKER = re.compile(r"\s*\[\d+\]")


@feedback.command("give")
def give_feedback(
    context: typer.Context,
    answer: str,
    up: Annotated[bool | None, typer.Option("--up/--down", help="A thumb.")] = None,
    comment: Annotated[str, typer.Option(help="What there is to say of it.")] = "",
    cite: Annotated[
        list[str] | None,
        typer.Option(help="A chunk or a document that it should have cited, by its full name; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what you think of an answer of yours."""
    options = settings(context, json=json)
    citations = [_citation(name) for name in cite or []]
    if up is None and not comment and not citations:
        raise typer.BadParameter("give a thumb, a comment or a citation", param_hint="--up/--down")

    async def command() -> None:
        async with client_of(options) as client:
            given = await client.give_feedback(answer, up=up, comment=comment, citations=citations)
        print_json(given) if json else console.print(f"thank you: {given.name}", markup=False, soft_wrap=True)

    run(options, command)


@feedback.command("list")
def list_feedback(context: typer.Context, json: Json = False) -> None:
    """The tenant's feedback, newest first."""
    options = settings(context, json=json)

    async def command() -> None:
        rows = table("answer", "thumb", "question", "comment")
        async with client_of(options) as client:
            async for found in client.list_feedback():
                if json:
                    print_json(found)
                rows.add_row(_answer(found), _rating(found), escape(found.question), escape(found.comment))
        if not json:
            console.print(rows)

    run(options, command)


@feedback.command("export")
def export_feedback(
    context: typer.Context,
    since: Annotated[datetime | None, typer.Option(help="Leaves out what was given before, in UTC.")] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="A file for what the questions' answers should have cited, one a line.")
    ] = None,
) -> None:
    """Print the tenant's feedback, oldest first, as a queries.jsonl: one JSON object a line, made to evaluate with."""
    options = settings(context, json=False)

    async def command() -> None:
        judged = ["query-id\tcorpus-id\tscore"]
        async with client_of(options) as client, aclosing(client.export_feedback(since)) as given:
            async for found in given:
                print_object(_as_query(found))
                documents = dict.fromkeys(citation.document for citation in found.corrected_citations)
                judged += [f"{_id(found)}\t{document}\t1" for document in documents]
        if qrels:
            qrels.write_text("\n".join([*judged, ""]))

    run(options, command)


def _as_query(found: feedback_pb2.Feedback) -> dict[str, object]:
    """The question with what a right answer may say: quotes of the corrections, or the text that a thumb is up for."""
    right = [citation.quote for citation in found.corrected_citations if citation.quote]
    if not right and found.rating == feedback_pb2.Feedback.RATING_UP:
        right = [_MARKER.sub("", found.text)]
    return {
        "id": _id(found),
        "text": found.question,
        "answers": right,
        "answer": found.text,
        "rating": _rating(found),
        "comment": found.comment,
        "citations": [
            MessageToDict(citation, preserving_proto_field_name=True) for citation in found.corrected_citations
        ],
        "name": found.name,
        "create_time": found.create_time.ToJsonString(),
    }


def _citation(name: str) -> chunk_pb2.Citation:
    named = _NAME.fullmatch(name)
    if named is None:
        raise typer.BadParameter(f"{name!r} is no chunk and no document", param_hint="--cite")
    return chunk_pb2.Citation(document=named[1], chunk=name if named[2] else "")


def _id(found: feedback_pb2.Feedback) -> str:
    return found.name.rpartition("/")[2]


def _answer(found: feedback_pb2.Feedback) -> str:
    return found.name.split("/")[1]


def _rating(found: feedback_pb2.Feedback) -> str:
    return {feedback_pb2.Feedback.RATING_UP: "up", feedback_pb2.Feedback.RATING_DOWN: "down"}.get(found.rating, "")
