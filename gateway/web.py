"""What the gateway asks of a search engine of the web."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the web: what of its text goes with the query, and how well, from 0 to 1."""

    url: str
    title: str
    text: str
    score: float


class Web(Protocol):
    """Searches the web."""

    async def search(self, query: str, limit: int) -> Sequence[Page]:
        """At most `limit` pages, best first; raises MeshError TOOL_FAILED."""
        ...
