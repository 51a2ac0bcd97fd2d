"""What is recommended for a document, and chosen for it: by the same rules."""

from itertools import product

import pytest

from ingest_svc.extract import Writer
from ingest_svc.parsing import detection
from ingest_svc.recommending import recommend
from ingest_svc.strategies.loading import load_strategies
from meshkit.errors import InvalidArgument

PROSE = "The harbour opens at six. Boats leave at seven."
PYTHON = "import os\n\n\ndef area(width: int, height: int) -> int:\n    return width * height\n"
HEADED = "# Harbour\n\nIt opens at six.\n\n## Boats\n\nThey leave at seven.\n"


@pytest.mark.parametrize(
    ("media_type", "sample", "strategy"),
    [
        (detection.MARKDOWN, HEADED, "format"),
        (detection.HTML, PROSE, "format"),
        (detection.DOCX, PROSE, "format"),
        (detection.PDF, PROSE, "format"),
        (detection.PPTX, PROSE, "format"),
        (detection.CSV, "name | age", "format"),
        ("text/x-python", PYTHON, "code"),
        ("", PYTHON, "code"),
        ("", HEADED, "format"),
        (detection.PLAIN, PROSE, "recursive"),
        (detection.PLAIN, "港口六点开放。船七点离开。", "recursive"),
        (detection.JSON, '{"name": "a"}', "recursive"),
        ("", "", "recursive"),
    ],
)
def test_the_kind_and_content_choose_the_strategy(media_type: str, sample: str, strategy: str) -> None:
    """And the reason says why."""
    choice = recommend(media_type, sample, "")
    assert choice.chunking.strategy == strategy
    assert choice.rationale


@pytest.mark.parametrize(
    ("use", "size"), [("客服问答", 120), ("a support FAQ", 120), ("legal analysis", 240), ("", 180)]
)
def test_the_use_chooses_the_size(use: str, size: int) -> None:
    """Small chunks for short facts, larger ones for long arguments."""
    assert recommend(detection.PLAIN, PROSE, use).chunking.parameters["max_tokens"] == size


def test_every_recommendation_is_one_the_server_takes() -> None:
    """Its strategy is known, and its parameters are in their bounds."""
    strategies = load_strategies()
    kinds = (detection.MARKDOWN, detection.PDF, detection.CSV, detection.PLAIN, "text/x-go", "image/png")
    for media_type, use in product(kinds, ("", "FAQ", "contracts")):
        chunking = recommend(media_type, PROSE, use).chunking
        assert strategies.resolve(chunking.strategy, chunking.parameters).strategy == chunking.strategy


def test_a_document_gets_what_is_recommended_for_it() -> None:
    """`auto` chooses by the rules of the recommendation, within the size asked for."""
    strategies = load_strategies()
    writer = Writer()
    writer.block(PROSE)
    extract = writer.extract(detection.HTML, "test 1")
    choice = strategies.choose(strategies.resolve("", {"use_case": "FAQ"}), extract)
    recommended = recommend(detection.HTML, PROSE, "FAQ")
    assert choice.rationale == recommended.rationale
    assert choice.chunking == strategies.resolve(recommended.chunking.strategy, recommended.chunking.parameters)
    smaller = strategies.choose(strategies.resolve("auto", {"max_tokens": 32}), extract).chunking
    assert (smaller.parameters["max_tokens"], smaller.parameters["overlap_tokens"]) == (32, 16)


def test_a_strategy_that_was_asked_for_is_taken() -> None:
    """With no reason, as none is needed."""
    strategies = load_strategies()
    chunking = strategies.resolve("token", {})
    choice = strategies.choose(chunking, Writer().extract(detection.HTML, "test 1"))
    assert (choice.chunking, choice.rationale) == (chunking, "")


def test_bad_parameters_are_told_in_plain_words() -> None:
    """With the field, what stands in its way, and nothing of the library that checked them."""
    with pytest.raises(InvalidArgument) as failed:
        load_strategies().resolve("token", {"max_tokens": 20, "overlap_tokens": 30})
    assert str(failed.value).endswith("chunking.parameters: overlap_tokens (30) must be at most half of max_tokens")


@pytest.mark.parametrize("strategy", ["recursive", "token", "format", "code", "semantic"])
def test_a_default_overlap_shrinks_with_the_size(strategy: str) -> None:
    """A small size alone is a whole choice; with room for it the overlap is the default."""
    strategies = load_strategies()
    default = strategies.resolve(strategy, {}).parameters["overlap_tokens"]
    assert strategies.resolve(strategy, {"max_tokens": 50}).parameters["overlap_tokens"] == min(default, 25)
    assert strategies.resolve(strategy, {"max_tokens": 500}).parameters["overlap_tokens"] == default
