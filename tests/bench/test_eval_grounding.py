"""Claims are made of questions, and graded by what the passages say."""

from bench.eval_grounding import examples, figures, grade, table
from bench.labelled import Document, LabelledSet

DOCUMENTS = {
    "d1": Document("Harbour", "The harbour of Bonn opened in 1912 under Anna Berg. Boats lie at the eastern pier."),
    "d2": Document("Harbour", "Every second Sunday a market is held in the old customs house, with fish and flowers."),
}
QUERIES = {"q1": "When did the harbour of Bonn open?", "q2": "Where is a market held every second Sunday?"}
QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 1}}
ACCEPTED = {"q1": ("1912", "in 1912"), "q2": ("the old customs house",)}
GIVEN = list(examples(LabelledSet("harbour", DOCUMENTS, QUERIES, QRELS), ACCEPTED))


def test_claims_are_questions_with_answers() -> None:
    """With the accepted one, and with one that the passage does not have; the sentence is of what is not shown."""
    assert {example.right for example in GIVEN} == {
        "1912 did the harbour of Bonn open.",
        "The old customs house is a market held every second Sunday.",
    }
    for example in GIVEN:
        text = example.shown[1].chunk.text
        assert example.wrong.partition(" is ")[0] not in text
        assert example.elsewhere not in text


def test_what_is_so_has_the_greater_score() -> None:
    """Than another answer, and than what no passage shown says."""
    for example in GIVEN:
        assert grade(example, example.right) > max(grade(example, example.wrong), grade(example, example.elsewhere))


def test_figures_are_shown_by_kind_of_claim() -> None:
    """In a table; what is not measured of a kind stays empty."""
    shown = table(figures("s", GIVEN))
    assert "| s, the answer | 2 | 1.000 |  |  |" in shown
    assert "| s, a sentence not shown | 2 | 0.000 | 1.000 |  |" in shown
