"""From places in characters, as tokenizers count, to places in UTF-8 bytes, as the contract counts."""

from collections.abc import Sequence

import numpy as np

# The first code points that take two, three and four bytes.
_FIRST_OF_WIDER = np.array([0x80, 0x800, 0x10000], dtype="<u4")


def byte_ends(text: str, char_ends: Sequence[int]) -> list[int]:
    """The byte after each character range's last one, ascending.

    A token that is a part of a character ends with the character, so text cut at any end is valid UTF-8.
    """
    if not char_ends:
        return []
    # Normalisers may put a combining mark's token before its base: ends never step back.
    ends = np.maximum.accumulate(np.asarray(char_ends))
    if text.isascii():
        return [int(end) for end in ends]
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    widths = 1 + np.searchsorted(_FIRST_OF_WIDER, codes, side="right")
    starts = np.concatenate(([0], np.cumsum(widths)))
    return [int(end) for end in starts[ends]]
