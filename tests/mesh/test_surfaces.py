"""The same question by every surface of the edge."""

from __future__ import annotations

import statistics
from typing import Literal

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from deploy.local.mesh import Mesh
from ragmesh.gateway.v1 import answers_pb2
from ragmesh_client import Client, Final, Token
from tests.mesh import surfaces
from tests.mesh.conftest import COLLECTION, client
from tests.mesh.surfaces import Ask

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]
QUESTION = "How many days of paid leave does an employee have?"


@pytest.mark.parametrize("surface", surfaces.ALL.values(), ids=surfaces.ALL.keys())
async def test_every_surface_gives_the_same_answer_and_citations(mesh: Mesh, surface: Ask) -> None:
    """Text and citations, to the byte, are those that gRPC gives, and the answer holds what was asked for."""
    expected = await surfaces.grpc(mesh.edge, mesh.token(), COLLECTION, QUESTION)
    heard = await surface(mesh.edge, mesh.token(), COLLECTION, QUESTION)
    assert "thirty days of paid leave" in heard.text
    assert heard.ended
    assert heard.citations
    assert (heard.text, heard.citations) == (expected.text, expected.citations)


async def test_citations_point_to_the_bytes_that_they_quote(mesh: Mesh) -> None:
    """The claim stands in the answer, and its quote in the chunk that is named, at the bytes that are given."""
    async with client(mesh) as caller:
        answer = await caller.ask_once(QUESTION, COLLECTION)
        citation = answer.citations[0]
        hits = (await caller.search(QUESTION, COLLECTION)).hits
    chunk = next(hit.chunk for hit in hits if hit.chunk.name == citation.chunk)
    start, end = (place - chunk.source.start for place in (citation.source.start, citation.source.end))
    claim = answer.text.encode()[citation.answer.start : citation.answer.end].decode()
    assert citation.verbatim
    assert chunk.text.encode()[start:end].decode() == citation.quote
    assert citation.quote in claim
    assert citation.title == "Leave"


@pytest.mark.parametrize("surface", [surfaces.grpc, surfaces.sse], ids=["gRPC", "SSE"])
async def test_tokens_arrive_one_by_one(llm_mesh: Mesh, surface: Ask) -> None:
    """A language model's tokens come through Envoy as they are made: spread over the whole time, not in bursts."""
    heard = await surface(llm_mesh.edge, llm_mesh.token(), COLLECTION, QUESTION)
    gaps_ms = [(b - a) * 1000 for a, b in zip(heard.arrivals_s, heard.arrivals_s[1:], strict=False)]
    assert len(gaps_ms) >= 50
    median_ms, total_ms = statistics.median(gaps_ms), sum(gaps_ms)
    at_once = sum(gap < median_ms / 10 for gap in gaps_ms) / len(gaps_ms)
    print(f"\n{len(gaps_ms)} gaps, median {median_ms:.1f} ms, longest {max(gaps_ms):.1f} ms, {at_once:.0%} at once")
    # Two cores carry all of it, so some tokens catch up with the one before; a buffer would hold nearly all of them.
    assert at_once < 0.5
    assert max(gaps_ms) < total_ms / 3


async def test_an_openai_answer_has_the_form_that_is_asked_for(llm_mesh: Mesh) -> None:
    """With a language model the openai client reads an answer into its own type, however little the model knows."""

    class Leave(BaseModel):
        paid: bool
        unit: Literal["days", "months"]

    async with AsyncOpenAI(base_url=f"http://{llm_mesh.edge}/v1", api_key=llm_mesh.token(), max_retries=0) as client:
        reply = await client.chat.completions.parse(
            model=COLLECTION, messages=[{"role": "user", "content": QUESTION}], response_format=Leave
        )
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.parsed is not None
    assert reply.choices[0].message.parsed.unit in {"days", "months"}


async def test_the_first_token_comes_long_before_the_last(llm_mesh: Mesh) -> None:
    """One event a token: as many events as the answer counts tokens, the first within a quarter of the time."""
    async with Client(llm_mesh.edge, llm_mesh.token()) as caller:
        generation = answers_pb2.GenerationOptions(max_tokens=300)
        tokens, final = 0, None
        async for event in caller.ask(QUESTION, COLLECTION, generation=generation):
            tokens += isinstance(event, Token)
            final = event.answer if isinstance(event, Final) else None
    assert final is not None
    parts = {timing.stage: timing.duration.ToTimedelta().total_seconds() for timing in final.timings.timings}
    # A token that ends inside of a character is told with the one that completes it.
    assert tokens >= 0.6 * final.usage.completion_tokens
    assert parts["first_token"] < parts["generate"] / 4
