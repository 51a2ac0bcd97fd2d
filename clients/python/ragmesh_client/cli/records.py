"""`ragmesh answers` and `ragmesh sessions`: what the mesh keeps of what was asked."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ragmesh_client.cli.answers import render, show_answer, show_break
from ragmesh_client.cli.options import Json, settings
from ragmesh_client.cli.running import client_of, console, print_json, run, show, table

answers = typer.Typer(no_args_is_help=True, help="Answers that were given, by name.")
sessions = typer.Typer(no_args_is_help=True, help="Your conversations.")


@answers.command("show")
def show_kept_answer(context: typer.Context, answer: str, json: Json = False) -> None:
    """An answer as it was given, with its citations."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            found = await client.get_answer(answer)
        print_json(found) if json else show_answer(found)

    run(options, command)


@answers.command("explain")
def explain_answer(context: typer.Context, answer: str, json: Json = False) -> None:
    """How an answer came about: plan, queries, hits, prompt; its events with --json."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            found = await client.explain_answer(answer)
        if not json:
            found.ClearField("events")
        show(found, as_json=json)

    run(options, command)


@answers.command("resume")
def resume_answer(
    context: typer.Context,
    answer: str,
    after: Annotated[int, typer.Option(min=0, help="The last event that you have.")] = 0,
    timeout_s: Annotated[float, typer.Option(help="Seconds that the rest may take.")] = 120.0,
    json: Json = False,
) -> None:
    """Show an answer's events again, and the rest of it as it comes."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options, timeout_s) as client:
            await render(client.resume_answer(answer, after_sequence=after), as_json=json)

    run(options, command)


@answers.command("replay")
def replay_answer(
    context: typer.Context,
    answer: str,
    model: Annotated[str, typer.Option(help="Another model; the same one without.")] = "",
    timeout_s: Annotated[float, typer.Option(help="Seconds that it may take.")] = 120.0,
    json: Json = False,
) -> None:
    """Ask an answer's question again."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options, timeout_s) as client:
            await render(client.replay_answer(answer, model=model), as_json=json)

    run(options, command)


@sessions.command("list")
def list_sessions(context: typer.Context, json: Json = False) -> None:
    """Your conversations, last used first."""
    options = settings(context, json=json)

    async def command() -> None:
        rows = table("session", "title", "last used")
        async with client_of(options) as client:
            async for found in client.list_sessions():
                if json:
                    print_json(found)
                used = found.update_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")
                rows.add_row(escape(found.name.removeprefix("sessions/")), escape(found.title), used)
        if not json:
            console.print(rows)

    run(options, command)


@sessions.command("show")
def show_session(context: typer.Context, session: str, json: Json = False) -> None:
    """The turns of a conversation."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            found = await client.get_session(session)
        if json:
            print_json(found)
            return
        for turn in found.turns:
            console.print(f"> {turn.question}\n{turn.text}", markup=False, soft_wrap=True)
            show_break(turn.finish_reason)
            console.print(f"{turn.answer}\n", markup=False, soft_wrap=True)

    run(options, command)


@sessions.command("delete")
def delete_session(context: typer.Context, session: str, json: Json = False) -> None:
    """Delete a conversation; its answers stay for as long as answers do."""
    options = settings(context, json=json)

    async def command() -> None:
        async with client_of(options) as client:
            await client.delete_session(session)
        if not json:
            console.print(f"deleted {session}", markup=False, soft_wrap=True)

    run(options, command)
