"""SwitchIndex: another index takes the place of the one in use, in one step, whatever goes on beside it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from meshkit.channel import peer_errors
from meshkit.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from meshkit.identity import Identity
from ragmesh.retriever.v1 import index_pb2, retriever_pb2
from retriever_svc.index import Chunk, Index, IndexSpec, Place, Replaced, Scope, State, find, stored
from retriever_svc.index_state import read_state, write_state
from retriever_svc.indexing import Indexing
from retriever_svc.reading import Readers
from retriever_svc.turns import open_turns
from tests.retriever_svc.doubles import encode
from tests.retriever_svc.indexes import opened
from tests.retriever_svc.serving import Caller, calling, serve_retriever, upsert

KB, NEXT = Scope("acme", "kb"), Scope("acme", "_kb")
SPEC = IndexSpec("words@r1", 32)
NEXT_SPEC = IndexSpec("words@r2", 32)


async def switch(
    caller: Caller, target: str = "_kb", collection: str = "kb", expected_version: int = 0
) -> index_pb2.IndexInfo:
    """Put the target's index in the collection's place."""
    request = index_pb2.SwitchIndexRequest(
        collection=f"collections/{collection}", target=f"collections/{target}", expected_version=expected_version
    )
    with peer_errors():
        return (await caller.index.SwitchIndex(request)).index


async def info(caller: Caller, collection: str = "kb") -> index_pb2.IndexInfo:
    """What GetIndex says."""
    request = index_pb2.GetIndexRequest(collection=f"collections/{collection}")
    with peer_errors():
        return (await caller.index.GetIndex(request)).index


async def test_a_switch_puts_the_target_in_its_place(alice: Caller) -> None:
    """Settings, chunks and counts are the target's, the version is newer than both, and the target is gone."""
    await alice.put()
    await alice.write("doc", ["an old apple", "an old pear"])
    await alice.put("_kb", language="english", filterable_fields=[{"field": "lang", "type": "TYPE_STRING"}])
    built = await alice.write("doc", ["a new apple"], "_kb", metadata={"lang": "en"})
    switched = await switch(alice)
    assert switched == await info(alice)
    assert (switched.spec.collection, switched.spec.language) == ("collections/kb", "english")
    assert (switched.chunk_count, switched.document_count) == (1, 1)
    assert switched.version > built.collection_version
    (hit,) = (await alice.search("apple", filter='lang = "en"')).hits
    assert (hit.chunk.text, hit.chunk.name) == ("a new apple", "collections/kb/documents/doc/chunks/0")
    named = 'document = "collections/kb/documents/doc"'
    assert await alice.found("apple", filter=named) == ["a new apple"]
    with pytest.raises(NotFound):
        await info(alice, "_kb")


async def test_a_name_is_switched_again_and_again(alice: Caller) -> None:
    """The target's name is free for the next build, and each write goes where the name points."""
    await alice.put()
    await alice.write("doc", ["text 0"])
    for number in range(1, 4):
        await alice.put("_kb")
        assert (await info(alice, "_kb")).chunk_count == 0
        await alice.write("doc", [f"text {number}"], "_kb")
        await switch(alice)
        await alice.write("later", [f"later {number}"])
        assert sorted(await alice.found("text later")) == [f"later {number}", f"text {number}"]
    deleted = await alice.index.DeleteIndex(index_pb2.DeleteIndexRequest(collection="collections/kb"))
    assert deleted.deleted_chunks == 2


async def test_what_a_switch_refuses(alice: Caller, bob: Caller) -> None:
    """A name or a target that is not there or is another tenant's, itself, another version: nothing changes."""
    await alice.put()
    version = (await alice.write("doc", ["alice's"])).collection_version
    await bob.put("_kb")
    await bob.write("doc", ["bob's"], "_kb")
    with pytest.raises(NotFound) as missing:
        await switch(alice)
    assert missing.value.metadata == {"collection": "collections/_kb"}
    with pytest.raises(NotFound) as missing:
        await switch(bob)
    assert missing.value.metadata == {"collection": "collections/kb"}
    with pytest.raises(InvalidArgument):
        await switch(alice, "kb")
    await alice.put("_kb")
    with pytest.raises(Aborted) as stale:
        await switch(alice, expected_version=version - 1)
    assert (stale.value.reason, stale.value.metadata) == ("ETAG_MISMATCH", {"etag": str(version)})
    assert await alice.found("alice's bob's") == ["alice's"]
    await switch(alice, expected_version=version)
    assert (await info(bob, "_kb")).chunk_count == 1


