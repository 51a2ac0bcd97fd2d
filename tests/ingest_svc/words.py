"""A tokenizer for tests: words and single CJK characters, with the byte after each in the UTF-8 text."""

import re

_TOKENS = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+|[^\w\s]")


def token_ends(text: str) -> list[int]:
    """The byte after each token's last one."""
    ends, place, size = [], 0, 0
    for found in _TOKENS.finditer(text):
        size += len(text[place : found.end()].encode())
        place = found.end()
        ends.append(size)
    return ends
