"""The web, searched by Tavily (https://docs.tavily.com/api-reference/endpoint/search)."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpcore
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from gateway.web import Page
from meshkit.errors import MeshError, ResourceExhausted, Unavailable, map_exceptions

_MAX_RESULTS = 20
_OK = 200


class _Result(BaseModel):
    model_config = ConfigDict(extra="ignore")

    url: str
    title: str = ""
    content: str = ""
    score: float = 0.0


class _Response(BaseModel):
    model_config = ConfigDict(extra="ignore")

    results: list[_Result]


@asynccontextmanager
async def open_tavily_web(
    url: str, key: SecretStr, timeout_s: float, max_bytes: int, max_connections: int
) -> AsyncIterator["TavilyWeb"]:
    """The web by the service at `url`, which is not asked until somebody searches."""
    async with httpcore.AsyncConnectionPool(max_connections=max_connections) as pool:
        yield TavilyWeb(pool, url, key, timeout_s, max_bytes)


class TavilyWeb:
    """Asks the service; made by `open_tavily_web`. An answer of more than `max_bytes` is none."""

    def __init__(
        self, pool: httpcore.AsyncConnectionPool, url: str, key: SecretStr, timeout_s: float, max_bytes: int
    ) -> None:
        self._pool = pool
        self._url = url
        self._key = key
        self._timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        self._max_bytes = max_bytes

    async def search(self, query: str, limit: int) -> Sequence[Page]:
        """As `Web.search`; at most 20 pages."""
        with map_exceptions(_FAILURES):
            answer = _Response.model_validate_json(await self._ask(query, min(limit, _MAX_RESULTS)))
        found = [Page(each.url, each.title, each.content, each.score) for each in answer.results if each.content]
        return found[:limit]

    async def _ask(self, query: str, limit: int) -> bytes:
        headers = {
            "accept-encoding": "identity",
            "authorization": f"Bearer {self._key.get_secret_value()}",
            "content-type": "application/json",
        }
        asked = json.dumps({"query": query, "max_results": limit}).encode()
        call = self._pool.stream(
            "POST", self._url, headers=list(headers.items()), content=asked, extensions={"timeout": self._timeouts}
        )
        async with call as response:
            if response.status != _OK:
                raise _failed(f"the web search refused, with status {response.status}")
            return await self._read(response)

    async def _read(self, response: httpcore.Response) -> bytes:
        data = b""
        async for received in response.aiter_stream():
            data += received
            if len(data) > self._max_bytes:
                raise _failed("the web search said more than is read")
        return data


def _failed(why: str) -> Unavailable:
    return Unavailable("TOOL_FAILED", why, metadata={"tool": "web_search"})


def _busy(_: Exception) -> MeshError:
    return ResourceExhausted("TOOL_FAILED", "too many web searches at once", metadata={"tool": "web_search"})


_FAILURES: Mapping[type[Exception], Callable[[Any], MeshError]] = {
    httpcore.PoolTimeout: _busy,
    httpcore.TimeoutException: lambda _: _failed("the web search is silent"),
    httpcore.NetworkError: lambda _: _failed("the web search cannot be reached"),
    httpcore.ProtocolError: lambda _: _failed("the web search went away"),
    ValidationError: lambda _: _failed("the web search said what cannot be read"),
}
