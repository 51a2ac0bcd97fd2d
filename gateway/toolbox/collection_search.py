"""The tool that searches other collections."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from gateway.racing import Race
from gateway.retrieval import Hit, Retriever, Search
from gateway.tools import Tool

Cite = Callable[[Sequence[Hit]], Sequence[int]]


class CollectionSearch:
    """Searches the collections that the question allows; lives as long as one answer.

    What it finds is handed to `cite`, which lets the answer cite the hits and gives their numbers.
    """

    def __init__(self, retriever: Retriever, collections: Sequence[str], top_k: int, cite: Cite) -> None:
        self._retriever = retriever
        self._collections = tuple(collections)
        self._top_k = top_k
        self._cite = cite
        self.tool = Tool(
            "search",
            "Searches further collections of documents: one of them, or all where none is named.",
            {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "minLength": 1},
                    "collection": {"type": "string", "enum": list(self._collections)},
                },
                "required": ["query"],
            },
        )

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """The numbers of the passages found; raises what the search of a collection raises."""
        query: str = arguments["query"]
        collections = [arguments["collection"]] if "collection" in arguments else self._collections
        async with Race() as race:
            searches = (self._retriever.search(Search(name, query, self._top_k)) for name in collections)
            found = await asyncio.gather(*map(race.begin, searches))
        # Scores of different collections do not compare: the best of each, then the second of each.
        ranked = chain.from_iterable(zip_longest(*(each.hits for each in found)))
        return numbered(self._cite([hit for hit in ranked if hit][: self._top_k]))


def numbered(numbers: Sequence[int]) -> str:
    """What the model is told of passages found: their text stands among the passages."""
    return f"Found passages {''.join(f'[{number}]' for number in numbers)}." if numbers else "Found nothing."
