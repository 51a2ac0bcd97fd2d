"""Writes that wait for their turn go together."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from meshkit.errors import FailedPrecondition, Unavailable
from retriever_svc.grouping import Written
from retriever_svc.index import Chunk, Content, Place, Scope, State
from retriever_svc.indexing import Indexing
from retriever_svc.reading import Readers
from retriever_svc.turns import Turns, open_turns
from tests.retriever_svc.small_index import SPEC

KB = Scope("acme", "kb")


class SlowIndex:
    """Keeps what it is given; a replacement waits until it is let, and fails where told to."""

    engine = "slow"

    def __init__(self) -> None:
        self.state = State(SPEC, 1)
        self.groups: list[list[str]] = []
        self.let = asyncio.Event()
        self.fails = False

    async def load(self, _scope: Scope) -> State:
        return self.state

    async def save(self, _scope: Scope, state: State) -> None:
        self.state = state

    async def replace(self, _scope: Scope, _state: State, contents: Sequence[Content]) -> list[int]:
        self.groups.append([content.document for content in contents])
        await self.let.wait()
        if self.fails:
            raise Unavailable("INDEX_UNAVAILABLE", "away")
        return [len(content.document) for content in contents]


class Writer:
    """Writes documents of one chunk, each in a task of its own."""

    def __init__(self, index: SlowIndex, turns: Turns) -> None:
        self._indexing = Indexing(index, turns, Readers())  # type: ignore[arg-type]  # what a write asks of an index

    async def begin(self, document: str, dimension: int = SPEC.dimension, chunks: int = 1) -> asyncio.Task[Written]:
        """The write, waiting for its turn or having it."""
        content = [Chunk(Place(document, ordinal), "text") for ordinal in range(chunks)]
        vectors = np.ones((chunks, dimension), dtype=np.float32)
        task = asyncio.create_task(self._indexing.replace_document(KB, document, content, vectors))
        for _ in range(5):
            await asyncio.sleep(0)
        return task


async def test_those_that_wait_go_with_the_next() -> None:
    """In their order, each with its own counts, and a document's second content after its first."""
    index = SlowIndex()
    async with open_turns() as turns:
        writer = Writer(index, turns)
        tasks = [await writer.begin(document) for document in ("a", "bb", "ccc", "bb", "d")]
        index.let.set()
        written = await asyncio.gather(*tasks)
    assert index.groups == [["a"], ["bb", "ccc"], ["bb", "d"]]
    assert [each.deleted for each in written] == [1, 2, 3, 2, 1]
    assert [each.version for each in written] == sorted(each.version for each in written)
    assert len({each.version for each in written}) == 3


async def test_a_group_has_its_bound() -> None:
    """A document larger than that goes alone."""
    index = SlowIndex()
    async with open_turns() as turns:
        writer = Writer(index, turns)
        tasks = [await writer.begin(f"d{number}", chunks=chunks) for number, chunks in enumerate([1, 1000, 1000, 3000])]
        index.let.set()
        await asyncio.gather(*tasks)
    assert index.groups == [["d0"], ["d1", "d2"], ["d3"]]


async def test_one_that_is_refused_leaves_the_others() -> None:
    """And one whose caller leaves while it waits is not written."""
    index = SlowIndex()
    async with open_turns() as turns:
        writer = Writer(index, turns)
        first, bad = await writer.begin("a"), await writer.begin("b", dimension=3)
        left, good = await writer.begin("c"), await writer.begin("d")
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        index.let.set()
        assert (await first).written == (await good).written == 1
        with pytest.raises(FailedPrecondition):
            await bad
    assert index.groups == [["a"], ["d"]]


async def test_a_failure_is_told_to_all_of_its_group() -> None:
    """And to nobody after it."""
    index = SlowIndex()
    index.fails = True
    async with open_turns() as turns:
        writer = Writer(index, turns)
        tasks = [await writer.begin(document) for document in ("a", "b", "c")]
        index.let.set()
        for task in tasks:
            with pytest.raises(Unavailable):
                await task
        index.fails = False
        assert (await (await writer.begin("a"))).written == 1
    assert index.groups == [["a"], ["b", "c"], ["a"]]
