"""What the cache keeps and finds, in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from gateway.caching import AnswerCache, Asked, How, Kept, Knobs, of, open_answer_cache
from gateway.generation import Usage
from gateway.nearest import CachedQuestion, Known, Nearest
from gateway.recent import Recent
from gateway.retrieval import Edition
from meshkit.errors import Unavailable

ASKED = Asked("acme", "collections/handbook", "How long is leave?", "k1", "kind")
EDITION = Edition(7, "settings", "minilm@1")
KEPT = Kept(of(EDITION), ASKED.text, (), "25 days.", (), (), Usage())
KNOBS = Knobs(
    ttl_s=60,
    similarity=0.9,
    timeout_s=0.2,
    max_questions=4,
    max_collections=2,
    memory_bytes=10_000,
    max_answer_bytes=5_000,
    max_filling=2,
)
AWAY = Unavailable("STORE_UNAVAILABLE", "away")


@dataclass
class World:
    """The collection, its encoder and the shelf at once; `away` fails all of them."""

    edition_now: Edition = EDITION
    answers: dict[str, Kept] = field(default_factory=dict)
    questions: list[CachedQuestion] = field(default_factory=list)
    vectors: dict[str, Sequence[float]] = field(default_factory=dict)
    encoded: list[str] = field(default_factory=list)
    reads: int = 0
    away: bool = False
    hangs: bool = False

    async def edition(self, collection: str) -> Edition:
        await self._reach()
        return self.edition_now

    async def encode(self, encoder: str, query: str) -> bytes:
        await self._reach()
        self.encoded.append(query)
        return np.array(self.vectors.get(query, (1.0, 0.0)), "<f4").tobytes()

    async def read(self, asked: Asked, after: str) -> tuple[Kept | None, Sequence[CachedQuestion]]:
        await self._reach()
        self.reads += 1
        first = next((place + 1 for place, each in enumerate(self.questions) if each.id == after), 0)
        return self.answers.get(asked.key), self.questions[first:]

    async def get(self, tenant: str, key: str) -> Kept | None:
        await self._reach()
        return self.answers.get(key)

    async def put(self, asked: Asked, kept: Kept, vector: bytes) -> None:
        await self._reach()
        self.answers[asked.key] = kept
        halves = np.frombuffer(vector, "<f4").astype("<f2").tobytes()
        id = f"{len(self.questions) + 1}-0"
        self.questions.append(CachedQuestion(id, asked.key, asked.kind, kept.edition, asked.text, halves))

    async def _reach(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise AWAY

    def open(self, **knobs: float) -> AnswerCache:
        """A cache of a replica of its own."""
        return AnswerCache(self, self, self, replace(KNOBS, **knobs))  # type: ignore[arg-type]


async def test_an_equal_question_is_found_in_memory_and_by_other_replicas() -> None:
    """The replica that kept it asks for the collection's edition only."""
    world = World()
    one, other = world.open(), world.open()
    lookup = await one.find(ASKED)
    assert (lookup.how, lookup.edition, lookup.vector) == (How.NONE, EDITION, b"")
    one.keep(ASKED, KEPT, lookup)
    reads = world.reads
    assert (await one.find(ASKED)).how is How.EXACT
    assert world.reads == reads
    await one.settled()
    found = await other.find(ASKED)
    assert (found.how, found.kept and found.kept.text, found.similarity) == (How.EXACT, "25 days.", 1.0)
    assert one.hits == {How.EXACT: 1, How.SEMANTIC: 0, How.NONE: 1}


async def test_the_same_in_other_words_is_found_and_its_vector_told() -> None:
    """Where the cosine reaches the threshold and the guard agrees; of the same kind only."""
    world = World(vectors={"please, how long is leave?": (0.95, 0.3)})
    cache = world.open()
    cache.keep(ASKED, KEPT, await cache.find(ASKED))
    await cache.settled()
    reworded = replace(ASKED, text="please, how long is leave?", key="k2")
    found = await cache.find(reworded)
    assert found.how is How.SEMANTIC
    assert found.similarity == pytest.approx(0.9536, abs=1e-3)
    assert np.frombuffer(found.vector, "<f4") == pytest.approx([0.95, 0.3])
    assert (await world.open(similarity=0.96).find(reworded)).how is How.NONE
    assert (await cache.find(replace(reworded, kind="other"))).how is How.NONE
    assert (await cache.find(replace(reworded, text="How long is night?"))).how is How.NONE


async def test_nothing_is_encoded_where_there_is_nothing_to_compare() -> None:
    """The search encodes the question itself then; what is kept is encoded in the background."""
    world = World()
    cache = world.open()
    lookup = await cache.find(ASKED)
    assert world.encoded == []
    cache.keep(ASKED, KEPT, lookup)
    await cache.settled()
    assert world.encoded == [ASKED.text]
    assert (await cache.find(replace(ASKED, key="k3", kind="other"))).vector == b""


