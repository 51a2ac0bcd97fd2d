"""What is each strategy's own, by example."""

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from ingest_svc.chunking import Encoded
from ingest_svc.extract import BlockKind, Extract, Source, Writer
from ingest_svc.parsing.source_code import parse
from ingest_svc.strategies.character import CharacterStrategy
from ingest_svc.strategies.code import CodeStrategy
from ingest_svc.strategies.format import FormatStrategy
from ingest_svc.strategies.semantic import SemanticStrategy
from ingest_svc.strategies.token import TokenStrategy
from tests.ingest_svc.extracts import cut, extract_of
from tests.ingest_svc.words import token_ends

PROGRAM = b'''"""Shapes."""


class Square:
    """Four equal sides."""

    def area(self) -> int:
        """Side by side."""
        return self.side * self.side

    def grow(self, by: int) -> None:
        """Larger."""
        if by < 0:
            raise ValueError("cannot shrink")
        self.side += by
        self.history.append(by)
        self.changed = True


def main() -> None:
    print(Square().area())
'''
FISH = "Trout swim upstream in spring. Salmon swim home to spawn there."
STARS = "Stars burn hydrogen for long. Suns burn helium in the end."


def words(count: int) -> str:
    """So many words, all different."""
    return " ".join(f"w{number}" for number in range(count))


def test_token_windows_are_full() -> None:
    """Each but the last has as many tokens as fit, the overlap with them, whatever stands above."""
    extract = extract_of(
        [(BlockKind.PARAGRAPH, words(30), 1), (BlockKind.HEADING, "Next", 1), (BlockKind.PARAGRAPH, words(20), 1)]
    )
    chunks = cut(TokenStrategy(), extract, max_tokens=20, overlap_tokens=5)
    assert [chunk.token_count for chunk in chunks] == [20, 20, 20, 6]
    assert [chunk.heading_path for chunk in chunks] == [(), (), ("Next",), ("Next",)]


def test_character_windows_end_after_a_separator() -> None:
    """After the first one that stands in the later half; without one, where they are full."""
    text = "Pods run containers. Nodes run pods.\nClusters have nodes and more of them."
    extract = extract_of([(BlockKind.PARAGRAPH, text, 1)])
    chunks = cut(CharacterStrategy(), extract, max_characters=50, overlap_characters=0)
    assert [chunk.text for chunk in chunks] == text.split("\n")
    unspaced = extract_of([(BlockKind.PARAGRAPH, "字" * 90, 1)])
    assert [
        len(chunk.text) for chunk in cut(CharacterStrategy(), unspaced, max_characters=40, overlap_characters=0)
    ] == [
        40,
        40,
        10,
    ]


def test_tokens_bound_characters() -> None:
    """Where the characters of a window are more tokens than it may have, it is shorter."""
    extract = extract_of([(BlockKind.PARAGRAPH, "字" * 90, 1)])
    assert [chunk.token_count for chunk in cut(CharacterStrategy(), extract, max_tokens=40, overlap_characters=0)] == [
        40,
        40,
        10,
    ]


def by_subject(texts: Sequence[str]) -> np.ndarray:
    """A vector that says how much a text is of fish, and how much of stars."""
    fish, stars = ("Trout", "Salmon"), ("Stars", "Suns")
    counts = [[sum(text.count(word) for word in subject) for subject in (fish, stars)] for text in texts]
    return np.array(counts, np.float32) + 0.01


def test_semantic_chunks_end_where_the_subject_changes() -> None:
    """Though more sentences would fit; a change ends no chunk that is too short."""
    extract = extract_of([(BlockKind.PARAGRAPH, f"{FISH} {STARS}", 1)])
    strategy = SemanticStrategy()
    for least, expected in ((0, [FISH, STARS]), (60, [f"{FISH} {STARS}"])):
        parameters = strategy.parameters(min_tokens=least, neighbours=0)
        encoded = Encoded(token_ends(extract.text), by_subject(strategy.probes(extract, parameters)))
        assert [chunk.text for chunk in strategy.cut(extract, encoded, parameters)] == expected


@pytest.mark.parametrize("threshold", ["percentile", "standard_deviation", "interquartile"])
def test_a_chunk_that_is_too_long_ends_at_the_greatest_change(threshold: str) -> None:
    """Even where no change is great enough to end one that fits."""
    extract = extract_of([(BlockKind.PARAGRAPH, f"{FISH} {STARS}", 1)])
    strategy = SemanticStrategy()
    parameters = strategy.parameters(max_tokens=20, min_tokens=20, neighbours=0, threshold=threshold)
    encoded = Encoded(token_ends(extract.text), by_subject(strategy.probes(extract, parameters)))
    assert [chunk.text for chunk in strategy.cut(extract, encoded, parameters)] == [FISH, STARS]


