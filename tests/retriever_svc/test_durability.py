"""The process: what it has acknowledged outlives it, and it comes back by itself."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from meshkit.errors import MeshError, Unavailable
from meshkit.settings import ChannelSettings
from meshkit.testing import connect
from retriever_svc.index import Chunk, IndexSpec, Place, Scope, State, stored
from retriever_svc.milvus_index import MilvusOptions, open_milvus_index
from tests.retriever_svc.doubles import encode
from tests.retriever_svc.indexes import opened, uri_of
from tests.retriever_svc.serving import ALICE, NOWHERE, Caller

ROOT = Path(__file__).parents[2]
SCOPE = Scope("acme", "kb")
SPEC = IndexSpec("words@r1", 32)


@asynccontextmanager
async def running(folder: Path, engine: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The retriever as its own process over the folder, and its address; killed at the end."""
    environment = {
        **os.environ,
        "RAGMESH_RETRIEVER_LISTEN": "127.0.0.1:0",
        "RAGMESH_RETRIEVER_METRICS_LISTEN": "",
        "RAGMESH_RETRIEVER_INDEX_URI": uri_of(engine, folder),
        "RAGMESH_RETRIEVER_EMBEDDER_TARGET": NOWHERE,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "retriever_svc",
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    try:
        yield process, await address(process.stdout)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@asynccontextmanager
async def living(folder: Path, engine: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Caller]]:
    """The retriever as its own process, and a caller who does not retry."""
    brisk = ChannelSettings(retry_attempts=1)
    async with running(folder, engine) as (process, target), connect(target, ALICE, brisk) as channel:
        yield process, Caller(channel)


async def address(log: asyncio.StreamReader) -> str:
    """The address that the process logs when it serves; what it logged instead where it ends before."""
    lines = []
    async for line in log:
        lines.append(line.decode())
        with suppress(ValueError):
            if port := json.loads(line).get("port"):
                return f"127.0.0.1:{port}"
    raise AssertionError("".join(lines))


async def test_kill_9_after_the_answer_loses_nothing(tmp_path: Path, engine: str) -> None:
    """Killed in the moment of the answer: its callers get a reason at once, the next process finds all of it."""
    texts = [f"apple number {number}" for number in range(50)]
    async with living(tmp_path, engine) as (process, alice):
        await alice.put()
        await alice.write("doc", texts)
        replaced = await alice.write("again", ["pear one", "pear two"])
        process.kill()
        await process.wait()
        with pytest.raises(Unavailable) as caught:
            await alice.search("apple")
        assert caught.value.reason == "PEER_UNAVAILABLE"
    async with living(tmp_path, engine) as (process, alice):
        response = await alice.search("apple number 7", mode="SEARCH_MODE_SPARSE", top_k=1)
        assert response.hits[0].chunk.text == "apple number 7"
        assert response.collection_version == replaced.collection_version
        assert len(await alice.found("apple", mode="SEARCH_MODE_SPARSE", top_k=100)) == 50
        replaced = await alice.write("again", ["pear three"])
        process.kill()
        await process.wait()
    async with opened(engine, tmp_path) as index:
        state = await index.load(SCOPE)
        assert state
        held = stored(SCOPE, state.chunks)
        assert state == State(SPEC, replaced.collection_version, chunks=held.collection)
        assert await index.count(held, SPEC) == 51
        (found,) = await index.search_sparse(held, SPEC, "pear", 10, None)
        assert found.place == Place("again", 0)


async def test_sigterm_ends_the_process_cleanly(tmp_path: Path, engine: str) -> None:
    """Exit code 0, and the index is there for the next."""
    async with living(tmp_path, engine) as (process, alice):
        await alice.put()
        await alice.write("doc", ["apple"])
        process.terminate()
        await process.wait()
        assert process.returncode == 0
    async with opened(engine, tmp_path) as index:
        state = await index.load(SCOPE)
        assert state
        assert await index.count(stored(SCOPE, state.chunks), SPEC) == 1


async def test_an_index_in_use_is_not_opened_twice(tmp_path: Path, engine: str) -> None:
    """The second process ends with a line that says so."""
    async with opened(engine, tmp_path):
        with pytest.raises(AssertionError, match="another process has it open"):
            async with running(tmp_path, engine):
                pass


@pytest.mark.timeout(120)
async def test_kill_9_amid_writes_tears_nothing_that_was_answered(tmp_path: Path, engine: str) -> None:
    """Killed at any moment: every answered document is whole, and writing the one under way again makes it good."""
    answered: dict[str, int] = {}
    for round_ in range(3):
        async with living(tmp_path, engine) as (process, alice):
            await alice.put()
            for document, number in answered.items():
                found = await alice.found(document, mode="SEARCH_MODE_SPARSE", top_k=50)
                assert sorted(found) == texts(document, number)
            asyncio.get_running_loop().call_later(0.1 + 0.15 * round_, process.kill)
            with suppress(MeshError):
                for number in range(round_ * 100, round_ * 100 + 100):
                    document = f"doc{number % 3}"
                    answered.pop(document, None)
                    await alice.write(document, texts(document, number))
                    answered[document] = number
            await process.wait()


def texts(document: str, number: int) -> list[str]:
    """The chunks of a document as written the so many-th time: now more, now fewer."""
    return [f"r{number} {document} {ordinal}" for ordinal in range(1 + number % 4)]


async def test_upkeep_hides_nothing(tmp_path: Path, engine: str) -> None:
    """Searches beside writes and upkeep find every chunk that was acknowledged before them."""
    async with opened(engine, tmp_path) as index:
        await index.save(SCOPE, State(SPEC, 1))
        written = 0

        async def write() -> None:
            nonlocal written
            for number in range(60):
                chunk = Chunk(Place("doc", number), "an apple")
                await index.upsert(SCOPE, SPEC, [chunk], encode("an apple")[None])
                written = number + 1

        async def search() -> None:
            while written < 60:
                before = written
                assert len(await index.search_sparse(SCOPE, SPEC, "apple", 100, None)) >= before
                assert len(await index.search_dense(SCOPE, SPEC, encode("an apple"), 100, None)) >= before

        await asyncio.gather(write(), search(), search())


async def test_an_index_that_is_away_is_unavailable() -> None:
    """A server that does not answer is INDEX_UNAVAILABLE, in bounded time."""
    options = MilvusOptions("http://127.0.0.1:1", read_timeout_s=1)
    with pytest.raises(MeshError) as caught:
        async with open_milvus_index(options):
            pass
    assert caught.value.reason == "INDEX_UNAVAILABLE"
