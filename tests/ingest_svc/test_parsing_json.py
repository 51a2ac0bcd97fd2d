"""JSON, JSON Lines and notebooks."""

import json
from typing import Any

import pytest

from ingest_svc.extract import BlockKind
from ingest_svc.parsing.json import JSON_LINES, NOTEBOOK
from tests.ingest_svc.parsed import blocks, extract


def test_a_record_is_a_block_of_paths() -> None:
    """Nested values have dotted paths, plain lists are one line, null and empty values are left out."""
    records: list[Any] = [
        {"name": "Duck", "food": {"likes": ["bread", 2], "not": None}, "young": [{"age": 1}, {"age": 0.5}], "x": ""},
        {"name": "Goose", "wild": True},
        "Swan",
    ]
    found = extract(json.dumps(records), "x.json")
    assert blocks(found) == [
        (BlockKind.CODE, "name: Duck\nfood.likes: bread, 2"),
        (BlockKind.CODE, "young[0].age: 1"),
        (BlockKind.CODE, "young[1].age: 0.5"),
        (BlockKind.CODE, "name: Goose\nwild: true"),
        (BlockKind.CODE, "Swan"),
    ]
    assert extract('{"title": "Pond", "deep": false}').title == "Pond"


def test_prose_in_a_record_is_a_paragraph() -> None:
    """A long value stands by itself, so that it is cut at its sentences."""
    prose = "The duck swims. " * 20
    found = extract(json.dumps([{"id": 1, "text": prose, "tag": "x"}]), "x.json")
    assert blocks(found) == [
        (BlockKind.CODE, "id: 1"),
        (BlockKind.PARAGRAPH, f"text: {prose.strip()}"),
        (BlockKind.CODE, "tag: x"),
    ]


@pytest.mark.parametrize("uri", ["x.jsonl", "", "x.txt"])
def test_lines_of_json_are_records(uri: str) -> None:
    """Each line is a block, blank lines are skipped, and a last line cut short is left out."""
    found = extract('{"a": 1}\n\n{"a": 2}\n{"a": ', uri)
    assert (found.text, found.media_type) == ("a: 1\n\na: 2", JSON_LINES)


def test_what_is_no_json_is_text() -> None:
    """A file with comments, or only named so, loses nothing."""
    found = extract('{\n  // comment\n  "a": 1,\n}', "tsconfig.json")
    assert found.text == '{\n  // comment\n  "a": 1,\n}'
    assert found.warnings == ("not valid JSON: read as text",)


def test_notebooks_give_cells_and_outputs() -> None:
    """Markdown cells have headings, code cells and what they print are code, images are left out."""
    cells = [
        {"cell_type": "markdown", "source": ["# Ducks\n", "They **swim**."]},
        {
            "cell_type": "code",
            "source": "print(1)",
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}},
                {"output_type": "execute_result", "data": {"text/plain": "2"}},
            ],
        },
        {"cell_type": "raw", "source": "as it is"},
    ]
    found = extract(json.dumps({"cells": cells, "metadata": {"title": "T"}, "nbformat": 4}), "x.ipynb")
    assert blocks(found) == [
        (BlockKind.HEADING, "Ducks"),
        (BlockKind.PARAGRAPH, "They swim."),
        (BlockKind.CODE, "print(1)"),
        (BlockKind.CODE, "1"),
        (BlockKind.CODE, "2"),
        (BlockKind.PARAGRAPH, "as it is"),
    ]
    assert (found.title, found.media_type, found.blocks[-1].heading_path) == ("T", NOTEBOOK, ("Ducks",))
