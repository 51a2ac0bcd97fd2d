"""Answers and hits on the terminal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from rich.markup import escape

from ragmesh.common.v1 import chunk_pb2
from ragmesh.gateway.v1 import events_pb2
from ragmesh.retriever.v1 import retriever_pb2
from ragmesh_client.cli.running import console, print_json
from ragmesh_client.errors import RagmeshError
from ragmesh_client.events import Event, Final, Token

_ABSTENTIONS = {
    events_pb2.ABSTENTION_REASON_NO_RELEVANT_CHUNKS: "nothing in the collection speaks of this",
    events_pb2.ABSTENTION_REASON_INSUFFICIENT_SUPPORT: "what was found does not support an answer",
    events_pb2.ABSTENTION_REASON_CONFLICTING_SOURCES: "the sources contradict each other",
    events_pb2.ABSTENTION_REASON_OUT_OF_TIME: "the time allowed did not suffice",
}
_BROKEN_OFF = {
    events_pb2.FINISH_REASON_LENGTH: "Cut short: the tokens or the time allowed did not suffice.",
    events_pb2.FINISH_REASON_INTERRUPTED: "Interrupted.",
    events_pb2.FINISH_REASON_FAILED: "Failed.",
}


async def render(events: AsyncGenerator[Event, None], *, as_json: bool) -> None:
    """Prints an answer as it comes: tokens live, then its citations; or each event as a line of JSON."""
    line_open = False
    async with aclosing(events) as stream:
        try:
            async for event in stream:
                if as_json:
                    print_json(event.proto)
                elif isinstance(event, Token):
                    console.print(event.text, end="", markup=False, soft_wrap=True)
                    line_open = True
                elif isinstance(event, Final):
                    _finish(event.answer)
        except RagmeshError:
            if line_open:
                console.print()
            raise


def show_answer(answer: events_pb2.Answer) -> None:
    """Prints a kept answer as `render` does."""
    console.print(answer.text, end="", markup=False, soft_wrap=True)
    _finish(answer)


def show_break(reason: events_pb2.FinishReason.ValueType) -> None:
    """Says that what was printed is not the whole, where that is so."""
    if broken_off := _BROKEN_OFF.get(reason):
        console.print(f"[yellow]{broken_off}[/yellow]")


def show_hits(response: retriever_pb2.SearchResponse) -> None:
    """Prints hits, best first, and what was left out of the search."""
    for number, hit in enumerate(response.hits, 1):
        place = escape(_place(hit.chunk.title or hit.chunk.uri, hit.chunk.heading_path, hit.chunk.page))
        console.print(
            f"[bold]{number}. {place}[/bold]  [dim]{hit.score:.3f}  {escape(hit.chunk.name)}[/dim]", soft_wrap=True
        )
        console.print("   " + _shortened(hit.chunk.text, 240), markup=False, soft_wrap=True)
    if not response.hits:
        console.print("nothing found")
    for degradation in response.degradations:
        console.print(f"[yellow]without {degradation.stage}: {degradation.reason}[/yellow]")


def _finish(answer: events_pb2.Answer) -> None:
    if answer.text:
        console.print()
    if answer.finish_reason == events_pb2.FINISH_REASON_ABSTAINED:
        console.print(f"[yellow]No answer: {_ABSTENTIONS.get(answer.abstention, 'no reason given')}.[/yellow]")
    show_break(answer.finish_reason)
    shown: set[int] = set()
    for citation in answer.citations:
        if citation.number not in shown:
            shown.add(citation.number)
            console.print(_source(citation), soft_wrap=True)
    console.print(f"[dim]{answer.name}[/dim]")
    for degradation in answer.degradations:
        console.print(f"[yellow]without {degradation.stage}: {degradation.reason}[/yellow]")


def _source(citation: chunk_pb2.Citation) -> str:
    place = escape(_place(citation.title, citation.heading_path, citation.page))
    origin = escape(citation.uri or citation.document)
    return f"  [cyan]\\[{citation.number}][/cyan] {place}  [dim]{origin}[/dim]"


def _place(title: str, heading_path: Sequence[str], page: int) -> str:
    parts = [title, *(heading for heading in heading_path if heading != title)]
    if page:
        parts.append(f"page {page}")
    return " > ".join(part for part in parts if part)


def _shortened(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