async def test_who_may_switch(tmp_path: Path) -> None:
    """It takes `ingest`."""
    reader = Identity("acme", "reader", frozenset({"search", "ask"}))
    async with serve_retriever(tmp_path) as address, calling(address, reader) as caller:
        with pytest.raises(PermissionDenied):
            await switch(caller)


async def test_an_index_being_built_cannot_be_searched(alice: Caller) -> None:
    """Its name is none that a search takes."""
    await alice.put("_kb")
    with pytest.raises(InvalidArgument) as refused:
        await alice.search("text", "_kb")
    assert refused.value.reason == "INVALID_FIELD"


async def test_a_document_of_another_encoder_is_refused(alice: Caller) -> None:
    """Where the writer says which one: vectors made for the old index do not get into the new one."""
    await alice.put()
    await alice.put("_kb", encoder="words@r2")
    await switch(alice)
    messages = upsert("doc", ["text"])
    messages[0].head.encoder = "words@r1"
    with pytest.raises(FailedPrecondition) as refused, peer_errors():
        await alice.index.UpsertDocument(iter(messages))
    assert refused.value.metadata == {"expected": "words@r2", "given": "words@r1"}
    messages[0].head.encoder = "words@r2"
    assert (await alice.index.UpsertDocument(iter(messages))).written_chunks == 1


async def test_a_document_on_its_way_in_across_a_switch_is_refused(alice: Caller) -> None:
    """Begun before the switch, ended after it: the encoder is looked at again when it is written."""
    await alice.put()
    await alice.put("_kb", encoder="words@r2")
    begun, switched = asyncio.Event(), asyncio.Event()

    async def messages() -> AsyncIterator[index_pb2.UpsertDocumentRequest]:
        first, *rest = upsert("doc", ["text"])
        first.head.encoder = "words@r1"
        yield first
        begun.set()
        await switched.wait()
        for message in rest:
            yield message

    call = alice.index.UpsertDocument(messages())
    await begun.wait()
    await switch(alice)
    switched.set()
    with pytest.raises(FailedPrecondition), peer_errors():
        await call
    assert (await info(alice)).chunk_count == 0


async def test_searches_beside_switches_find_the_old_or_the_new(alice: Caller) -> None:
    """Ten switches under searches: each finds all of one build and nothing of another, and none fails."""
    await alice.put()
    await alice.write("doc", ["apple build0 one", "apple build0 two", "apple build0 three"])
    done, seen = asyncio.Event(), set()

    async def search() -> None:
        while not done.is_set():
            texts = await alice.found("apple", mode="SEARCH_MODE_SPARSE")
            builds = {text.split()[1] for text in texts}
            assert (len(texts), len(builds)) == (3, 1)
            seen.update(builds)
            listed = await alice.retriever.ListChunks(
                retriever_pb2.ListChunksRequest(parent="collections/kb/documents/doc")
            )
            assert len(listed.chunks) == 3

    async def rebuild() -> None:
        try:
            for number in range(1, 11):
                await alice.put("_kb")
                texts = [f"apple build{number} {word}" for word in ("one", "two", "three")]
                await alice.write("doc", texts, "_kb")
                await switch(alice)
        finally:
            done.set()

    await asyncio.gather(rebuild(), search(), search())
    assert len(seen) > 1


def test_a_state_outlives_its_json() -> None:
    """All of it; one that was written before there were switches is without."""
    state = State(SPEC, 7, gaps=True, chunks="a1", replaced=Replaced(NEXT_SPEC, "kb"), successor="kb")
    written = write_state(state)
    assert read_state(json.loads(json.dumps(written))) == state
    for later in ("chunks", "replaced", "successor"):
        del written[later]
    assert read_state(written) == State(SPEC, 7, gaps=True)


