"""Chunks that wait for their vectors."""

import asyncio
from itertools import pairwise

import pytest

from tests.retriever_svc.serving import Caller, head, info, listed, send, waiting

WAYS = ["SEARCH_MODE_DENSE", "SEARCH_MODE_SPARSE", "SEARCH_MODE_HYBRID"]


async def write_waiting(alice: Caller, document: str, texts: list[str], **fields: object) -> None:
    """Write a document whose chunks have no vectors."""
    messages = [head(document), *(waiting(text, place, **fields) for place, text in enumerate(texts))]
    assert (await send(alice, messages)).written_chunks == len(texts)


async def test_they_are_found_by_words_only(alice: Caller) -> None:
    """And by the words of a hybrid search, filtered or not, read, listed and counted as any."""
    await alice.put(filterable_fields=[{"field": "lang", "type": "TYPE_STRING"}])
    await alice.write("ready", ["a red apple", "a green pear"])
    await write_waiting(alice, "late", ["a late apple", "a late pear"], metadata={"lang": "en"})
    dense, sparse, hybrid = [set(await alice.found("late apple", mode=mode)) for mode in WAYS]
    assert dense == {"a red apple", "a green pear"}
    assert sparse >= {"a late apple", "a late pear", "a red apple"}
    assert hybrid == dense | sparse
    assert await alice.found("late apple", filter="lang = en", mode="SEARCH_MODE_DENSE") == []
    assert set(await alice.found("late apple", filter="lang = en")) == {"a late apple", "a late pear"}
    assert await listed(alice, "late") == ["a late apple", "a late pear"]
    described = await info(alice)
    assert (described.chunk_count, described.document_count) == (4, 2)


async def test_their_vectors_come_with_the_document_written_again(alice: Caller) -> None:
    """The same chunks, then found both ways; and back, should new content have none yet."""
    await alice.put()
    await write_waiting(alice, "doc", ["an apple", "a pear"])
    assert await alice.found("apple", mode="SEARCH_MODE_DENSE") == []
    written = await alice.write("doc", ["an apple", "a pear"])
    assert (written.written_chunks, written.deleted_chunks) == (2, 0)
    for mode in WAYS:
        assert (await alice.found("apple", mode=mode))[0] == "an apple"
    assert (await info(alice)).chunk_count == 2
    await write_waiting(alice, "doc", ["an apple of another kind"])
    assert await alice.found("apple", mode="SEARCH_MODE_DENSE") == []
    assert await alice.found("apple") == ["an apple of another kind"]
    assert (await info(alice)).chunk_count == 1


async def test_they_are_made_diverse_and_deleted_as_any(alice: Caller) -> None:
    """What has no vector is like nothing else, and so stays."""
    await alice.put()
    await alice.write("ready", ["an apple", "an apple too"])
    await write_waiting(alice, "late", ["an apple later"])
    found = await alice.found("apple", diversity=0.9, top_k=2, candidates=10)
    assert len(found) == 2
    assert "an apple later" in found
    assert (await send(alice, [head("late")])).deleted_chunks == 1
    assert set(await alice.found("apple")) == {"an apple", "an apple too"}


@pytest.mark.parametrize("engine", ["lance"], indirect=True)
async def test_a_search_sees_all_vectors_of_a_document_or_none(alice: Caller) -> None:
    """While it is written with and without them in turns."""
    texts = [f"apple number {number}" for number in range(8)]
    await alice.put()
    await write_waiting(alice, "doc", texts)
    done = asyncio.Event()

    async def write() -> None:
        for _ in range(8):
            await alice.write("doc", texts)
            await write_waiting(alice, "doc", texts)
        done.set()

    writing = asyncio.create_task(write())
    seen = []
    while not done.is_set():
        dense, sparse = [await alice.found("apple", mode=mode) for mode in WAYS[:2]]
        assert len(sparse) == 8
        seen.append(len(dense))
    await writing
    assert set(seen) == {0, 8}
    assert any(one != other for one, other in pairwise(seen))
