"""The web search speaks Tavily's API to a server, within bounds of bytes and time."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from gateway.tavily_web import TavilyWeb, open_tavily_web
from gateway.web import Page
from meshkit.errors import MeshError
from tests.gateway.web_upstream import Upstream


@asynccontextmanager
async def _searching(upstream: Upstream, timeout_s: float = 5.0, max_bytes: int = 10_000) -> AsyncIterator[TavilyWeb]:
    async with (
        upstream.serving() as url,
        open_tavily_web(url, SecretStr("tvly-secret"), timeout_s, max_bytes, 2) as web,
    ):
        yield web


async def test_pages_come_as_the_service_orders_them() -> None:
    """The key goes in the header; pages without text are left out, unknown fields ignored."""
    upstream = Upstream()
    results = [
        {"url": "https://example.com/a", "title": "A", "content": "fünf", "score": 0.9, "favicon": "x"},
        {"url": "https://example.com/b", "title": "B", "content": ""},
        {"url": "https://example.com/c", "content": "six"},
    ]
    upstream.body = json.dumps({"query": "q", "results": results, "response_time": "1.09"}).encode()
    async with _searching(upstream) as web:
        pages = await web.search("how many?", 5)
    assert pages == [Page("https://example.com/a", "A", "fünf", 0.9), Page("https://example.com/c", "", "six", 0.0)]
    ((head, body),) = upstream.asked
    assert head.startswith("POST /search HTTP/1.1\r\n")
    assert "authorization: Bearer tvly-secret\r\n" in head
    assert body == {"query": "how many?", "max_results": 5}


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        ("401 Unauthorized", b'{"detail": {"error": "tvly-secret"}}', "status 401"),
        ("432 Limit", b"", "status 432"),
        ("302 Found", b"", "status 302"),
        ("200 OK", b"<html>", "cannot be read"),
        ("200 OK", b'{"results": [{"title": "no url"}]}', "cannot be read"),
        ("200 OK", b'{"results": [' + b" " * 10_000, "more than is read"),
    ],
)
async def test_answer_that_is_none_fails(status: str, body: bytes, why: str) -> None:
    """A refusal, an answer that is too long and one that nobody can read fail, without the key."""
    upstream = Upstream()
    upstream.status, upstream.body = status, body
    async with _searching(upstream) as web:
        with pytest.raises(MeshError, match=why) as raised:
            await web.search("q", 5)
    assert raised.value.reason == "TOOL_FAILED"
    assert "secret" not in raised.value.message


async def test_silent_service_fails() -> None:
    """Nobody waits for ever."""
    upstream = Upstream()
    upstream.silent = True
    async with _searching(upstream, timeout_s=0.05) as web:
        with pytest.raises(MeshError, match="silent"):
            await web.search("q", 5)


async def test_service_that_is_away_fails() -> None:
    """A refused connection is a failure of the tool."""
    async with _searching(Upstream()) as web:
        pass
    async with open_tavily_web(web._url, SecretStr("k"), 1.0, 100, 2) as away:
        with pytest.raises(MeshError, match="cannot be reached"):
            await away.search("q", 5)
