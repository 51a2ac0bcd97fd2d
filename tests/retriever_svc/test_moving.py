"""Moving collections between indexes, both ways."""

from pathlib import Path

import numpy as np
import pytest

from meshkit.errors import FailedPrecondition
from retriever_svc.filtering import FieldType, parse
from retriever_svc.fusion import Weighted
from retriever_svc.index import Chunk, Index, IndexSpec, Language, Place, Scope, State, stored
from retriever_svc.move import run
from retriever_svc.moving import move
from retriever_svc.settings import Settings
from tests.retriever_svc.doubles import encode
from tests.retriever_svc.indexes import opened, uri_of

FIELDS = {"lang": FieldType.TEXT}
SPEC = IndexSpec("words@r1", 32, Language.CHINESE, Weighted(0.4), FIELDS)
KB = Scope("acme", "kb")
OTHER = Scope("bolt", "kb")
WAYS = [("lance", "milvus"), ("milvus", "lance")]


def chunk(document: str, ordinal: int) -> Chunk:
    """A chunk with something in every field."""
    text = f"apple {ordinal} 日本語 \x00"
    metadata = {"lang": "en", "deep": {"list": [1, None, "ü"]}}
    return Chunk(Place(document, ordinal), text, 1, 2, 3, ("A", "b"), "t", "u", 4, metadata, f"h{ordinal}")


async def fill(index: Index, scope: Scope, version: int, documents: int) -> dict[Place, Chunk]:
    """Write so many documents of two chunks; what was written."""
    state = State(SPEC, version, gaps=True, chunks="held")
    await index.save(scope, state)
    chunks = [chunk(f"d{number // 2}", number % 2) for number in range(2 * documents)]
    vectors = np.stack([encode(each.text) for each in chunks])
    await index.upsert(stored(scope, state.chunks), SPEC, chunks, vectors)
    return {each.place: each for each in chunks}


@pytest.mark.parametrize(("old", "new"), WAYS)
async def test_all_collections_are_moved(tmp_path: Path, old: str, new: str) -> None:
    """Chunks, vectors, settings and versions; again, it only verifies; searches find the same."""
    async with opened(old, tmp_path) as source:
        written = await fill(source, KB, 7, 600)
        await fill(source, OTHER, 8, 1)
    for _ in range(2):
        assert await run(uri_of(old, tmp_path), uri_of(new, tmp_path), [], Settings()) == 0
    async with opened(new, tmp_path) as target:
        state = await target.load(KB)
        assert state == State(SPEC, 7, gaps=True, chunks="held")
        assert await target.scopes() == [KB, OTHER]
        held = stored(KB, state.chunks)
        assert await target.count(held, SPEC) == 1200
        assert await target.read(held, SPEC, list(written)) == written
        vectors = await target.vectors(held, SPEC, [Place("d3", 1)])
        assert np.allclose(vectors[Place("d3", 1)], encode(written[Place("d3", 1)].text), atol=1e-6)
        assert len(await target.search_sparse(held, SPEC, "本語", 2000, parse("lang = en", FIELDS))) == 1200
        assert await target.count(stored(OTHER, "held"), SPEC) == 2


@pytest.mark.parametrize(("old", "new"), WAYS)
async def test_a_move_cut_off_is_done_again(tmp_path: Path, old: str, new: str) -> None:
    """What the first attempt left, and the source has not, is gone."""
    async with opened(old, tmp_path) as source, opened(new, tmp_path) as target:
        await fill(source, KB, 7, 3)
        # As an attempt leaves it that began when there was more.
        await fill(target, KB, 0, 5)
        moved = await move(KB, source, target)
        assert (moved.chunks, moved.before) == (6, False)
        assert await target.count(stored(KB, "held"), SPEC) == 6
        assert (await move(KB, source, target)).before


@pytest.mark.parametrize(("old", "new"), WAYS)
async def test_chunks_that_wait_for_vectors_are_moved_so(tmp_path: Path, old: str, new: str) -> None:
    """Beside others of their collection."""
    async with opened(old, tmp_path) as source, opened(new, tmp_path) as target:
        await fill(source, KB, 7, 1)
        held, late = stored(KB, "held"), chunk("late", 0)
        await source.upsert(held, SPEC, [late], None)
        assert (await move(KB, source, target)).chunks == 3
        assert await target.read(held, SPEC, [late.place]) == {late.place: late}
        assert await target.vectors(held, SPEC, [late.place]) == {}
        assert len(await target.search_dense(held, SPEC, encode(late.text), 10, None)) == 2
        assert len(await target.search_sparse(held, SPEC, "apple", 10, None)) == 3


async def test_a_collection_in_use_is_not_moved_over(tmp_path: Path) -> None:
    """One of the same name with a version of its own; the command names it and says that it failed."""
    async with opened("milvus", tmp_path) as source, opened("lance", tmp_path) as target:
        await fill(source, KB, 7, 1)
        await fill(target, KB, 9, 2)
        with pytest.raises(FailedPrecondition):
            await move(KB, source, target)
        assert await target.count(stored(KB, "held"), SPEC) == 4
    uris = uri_of("milvus", tmp_path), uri_of("lance", tmp_path)
    assert await run(*uris, ["acme/kb", "acme/none"], Settings()) == 2


@pytest.mark.parametrize("source", ["lance:{}", "milvus:{}", "{}"])
async def test_a_source_that_is_not_there_is_told(source: str, tmp_path: Path) -> None:
    """And not made, empty, to be moved with success."""
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match="no index in"):
        await run(source.format(missing), f"lance:{tmp_path / 'new'}", [], Settings())
    assert not list(tmp_path.iterdir())
