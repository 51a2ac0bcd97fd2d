"""The tools that search hand what they find to the answer, by number."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.retrieval import Found, Hit, Search
from gateway.toolbox.collection_search import CollectionSearch
from gateway.toolbox.web_search import WebSearch
from gateway.web import Page
from meshkit.errors import MeshError, not_found
from tests.gateway.in_memory import MemoryRetriever, hit


class Cited:
    """The hits of an answer that has two already."""

    def __init__(self) -> None:
        self.hits: list[Hit] = []

    def __call__(self, hits: Sequence[Hit]) -> Sequence[int]:
        first = len(self.hits) + 3
        self.hits += hits
        return range(first, first + len(hits))


class Shelves:
    """A retriever of several collections."""

    def __init__(self, **texts: Sequence[str]) -> None:
        self._texts = texts
        self.searches: list[Search] = []

    async def search(self, search: Search) -> Found:
        self.searches.append(search)
        name = search.collection.removeprefix("collections/")
        if name not in self._texts:
            raise not_found("collection", search.collection, "COLLECTION_NOT_FOUND")
        return Found(tuple(hit(place, text) for place, text in enumerate(self._texts[name][: search.top_k])))


class OnePage:
    async def search(self, query: str, limit: int) -> Sequence[Page]:
        return [Page("https://example.com/a", "A", f"About {query}: fünf.", 0.5)][:limit]


async def test_all_collections_are_searched_where_none_is_named() -> None:
    """The best of each comes first, and no more than asked for."""
    cited = Cited()
    tool = CollectionSearch(Shelves(hr=["a", "b"], it=["c"]), ["collections/hr", "collections/it"], 3, cited)
    assert await tool.call({"query": "leave"}) == "Found passages [3][4][5]."
    assert [found.chunk.text for found in cited.hits] == ["a", "c", "b"]


async def test_one_collection_is_searched_where_it_is_named() -> None:
    """The schema holds what may be named."""
    cited, shelves = Cited(), Shelves(hr=["a"], it=[])
    tool = CollectionSearch(shelves, ["collections/hr", "collections/it"], 3, cited)
    assert await tool.call({"query": "leave", "collection": "collections/it"}) == "Found nothing."
    assert [(asked.collection, asked.query, asked.top_k) for asked in shelves.searches] == [
        ("collections/it", "leave", 3)
    ]
    assert tool.tool.parameters_schema["properties"]["collection"]["enum"] == ["collections/hr", "collections/it"]


async def test_search_of_a_collection_that_is_not_there_fails() -> None:
    """The error is the retriever's own."""
    tool = CollectionSearch(Shelves(), ["collections/hr"], 3, Cited())
    with pytest.raises(MeshError, match="COLLECTION_NOT_FOUND"):
        await tool.call({"query": "leave"})


async def test_search_that_fails_leaves_no_other_behind() -> None:
    """The others are over when the tool is."""
    retriever = MemoryRetriever(special={"leave": None})

    class Mesh:
        async def search(self, search: Search) -> Found:
            if search.collection == "collections/gone":
                await asyncio.sleep(0)
                raise not_found("collection", search.collection, "COLLECTION_NOT_FOUND")
            return await retriever.search(search)

    tool = CollectionSearch(Mesh(), ["collections/hr", "collections/gone"], 3, Cited())
    with pytest.raises(MeshError, match="COLLECTION_NOT_FOUND"):
        await tool.call({"query": "leave"})
    assert retriever.cancelled == ["leave"]


async def test_page_of_the_web_is_a_passage_with_its_address() -> None:
    """It can be cited, by title and address; it is a chunk of no document of ours."""
    cited = Cited()
    assert await WebSearch(OnePage(), 3, cited).call({"query": "x" * 1000}) == "Found passages [3]."
    chunk = cited.hits[0].chunk
    assert chunk.text == f"About {'x' * 400}: fünf."
    assert (chunk.name, chunk.document, chunk.title, chunk.uri) == ("", "", "A", "https://example.com/a")
    assert chunk.source.end == len(chunk.text.encode())
