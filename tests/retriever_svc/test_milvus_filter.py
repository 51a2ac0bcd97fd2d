"""Filters as Milvus Lite answers them: what they mean there, and that none leaves its scope."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from milvus_lite.search.filter import parse_expr
from milvus_lite.search.filter.ast import And, CmpOp, StringLit

from meshkit.errors import InvalidArgument
from retriever_svc.filtering import FieldType, parse
from retriever_svc.index import Chunk, IndexSpec, Place, Scope, State
from retriever_svc.milvus_filter import literal, within
from retriever_svc.milvus_index import MilvusIndex, MilvusOptions, open_milvus_index

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
async def open_filled(folder: Path) -> AsyncIterator[MilvusIndex]:
    """An index whose every scope has one document for each entry of METADATA."""
    async with open_milvus_index(MilvusOptions(str(folder / "milvus"))) as index:
        chunks = [
            Chunk(Place(name, 0), "some words", metadata=values, page=page)
            for page, (name, values) in enumerate(METADATA.items())
        ]
        for scope in [OURS, *OTHERS]:
            await index.save(scope, State(SPEC, 1))
            await index.upsert(scope, SPEC, chunks, np.ones((len(chunks), 2), dtype=np.float32))
        yield index


@pytest_asyncio.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[MilvusIndex]:
    """The filled index."""
    async with open_filled(tmp_path) as index:
        yield index


async def found(index: MilvusIndex, filter: str) -> set[str]:
    """The documents of OURS that the filter finds; both halves and the count agree on them."""
    condition = parse(filter, FIELDS, OURS.name)
    dense = await index.search_dense(OURS, SPEC, np.ones(2, dtype=np.float32), 100, condition)
    sparse = await index.search_sparse(OURS, SPEC, "words", 100, condition)
    documents = [hit.place.document for hit in dense]
    assert sorted(documents) == sorted(hit.place.document for hit in sparse)
    assert len(documents) == await index.count(OURS, SPEC, *([condition] if condition else []))
    assert len(documents) == len(set(documents))
    return set(documents)


@pytest.mark.parametrize("flushed", [False, True])
async def test_what_filters_find(flushed: bool, tmp_path: Path) -> None:
    """Before and after a flush; a missing field, or a value of another type, meets no comparison and no opposite."""
    async with open_filled(tmp_path) as index:
        if flushed:
            await index.flush()
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
            "year:*": {"en", "de", "odd"},
            "NOT year:*": {"none"},
            "page >= 2": {"odd", "none"},
            "document = none": {"none"},
            'document = "collections/kb/documents/none"': {"none"},
            'document = "collections/other/documents/none"': set(),
            "lang = en OR lang = de AND year < 2020": {"de"},
            "(lang = en OR lang = de) AND NOT (year < 2020 AND draft = false)": {"en"},
        }.items():
            assert await found(index, filter) == documents, filter


async def test_a_negated_list_takes_what_is_no_list_as_without(tmp_path: Path) -> None:
    """A field that is there and does not have the value, whatever it is."""
    async with open_filled(tmp_path) as index:
        assert await found(index, "NOT team:infra") == {"de", "odd"}


WORDS = ["lang", "year", "team", "tenant", "collection", "metadata", "AND", "OR", "NOT", "or", "true", "1"]
SIGNS = ["=", "!=", ":", "(", ")", "==", "||", "*", "%", '"', "'", "\\", "\\\\", "\\n", "\n"]
fragments = st.sampled_from([*WORDS, *SIGNS, '"bolt"', '") or (tenant != "'])
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
quoted = st.builds(lambda text: "lang != '{}'".format(text.replace("\\", "\\\\").replace("'", "\\'")), strings)


odd_filters = st.lists(fragments, max_size=12).map(" ".join) | quoted


@settings(max_examples=300, deadline=None)
@given(odd_filters)
def test_a_filter_is_one_conjunct_beside_its_scope(filter: str) -> None:
    """However odd: it is refused, or Milvus Lite reads the scope's two predicates with the filter as a third."""
    try:
        condition = parse(filter, FIELDS, OURS.name)
    except InvalidArgument:
        return
    tree = parse_expr(within(OURS, condition))
    assert isinstance(tree, And)
    assert len(tree.operands) == 2 + (condition is not None)
    for operand, (name, value) in zip(tree.operands[:2], [("tenant", "acme"), ("collection", "kb")], strict=True):
        assert isinstance(operand, CmpOp)
        assert (operand.left.name, operand.op, operand.right.value) == (name, "==", value)


@settings(max_examples=300, deadline=None)
@given(strings | st.sampled_from([ODD, "\r\n\t", "\\\\n"]))
def test_a_text_is_one_literal(text: str) -> None:
    """Whatever it holds, Milvus Lite reads it back as it was."""
    tree = parse_expr(f"lang == {literal(text)}")
    assert isinstance(tree, CmpOp)
    assert isinstance(tree.right, StringLit)
    assert tree.right.value == text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filter=odd_filters)
async def test_no_filter_finds_beyond_its_scope(filter: str, guarded: MilvusIndex) -> None:
    """Other collections and tenants have documents that every filter would like; none is found."""
    try:
        condition = parse(filter, FIELDS, OURS.name)
    except InvalidArgument:
        return
    nowhere = Scope("acme", "empty")
    assert await guarded.search_dense(nowhere, SPEC, np.ones(2, dtype=np.float32), 100, condition) == []
    assert await guarded.search_sparse(nowhere, SPEC, "words", 100, condition) == []
    assert await guarded.count(nowhere, SPEC, *([condition] if condition else [])) == 0
