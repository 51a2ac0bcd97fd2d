"""How like two texts are."""

import pytest

from bench.text_similarity import contains, similarity, text_of_html


def test_marks_and_spaces_do_not_count() -> None:
    """The same words are alike whatever marks them; links and images count by their text."""
    marked = "# Duck\n\n- a **big** [pond](https://x.org/a_(b))\n\n| a | b |\n| - | - |\n| c | d\\_e |\n"
    assert similarity(marked, "Duck\na big pond\n\na b\nc d_e") == 1.0
    assert contains("The *footnote*\nappears", "footnote appears")
    assert similarity(text_of_html("<p>a &amp; b<table><tr><td>c"), "a & bc") == 1.0


@pytest.mark.parametrize(("found", "like"), [("abcd", 1.0), ("abxd", 0.75), ("", 0.0), ("dcba", 0.25)])
def test_similarity_counts_characters_in_common(found: str, like: float) -> None:
    """Twice the longest common subsequence by the characters of both; two empty texts are alike."""
    assert similarity(found, "abcd") == like
    assert similarity("", "") == 1.0
