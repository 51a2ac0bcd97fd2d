"""LanceDB's own matters: its index of vectors, what a crash may leave, words counted by collection."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from retriever_svc import lance_rows
from retriever_svc.index import Chunk, Content, IndexSpec, Place, Scope, State, Vectors
from retriever_svc.lance_index import LanceIndex, open_lance_index
from retriever_svc.lance_options import LanceOptions, VectorIndex

DIMENSION = 16
SPEC = IndexSpec("words@r1", DIMENSION)
STATE = State(SPEC, 1)
KB = Scope("acme", "kb")


def options(folder: Path, vector_index: VectorIndex = "auto") -> LanceOptions:
    """Put in order only when the test says so."""
    return LanceOptions(folder / "lance", vector_index, index_rows=1000, upkeep_interval_s=3600)


@pytest_asyncio.fixture
async def index(tmp_path: Path) -> AsyncIterator[LanceIndex]:
    """An index with the collection, empty."""
    async with open_lance_index(options(tmp_path)) as index:
        await index.save(KB, STATE)
        yield index


def chunks(first: int, last: int) -> list[Chunk]:
    """One chunk a document."""
    return [Chunk(Place(f"d{number}", 0), f"apple w{number}") for number in range(first, last)]


async def nearest(index: LanceIndex, vector: Vectors) -> set[int]:
    """The numbers of the ten documents found nearest."""
    found = await index.search_dense(KB, SPEC, vector, 100, None)
    return {int(each.place.document[1:]) for each in found[:10]}


@pytest.mark.parametrize("kind", ["flat", "ivf_sq", "ivf_rq"])
async def test_nearly_all_of_the_exact_nearest_are_found(tmp_path: Path, kind: VectorIndex) -> None:
    """Also those written after the index was made, and after it is opened again."""
    random = np.random.default_rng(7)
    vectors = random.standard_normal((2100, DIMENSION), dtype=np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    async with open_lance_index(options(tmp_path, kind)) as index:
        await index.save(KB, STATE)
        await index.upsert(KB, SPEC, chunks(0, 2000), vectors[:2000])
        await index.tidy()
        await index.upsert(KB, SPEC, chunks(2000, 2100), vectors[2000:])
        assert 2050 in await nearest(index, vectors[2050])
    async with open_lance_index(options(tmp_path, kind)) as index:
        hits = 0
        for query in random.standard_normal((50, DIMENSION), dtype=np.float32):
            exact = set(np.argsort(-unit @ query)[:10].tolist())
            hits += len(exact & await nearest(index, query))
        assert hits >= 0.95 * 500
        assert len(await index.search_sparse(KB, SPEC, "apple", 3000, None)) == 2100


async def test_an_index_is_made_of_those_that_have_vectors(tmp_path: Path) -> None:
    """Not before there are enough of them, and the others are found by words all the while."""
    vectors = np.random.default_rng(7).standard_normal((1500, DIMENSION), dtype=np.float32)
    async with open_lance_index(options(tmp_path)) as index:
        await index.save(KB, STATE)
        await index.upsert(KB, SPEC, chunks(0, 500), vectors[:500])
        await index.upsert(KB, SPEC, chunks(500, 1500), None)
        await index.tidy()
        table = await index._find(KB, SPEC)
        assert table
        assert table._kind == ""
        await index.upsert(KB, SPEC, chunks(500, 1100), vectors[500:1100])
        table._rest_until = 0.0
        await index.tidy()
        assert (table._kind, table._made_of) == ("ivf_sq", 1100)
        assert await nearest(index, vectors[1050]) >= {1050}
        assert len(await index.search_dense(KB, SPEC, vectors[0], 2000, None)) == 1100
        assert len(await index.search_sparse(KB, SPEC, "apple", 2000, None)) == 1500


async def test_an_index_that_was_never_tried_is_searched_whole_until_it_is(tmp_path: Path) -> None:
    """As a crash leaves it, or a release that tried it otherwise."""
    vectors = np.random.default_rng(7).standard_normal((1500, DIMENSION), dtype=np.float32)
    async with open_lance_index(options(tmp_path)) as index:
        await index.save(KB, STATE)
        await index.upsert(KB, SPEC, chunks(0, 1500), vectors)
        await index.tidy()
        table = await index._find(KB, SPEC)
        assert table
        await table._table.update_field_metadata({"path": "vector", "metadata": {"ragmesh.lists_read": "0"}})
    async with open_lance_index(options(tmp_path)) as index:
        assert await nearest(index, vectors[700]) >= {700}
        table = await index._find(KB, SPEC)
        assert table
        assert (table._tried, table.due) == (False, True)
        await index.tidy()
        assert table._tried
        assert table._probes < 512


async def test_what_a_replacement_cut_off_leaves_is_nowhere(index: LanceIndex) -> None:
    """Its one commit is there, the rows that were to go after it are not found, counted or read."""
    three = [Chunk(Place("doc", ordinal), "an apple") for ordinal in range(3)]
    vectors = np.ones((3, DIMENSION), dtype=np.float32)
    await index.replace(KB, STATE, [Content("doc", three, vectors)])
    table = await index._find(KB, SPEC)
    assert table
    await table._merge(lance_rows.write_gone(table._columns, [Place("doc", 1), Place("doc", 2)]))
    left = Place("doc", 0)
    assert [each.place for each in await index.search_sparse(KB, SPEC, "apple", 10, None)] == [left]
    assert [each.place for each in await index.search_dense(KB, SPEC, vectors[0], 10, None)] == [left]
    places = [each.place for each in three]
    assert list(await index.read(KB, SPEC, places)) == list(await index.vectors(KB, SPEC, places)) == [left]
    assert await index.count(KB, SPEC) == 1
    assert [len(page) async for page, _ in index.scan(KB, SPEC)] == [1]
    assert await index.replace(KB, STATE, [Content("doc", three[:1], vectors[:1])]) in ([0], [2])
    assert await index.count(KB, SPEC) == 1


async def test_a_collection_counts_its_own_words(index: LanceIndex) -> None:
    """What other tenants write moves no score."""
    vectors = np.ones((5, DIMENSION), dtype=np.float32)
    await index.upsert(KB, SPEC, chunks(0, 5), vectors)
    before = await index.search_sparse(KB, SPEC, "apple w3", 10, None)
    other = Scope("bolt", "kb")
    await index.save(other, STATE)
    await index.upsert(other, SPEC, chunks(0, 5), vectors)
    assert await index.search_sparse(KB, SPEC, "apple w3", 10, None) == before


async def test_many_collections_are_opened_as_they_are_asked_for(tmp_path: Path) -> None:
    """More than are kept open."""
    few = LanceOptions(tmp_path / "lance", max_open_tables=2, sync=False)
    scopes = [Scope("acme", f"kb{number}") for number in range(6)]
    async with open_lance_index(few) as index:
        for scope in scopes:
            await index.save(scope, STATE)
            await index.upsert(scope, SPEC, chunks(0, 1), np.ones((1, DIMENSION), dtype=np.float32))
        for scope in scopes * 2:
            assert await index.count(scope, SPEC) == 1
        assert len(index._tables) == 2
