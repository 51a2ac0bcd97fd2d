"""A model's NO_ANSWER is held back, everything else passes."""

import pytest

from gateway.abstaining import Abstaining


@pytest.mark.parametrize(
    ("deltas", "shown", "abstained"),
    [
        (["NO_ANSWER"], "", True),
        (["NO", "_ANS", "WER", "."], "", True),
        ([" \n", "NO_ANSWER\n"], "", True),
        (["No", ", it is"], "No, it is", False),
        (["NO", " ", "leave"], "NO leave", False),
        (["NO_ANSW"], "NO_ANSW", False),
        (["A ", "NO_ANSWER"], "A NO_ANSWER", False),
        ([], "", False),
    ],
)
def test_abstention_is_told_from_text(deltas: list[str], shown: str, abstained: bool) -> None:
    """Text is shown unchanged as soon as it cannot become NO_ANSWER."""
    watched = Abstaining()
    seen = "".join(watched.feed(delta) for delta in deltas)
    assert watched.abstained is abstained
    assert seen + ("" if abstained else watched.rest()) == shown


def test_first_delta_passes_at_once() -> None:
    """An answer that begins like any other is not held back at all."""
    assert Abstaining().feed("Leave") == "Leave"
