"""The tool that searches the web."""

from collections.abc import Mapping
from typing import Any

from gateway.retrieval import Chunk, Hit, Span
from gateway.toolbox.collection_search import Cite, numbered
from gateway.tools import Tool
from gateway.web import Page, Web

# What such services take.
_MAX_QUERY_CHARS = 400


class WebSearch:
    """Searches the web; lives as long as one answer. A page is cited by its address; it is in no collection."""

    tool = Tool(
        "web_search",
        "Searches the web, for what the asker's own documents cannot hold: news, prices, the world outside.",
        {
            "type": "object",
            "properties": {"query": {"type": "string", "minLength": 1}},
            "required": ["query"],
        },
    )

    def __init__(self, web: Web, top_k: int, cite: Cite) -> None:
        self._web = web
        self._top_k = top_k
        self._cite = cite

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """The numbers of the passages found; raises MeshError TOOL_FAILED."""
        pages = await self._web.search(arguments["query"][:_MAX_QUERY_CHARS], self._top_k)
        return numbered(self._cite([_hit(page) for page in pages]))


def _hit(page: Page) -> Hit:
    span = Span(0, len(page.text.encode()))
    return Hit(Chunk("", "", page.text, span, title=page.title, uri=page.url), page.score)
