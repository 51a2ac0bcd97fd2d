"""Recursive chunking, by example."""

from ingest_svc.chunking import Chunk
from ingest_svc.extract import BlockKind, Extract, Writer
from ingest_svc.strategies.recursive import RecursiveStrategy
from tests.ingest_svc import extracts
from tests.ingest_svc.extracts import extract_of


def cut(extract: Extract, max_tokens: int = 16, overlap_tokens: int = 0) -> list[Chunk]:
    """The chunks of the extract."""
    return extracts.cut(RecursiveStrategy(), extract, max_tokens=max_tokens, overlap_tokens=overlap_tokens)


def test_headings_part_the_text() -> None:
    """Text under two headings is never in one chunk, and each chunk has the headings above it."""
    extract = extract_of(
        [
            (BlockKind.HEADING, "Pods", 1),
            (BlockKind.HEADING, "Phase", 2),
            (BlockKind.PARAGRAPH, "A Pod has a phase.", 1),
            (BlockKind.HEADING, "Probes", 2),
            (BlockKind.PARAGRAPH, "A probe asks.", 1),
        ]
    )
    chunks = cut(extract)
    assert [chunk.text for chunk in chunks] == [
        "Pods\n\nPhase\n\nA Pod has a phase.",
        "Probes\n\nA probe asks.",
    ]
    assert [chunk.heading_path for chunk in chunks] == [("Pods", "Phase"), ("Pods", "Probes")]


def test_sentences_stay_whole_where_they_fit() -> None:
    """A paragraph that is too long is parted between sentences, Chinese ones too."""
    english = extract_of(
        [
            (
                BlockKind.PARAGRAPH,
                "One two three four five six seven. Eight nine ten eleven twelve thirteen. X.",
                1,
            )
        ]
    )
    chinese = extract_of([(BlockKind.PARAGRAPH, "今天天气很好我们去。明天下雨我们在家里看书。后天。", 1)])
    assert [chunk.text for chunk in cut(english)] == [
        "One two three four five six seven. Eight nine ten eleven twelve thirteen.",
        "X.",
    ]
    assert [chunk.text for chunk in cut(chinese)] == [
        "今天天气很好我们去。",
        "明天下雨我们在家里看书。后天。",
    ]


def test_overlap_begins_at_a_sentence() -> None:
    """What a chunk repeats of the one before begins at a sentence where one is near enough."""
    extract = extract_of([(BlockKind.PARAGRAPH, " ".join(f"Aa bb cc d{n}." for n in range(8)), 1)])
    chunks = cut(extract, 20, 10)
    assert [chunk.text for chunk in chunks][1] == "Aa bb cc d2. Aa bb cc d3. Aa bb cc d4. Aa bb cc d5."


def test_a_page_is_that_of_the_first_new_text() -> None:
    """A chunk's page is the one on which its own text begins."""
    writer = Writer()
    for page in (1, 2):
        writer.page = page
        writer.block(" ".join(f"w{page}x{n}" for n in range(16)) + ".")
    chunks = cut(writer.extract("application/pdf", "test 1", page_count=2), 20, 4)
    assert [chunk.page for chunk in chunks] == [1, 2]


def test_only_what_is_parted_is_repeated() -> None:
    """Between two paragraphs nothing is, unless a sentence goes on, as over the end of a page."""
    whole = extract_of([(BlockKind.PARAGRAPH, " ".join(f"{word}{n}" for n in range(15)) + ".", 1) for word in "ab"])
    assert [chunk.text[:2] for chunk in cut(whole, 20, 5)] == ["a0", "b0"]
    going_on = extract_of([(BlockKind.PARAGRAPH, " ".join(f"{word}{n}" for n in range(15)), 1) for word in "ab"])
    assert [chunk.text[:3] for chunk in cut(going_on, 20, 5)] == ["a0 ", "a10"]
