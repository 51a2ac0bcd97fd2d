"""The words that BM25 counts, of a chunk and of a query."""

import re

from retriever_svc.cutting import cut
from retriever_svc.index import Chunk, Language

_MAX_CONTEXT_CHARS = 256
_WORD = re.compile(r"\w+")
# Words of the grammar, as Lucene's list for English has them, and those that questions are asked with.
_LISTED = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with what which who whom whose when where why how did do does has have had were been from he she his "
    "her its can i you we our your my me him them us"
)
_STOP_WORDS = frozenset(_LISTED.split())


def words_of_chunk(chunk: Chunk) -> str:
    """The chunk's text under its title and headings, without which it may not say its subject, cut into words."""
    above = dict.fromkeys(words for words in (chunk.title, *chunk.heading_path) if words)
    context = " > ".join(words for words in above if not chunk.text.startswith(words))[:_MAX_CONTEXT_CHARS]
    return cut(f"{context}\n{chunk.text}" if context else chunk.text)


def words_of_query(language: Language, query: str) -> str:
    """The query cut into words; of an English one those that carry meaning, unless it has no others."""
    if language is not Language.ENGLISH:
        return cut(query)
    return cut(" ".join(word for word in _WORD.findall(query) if word.lower() not in _STOP_WORDS) or query)
