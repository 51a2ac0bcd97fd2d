"""Words of scripts that have no spaces between them: overlapping pairs of characters, and each alone.

Pairs as Lucene's CJKAnalyzer cuts them, and single characters for the words that are one; docs/quality.md compares.
"""

import re

# Han, kana and Hangul, with the extensions and compatibility forms of Han.
_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+")


def cut(text: str) -> str:
    """The text with each run of such characters replaced by its pairs and then its characters, spaces between."""
    return _RUN.sub(_pairs, text)


def _pairs(run: re.Match[str]) -> str:
    characters = run.group()
    pairs = (characters[place : place + 2] for place in range(len(characters) - 1))
    return f" {' '.join([*pairs, *characters])} "