async def test_long_question_is_found_by_its_equals_only() -> None:
    """It is neither encoded nor held for others to be compared with."""
    world, long = World(), replace(ASKED, text="How long is leave? " * 100)
    cache = world.open()
    cache.keep(long, KEPT, await cache.find(long))
    await cache.settled()
    assert (await world.open().find(long)).how is How.EXACT
    assert (await cache.find(replace(long, key="k2"))).how is How.NONE
    assert world.encoded == []


@pytest.mark.parametrize("edition", [replace(EDITION, version=8), replace(EDITION, settings="others")])
async def test_another_edition_has_none_of_it(edition: Edition) -> None:
    """Neither equal questions nor those in other words, in this replica or another."""
    world = World()
    cache = world.open()
    cache.keep(ASKED, KEPT, await cache.find(ASKED))
    await cache.settled()
    world.edition_now = edition
    for replica in (cache, world.open()):
        for text, key in ((ASKED.text, ASKED.key), ("Please, how long is leave?", "k2")):
            assert (await replica.find(replace(ASKED, text=text, key=key))).kept is None


@pytest.mark.parametrize("broken", ["away", "hangs"])
async def test_what_fails_or_hangs_has_nothing(broken: str) -> None:
    """And says so in time; keeping fails silently."""
    world = World()
    cache = world.open(timeout_s=0.02)
    setattr(world, broken, True)
    assert (await cache.find(ASKED)).how is How.NONE
    assert (await cache.look(ASKED)).edition is None
    async with open_answer_cache(world, world, world, KNOBS) as closed:
        closed.keep(ASKED, KEPT, await cache.find(ASKED))


async def test_bounds_of_what_is_kept() -> None:
    """An answer that is too large, and those of a burst that the store is behind with, are not."""
    world = World(hangs=True)
    async with open_answer_cache(world, world, world, KNOBS) as cache:
        lookup = await world.open(timeout_s=0.01).find(ASKED)
        cache.keep(ASKED, replace(KEPT, text="x" * 3_000), lookup)
        for place in range(3):
            cache.keep(replace(ASKED, key=f"k{place}"), KEPT, lookup)
        world.hangs = False
        found = [(await cache.find(replace(ASKED, key=f"k{place}"))).how for place in range(3)]
    assert found == [How.EXACT, How.EXACT, How.NONE]


def test_memory_is_bounded_by_bytes_and_time() -> None:
    """The least used goes first."""
    now_s = 100.0
    recent = Recent[str](10, 5.0, len, lambda: now_s)
    for key in "abc":
        recent.put(key, "xxx", now_s)
    assert recent.get("a") == "xxx"
    recent.put("d", "xxxx", now_s)
    assert (recent.get("b"), recent.get("a"), recent.bytes) == (None, "xxx", 10)
    recent.put("a", "y", now_s)
    assert recent.bytes == 8
    now_s = 106.0
    assert (recent.get("a"), len(recent), recent.bytes) == (None, 2, 7)


def question(place: int, vector: Sequence[float], edition: str = "1", kind: str = "kind") -> CachedQuestion:
    """The question of that number."""
    return CachedQuestion(f"{place}-0", f"k{place}", kind, edition, "text", np.array(vector, "<f2").tobytes())


def test_questions_stand_in_a_ring() -> None:
    """The newest remain; those known are not added again; another encoder's make a new beginning."""
    known = Known(3)
    known.add([question(place, (1.0, place)) for place in range(1, 5)])
    known.add([question(4, (1.0, 4.0))])
    query = np.array((1.0, 4.0), "<f4").tobytes()
    found = known.nearest("kind", "1", query, 5)
    assert [each.key for each, _ in found] == ["k4", "k3", "k2"]
    assert found[0][1] == pytest.approx(1.0)
    assert known.nearest("kind", "2", query, 5) == []
    known.add([question(5, (1.0, 0.0, 0.0))])
    assert (len(known), known.last_id) == (1, "5-0")
    assert known.nearest("kind", "1", query, 5) == []


def test_collections_are_bounded_and_apart() -> None:
    """The tenant's own; the least used is forgotten and read from the beginning."""
    nearest = Nearest(2, 4)
    nearest.known("acme", "a").add([question(1, (1.0,))])
    assert nearest.known("bolt", "a").last_id == "0-0"
    assert nearest.known("acme", "a").last_id == "1-0"
    nearest.known("acme", "b")
    assert nearest.known("bolt", "a").last_id == "0-0"
    assert nearest.known("acme", "a").last_id == "0-0"
