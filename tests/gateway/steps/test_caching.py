"""The step that gives answers again, alone: what it passes by, and what it has kept."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.answers import Answer, CachePolicy, Exchange
from gateway.caching import How
from gateway.events import Retrieved, Stage, Started
from gateway.generation import Delta, Ending, Usage
from gateway.retrieval import Degradation, Edition, Found
from gateway.tools import Tool
from tests.gateway.in_memory import HITS, Told, World
from tests.gateway.test_caching import World as Kept


class Room:
    """A world whose retriever finds things in version 7, and a cache of one replica."""

    def __init__(self) -> None:
        self.world = World()
        self.world.retriever.found = Found(HITS, version=7)
        self.kept = Kept(edition_now=Edition(7, "s", "minilm@1"))
        self.cache = self.kept.open()

    async def ask(self, **changes: Any) -> tuple[Answer, Told]:
        """The answer and its events, and all that is to be kept of it is."""
        course, told = self.world.begin(**changes), Told()
        course.ports = replace(course.ports, cache=self.cache)
        answer = await course.run(told)
        await self.cache.settled()
        return answer, told


async def test_an_answer_is_given_again() -> None:
    """With the hits, the text and the citations that it had; `started` comes first and says so."""
    room = Room()
    first, _ = await room.ask()
    again, told = await room.ask()
    assert (again.text, again.citations, again.cached) == (first.text, first.citations, True)
    started, begun, done, retrieved = told.events[:4]
    assert isinstance(started, Started)
    assert started.cached
    assert isinstance(begun, Stage)
    assert isinstance(done, Stage)
    assert (done.stage, done.detail["hit"]) == ("cache", "exact")
    assert isinstance(retrieved, Retrieved)
    assert retrieved.hits == HITS
    assert len(room.world.generator.generations) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"session": "s1"},
        {"session": None, "history": (Exchange("q", "a"),)},
        {"tools": (Tool("weather", "tells it"),)},
        {"cache": CachePolicy.BYPASS},
    ],
    ids=["session", "history", "tools", "bypass"],
)
async def test_what_passes_by(changes: dict[str, Any]) -> None:
    """Neither looked up nor kept."""
    room = Room()
    await room.ask(**changes)
    assert (sum(room.cache.hits.values()), room.kept.answers) == (0, {})


async def test_what_is_refreshed_is_kept_and_not_looked_up() -> None:
    """Though an answer is there."""
    room = Room()
    await room.ask()
    answer, _ = await room.ask(cache=CachePolicy.REFRESH)
    assert not answer.cached
    assert room.cache.hits[How.EXACT] == 0
    assert len(room.kept.questions) == 2


@pytest.mark.parametrize(
    ("found", "deltas"),
    [
        (Found(HITS, version=8), None),
        (Found(HITS, (Degradation("dense", "PEER_UNAVAILABLE"),), version=7), None),
        (Found((), version=7), None),
        (Found(HITS, version=7), (Delta("25 days", 4), Delta(ending=Ending.LENGTH, usage=Usage(1, 1, 1)))),
        (Found(HITS, version=7), (Delta(ending=Ending.ABSTAINED),)),
    ],
    ids=["another version", "degraded", "nothing found", "cut off", "abstained"],
)
async def test_what_is_not_kept(found: Found, deltas: Any) -> None:
    """Answers that are not whole, or that rest on what was not looked up."""
    room = Room()
    room.world.retriever.found = found
    if deltas:
        room.world.generator.deltas = deltas
    await room.ask()
    assert room.kept.answers == {}
