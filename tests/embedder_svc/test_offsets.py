"""From characters to UTF-8 bytes."""

import pytest

from embedder_svc.offsets import byte_ends


@pytest.mark.parametrize(
    ("text", "char_ends", "expected"),
    [
        ("", [], []),
        ("hello world", [5, 11], [5, 11]),
        ("caf\u00e9 au", [4, 7], [5, 8]),
        ("cafe\u0301", [5], [6]),
        ("\u4e16\u754c", [1, 2], [3, 6]),
        ("a\U0001f469\u200d\U0001f467b", [1, 2, 3, 4, 5], [1, 5, 8, 12, 13]),
        ("\U0001f600", [1, 1, 1], [4, 4, 4]),
        ("ab\u00fc", [2, 1, 3], [2, 2, 4]),
    ],
    ids=["empty", "ascii", "accent", "combining", "chinese", "joined-emoji", "parts-of-one", "stepping-back"],
)
def test_byte_ends(text: str, char_ends: list[int], expected: list[int]) -> None:
    """Characters of one to four bytes are counted as such, and ends never step back."""
    ends = byte_ends(text, char_ends)
    assert ends == expected
    assert all(text.encode()[:end].decode() in text for end in ends)
