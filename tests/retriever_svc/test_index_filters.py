"""Filters as each index answers them: what they mean there, and that none leaves its scope."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshkit.errors import InvalidArgument
from retriever_svc.filtering import Comparison, Field, FieldType, Operator, parse
from retriever_svc.index import Chunk, Index, IndexSpec, Place, Scope, State
from tests.retriever_svc.indexes import opened

FIELDS = {
    "lang": FieldType.TEXT,
    "year": FieldType.NUMBER,
    "draft": FieldType.BOOL,
    "team": FieldType.TEXT_LIST,
}
SPEC = IndexSpec("words@r1", 2, fields=FIELDS)
OURS = Scope("acme", "kb")
OTHERS = [Scope("acme", "other"), Scope("bolt", "kb")]
ODD = '"\') OR tenant != "" --\\\n%_\''

METADATA: dict[str, dict[str, Any]] = {
    "en": {"lang": "en", "year": 2024, "draft": True, "team": ["infra", "a%b"]},
    "de": {"lang": "de", "year": 2019.5, "draft": False, "team": []},
    "odd": {"lang": ODD, "year": "2024", "team": "infra"},
    "none": {},
}


@asynccontextmanager
async def open_filled(folder: Path, engine: str, fields: dict[str, FieldType] = FIELDS) -> AsyncIterator[Index]:
    """An index whose every scope has one document for each entry of METADATA."""
    spec = IndexSpec("words@r1", 2, fields=fields)
    async with opened(engine, folder) as index:
        chunks = [
            Chunk(Place(name, 0), "some words", metadata=values, page=page)
            for page, (name, values) in enumerate(METADATA.items())
        ]
        for scope in [OURS, *OTHERS]:
            await index.save(scope, State(spec, 1))
            await index.upsert(scope, spec, chunks, np.ones((len(chunks), 2), dtype=np.float32))
        yield index


@pytest_asyncio.fixture
async def guarded(tmp_path: Path, engine: str) -> AsyncIterator[Index]:
    """The filled index."""
    async with open_filled(tmp_path, engine) as index:
        yield index


async def found(index: Index, filter: str) -> set[str]:
    """The documents of OURS that the filter finds; both halves and the count agree on them."""
    condition = parse(filter, FIELDS, OURS.name)
    dense = await index.search_dense(OURS, SPEC, np.ones(2, dtype=np.float32), 100, condition)
    sparse = await index.search_sparse(OURS, SPEC, "words", 100, condition)
    documents = [hit.place.document for hit in dense]
    assert sorted(documents) == sorted(hit.place.document for hit in sparse)
    assert len(documents) == await index.count(OURS, SPEC, *([condition] if condition else []))
    assert len(documents) == len(set(documents))
    return set(documents)


async def test_what_filters_find(guarded: Index) -> None:
    """A missing field, or a value of another type, meets no comparison and no opposite."""
    for filter, documents in {
        "": {"en", "de", "odd", "none"},
        "lang = en": {"en"},
        "lang != en": {"de", "odd"},
        "NOT lang = en": {"de", "odd"},
        "lang = '{}'".format(ODD.replace("\\", "\\\\").replace("'", "\\'")): {"odd"},
        "lang > de": {"en"},
        "year >= 2019.5": {"en", "de"},
        "year = 2024": {"en"},
        "year < 2020": {"de"},
        "NOT year < 2020": {"en"},
        "draft = true": {"en"},
        "draft != true": {"de"},
        "team:infra": {"en"},
        'team:"a%b"': {"en"},
        'team:"a_b"': set(),
        "NOT team:infra": {"de", "odd"},
        "year:*": {"en", "de", "odd"},
        "NOT year:*": {"none"},
        "page >= 2": {"odd", "none"},
        "document = none": {"none"},
        'document = "collections/kb/documents/none"': {"none"},
        'document = "collections/other/documents/none"': set(),
        "lang = en OR lang = de AND year < 2020": {"de"},
        "(lang = en OR lang = de) AND NOT (year < 2020 AND draft = false)": {"en"},
    }.items():
        assert await found(guarded, filter) == documents, filter


async def test_a_field_named_later_finds_what_was_written_before(tmp_path: Path, engine: str) -> None:
    """A field may be named, taken away, given another type and named again."""
    async with open_filled(tmp_path, engine, {"draft": FieldType.BOOL}) as index:
        await index.save(OURS, State(IndexSpec("words@r1", 2, fields={"lang": FieldType.TEXT_LIST}), 2))
        await index.save(OURS, State(SPEC, 3))
        assert await found(index, "lang = en AND team:infra AND draft = true") == {"en"}
        assert await found(index, "lang:* AND NOT year >= 2024") == {"de"}


WORDS = ["lang", "year", "team", "tenant", "collection", "metadata", "AND", "OR", "NOT", "or", "true", "1"]
SIGNS = ["=", "!=", ":", "(", ")", "==", "||", "*", "%", '"', "'", "\\", "\\\\", "\\n", "\n"]
fragments = st.sampled_from([*WORDS, *SIGNS, '"bolt"', '") or (tenant != "', "' OR ''='", "'; --"])
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
quoted = st.builds(lambda text: "lang != '{}'".format(text.replace("\\", "\\\\").replace("'", "\\'")), strings)
odd_filters = st.lists(fragments, max_size=12).map(" ".join) | quoted


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filter=odd_filters)
async def test_no_filter_finds_beyond_its_scope(filter: str, guarded: Index) -> None:
    """Other collections and tenants have documents that every filter would like; none is found."""
    try:
        condition = parse(filter, FIELDS, OURS.name)
    except InvalidArgument:
        return
    nowhere = Scope("acme", "empty")
    assert await guarded.search_dense(nowhere, SPEC, np.ones(2, dtype=np.float32), 100, condition) == []
    assert await guarded.search_sparse(nowhere, SPEC, "words", 100, condition) == []
    assert await guarded.count(nowhere, SPEC, *([condition] if condition else [])) == 0
    assert await found(guarded, filter) <= set(METADATA)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=strings | st.sampled_from([ODD, "\r\n\t", "\\\\n", "\x00", "''", "\\'"]))
async def test_a_text_is_one_literal(text: str, guarded: Index) -> None:
    """Whatever it holds, it is compared as it is."""
    chunk = Chunk(Place("text", 0), "some words", metadata={"lang": text})
    await guarded.upsert(OURS, SPEC, [chunk], np.ones((1, 2), dtype=np.float32))
    same = Comparison(Field("lang", FieldType.TEXT, in_metadata=True), Operator.EQUAL, text)
    assert await guarded.count(OURS, SPEC, same) == 1 + (text in ("en", "de", ODD))