def test_a_sentence_is_encoded_among_its_neighbours() -> None:
    """With the heading before it, and none of another section."""
    extract = extract_of(
        [
            (BlockKind.HEADING, "Rivers and the fish in them", 1),
            (
                BlockKind.PARAGRAPH,
                "Trout swim upstream here. Salmon swim home to spawn. Eels do neither.",
                1,
            ),
            (BlockKind.HEADING, "The stars and what they burn", 1),
            (BlockKind.PARAGRAPH, "Suns burn hydrogen for long.", 1),
        ]
    )
    strategy = SemanticStrategy()
    probes = strategy.probes(extract, strategy.parameters(neighbours=1))
    assert probes == [
        "Rivers and the fish in them\n\nTrout swim upstream here. Salmon swim home to spawn.",
        "Rivers and the fish in them\n\nTrout swim upstream here. Salmon swim home to spawn. Eels do neither.",
        "Salmon swim home to spawn. Eels do neither.",
        "The stars and what they burn\n\nSuns burn hydrogen for long.",
    ]


def test_of_a_long_text_several_sentences_are_encoded_together() -> None:
    """So that its vectors are bounded."""
    extract = extract_of([(BlockKind.PARAGRAPH, "Of one it is said that. " * 100_000, 1)])
    strategy = SemanticStrategy()
    assert len(strategy.probes(extract, strategy.parameters(neighbours=0))) <= 16_384


def program() -> Extract:
    """The program, parsed."""
    return parse(Source(PROGRAM, "shapes.py"))


def test_code_is_cut_between_definitions() -> None:
    """Each function a chunk, under the class it is of; a long one is parted where it is indented least."""
    chunks = cut(CodeStrategy(), program(), max_tokens=32, min_tokens=0)
    assert [(chunk.heading_path, chunk.text.split("\n")[0]) for chunk in chunks] == [
        ((), '"""Shapes."""'),
        (("Square",), "class Square:"),
        (("Square", "area"), "def area(self) -> int:"),
        (("Square", "grow"), "def grow(self, by: int) -> None:"),
        (("Square", "grow"), "if by < 0:"),
        (("main",), "def main() -> None:"),
    ]


def test_small_definitions_are_joined() -> None:
    """With those beside them, under the name that all of them are in."""
    chunks = cut(CodeStrategy(), program(), max_tokens=180, min_tokens=60)
    assert chunks[0].text.startswith('"""Shapes."""')
    assert len(chunks) == 2


def table(rows: int) -> Extract:
    """A heading, a line, and a table of so many rows."""
    writer = Writer()
    writer.heading(1, "Ports")
    writer.block("What listens where.")
    writer.block(
        "\n".join(["| Port | Service |", "|---|---|", *(f"| {n} | s{n} |" for n in range(rows))]), BlockKind.TABLE
    )
    return writer.extract("text/markdown", "test 1")


def test_a_parted_table_has_its_header_above_each_part() -> None:
    """Its rows are whole, and the text of a chunk stays what the document has."""
    chunks = cut(FormatStrategy(), table(20), max_tokens=48, overlap_tokens=0, min_tokens=10)
    assert chunks[0].text == "Ports\n\nWhat listens where."
    assert [chunk.heading_path for chunk in chunks[1:]] == [
        ("Ports",),
        *[("Ports", "Port | Service")] * (len(chunks) - 2),
    ]
    assert len(chunks) > 3
    assert all(line.endswith("|") for chunk in chunks[1:] for line in chunk.text.split("\n"))


def test_small_sections_are_joined() -> None:
    """Those of one page below one heading, up to the size that is enough."""
    small = [(BlockKind.HEADING, f"Part {n}", 2) if n % 2 else (BlockKind.PARAGRAPH, words(8), 1) for n in range(1, 9)]
    extract = extract_of([(BlockKind.HEADING, "Book", 1), *small])
    chunks = cut(FormatStrategy(), extract, max_tokens=60, overlap_tokens=0, min_tokens=12)
    assert [chunk.heading_path for chunk in chunks] == [("Book",), ("Book",)]
    apart = cut(FormatStrategy(), extract, max_tokens=60, overlap_tokens=0, min_tokens=0)
    assert [chunk.heading_path for chunk in apart] == [("Book", f"Part {n}") for n in (1, 3, 5, 7)]


def test_pages_are_kept_apart() -> None:
    """However little they hold."""
    writer = Writer()
    for page in (1, 2, 3):
        writer.page = page
        writer.block(f"Slide {page}.")
    chunks = cut(FormatStrategy(), writer.extract("application/pdf", "test 1", page_count=3))
    assert [(chunk.page, chunk.text) for chunk in chunks] == [(n, f"Slide {n}.") for n in (1, 2, 3)]


def test_an_overlap_is_the_smaller_part() -> None:
    """More than half of a chunk is refused, in characters too."""
    with pytest.raises(ValidationError, match="at most half of max_tokens"):
        TokenStrategy().parameters(max_tokens=20, overlap_tokens=11)
    with pytest.raises(ValidationError, match="at most half of max_characters"):
        CharacterStrategy().parameters(max_characters=20, overlap_characters=11)