class Crash(Exception):
    """The process ends here."""


class Crashing:
    """An index whose process ends before its write numbered `at`, from 0; reads go through."""

    def __init__(self, index: Index, at: int) -> None:
        self._index = index
        self._left = at

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._index, name)
        return partial(self._counted, call) if name in ("save", "forget", "upsert", "delete") else call

    async def _counted(self, call: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Crash
        return await call(*args)


@asynccontextmanager
async def process(index: Index) -> AsyncIterator[Indexing]:
    """Indexing as a process begins with it."""
    async with open_turns() as turns:
        yield Indexing(index, turns, Readers())


async def write(indexing: Indexing, scope: Scope, text: str) -> None:
    """Write the document `doc` of one chunk."""
    await indexing.replace_document(scope, "doc", [Chunk(Place("doc", 0), text)], encode(text)[None])


async def texts(index: Index, scope: Scope) -> list[str] | None:
    """The texts of the scope's index; None where it has none."""
    state = await find(index, scope)
    if state is None:
        return None
    held = stored(scope, state.chunks)
    found = await index.search_sparse(held, state.spec, "apple", 10, None)
    chunks = await index.read(held, state.spec, [each.place for each in found])
    return [chunk.text for chunk in chunks.values()]


@pytest.mark.parametrize("at", range(5))
async def test_a_switch_that_a_crash_cuts_off(tmp_path: Path, at: int, engine: str) -> None:
    """At whichever write: the old or the new is there whole, the switch can be done again, nothing is left over."""
    async with opened(engine, tmp_path) as index:
        async with process(index) as indexing:
            for scope, spec, text in ((KB, SPEC, "an old apple"), (NEXT, NEXT_SPEC, "a new apple")):
                await indexing.put(scope, spec)
                await write(indexing, scope, text)
            old = await indexing.get(KB)
        async with process(cast("Index", Crashing(index, at))) as indexing:
            with suppress(Crash):
                await indexing.switch(KB, NEXT, 0)
        switched = await texts(index, NEXT) is None
        assert switched == (at > 1)
        assert await texts(index, KB) == ["a new apple" if switched else "an old apple"]
        async with process(index) as indexing:
            if not switched:
                await indexing.switch(KB, NEXT, 0)
            await write(indexing, KB, "a later apple")
            await indexing.put(NEXT, SPEC)
            assert await texts(index, KB) == ["a later apple"]
            assert await texts(index, NEXT) == []
            assert (await indexing.get(KB)).replaced is None
        assert await index.count(stored(KB, old.chunks), SPEC) == 0


async def test_a_switch_waits_for_no_search_and_deletes_under_none(tmp_path: Path, engine: str) -> None:
    """What a reader began on stays until it has ended; the next write waits for it."""
    async with opened(engine, tmp_path) as index, open_turns() as turns:
        readers = Readers()
        indexing = Indexing(index, turns, readers)
        for scope, text in ((KB, "an old apple"), (NEXT, "a new apple")):
            await indexing.put(scope, SPEC)
            await write(indexing, scope, text)
        old = stored(KB, (await indexing.get(KB)).chunks)
        with readers.reading(KB):
            await indexing.switch(KB, NEXT, 0)
            writing = asyncio.create_task(write(indexing, KB, "a later apple"))
            assert await texts(index, KB) == ["a new apple"]
            assert await index.count(old, SPEC) == 1
            assert not writing.done()
        await writing
        assert await index.count(old, SPEC) == 0


async def test_switches_there_and_back_do_not_wait_for_each_other(tmp_path: Path, engine: str) -> None:
    """One of two is done, the other finds no target."""
    async with opened(engine, tmp_path) as index, process(index) as indexing:
        for scope in (KB, NEXT):
            await indexing.put(scope, SPEC)
        both = (indexing.switch(KB, NEXT, 0), indexing.switch(NEXT, KB, 0))
        async with asyncio.timeout(20):
            done = await asyncio.gather(*both, return_exceptions=True)
        assert sorted(type(each).__name__ for each in done) == ["NotFound", "State"]
