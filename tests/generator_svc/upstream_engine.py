"""The engine that asks an upstream, over a scripted one, and what tests ask of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from pydantic import SecretStr

from generator_svc.engine import Chat, Delta, Message, Request
from generator_svc.openai_engine import OpenAIEngine, OpenAIOptions, open_openai_engine
from tests.generator_svc.scripted_upstream import Exchange, Script, scripted_upstream

CHAT = Chat([Message("system", "Be brief."), Message("user", "Hello?")])
KEY = "sk-very-secret"
REFUSED = {"error": {"message": f"no, {KEY}", "type": "invalid_request_error", "param": "stop"}}


@asynccontextmanager
async def engine_for(url: str, **options: Any) -> AsyncIterator[OpenAIEngine]:
    """An engine of the upstream."""
    known = {"upstream_api_key": SecretStr(KEY), "upstream_timeout_s": 2.0, "upstream_check_interval_s": 0.01}
    async with open_openai_engine(OpenAIOptions(url, **{**known, **options})) as engine:
        yield engine


@asynccontextmanager
async def engine_over(script: Script, **options: Any) -> AsyncIterator[OpenAIEngine]:
    """An engine whose upstream answers by the script."""
    async with scripted_upstream(script) as upstream, engine_for(upstream.url, **options) as engine:
        yield engine


async def read(engine: OpenAIEngine, **fields: Any) -> list[Delta]:
    """All deltas of one request."""
    request = Request(**{"id": "one", "input": CHAT, **fields})
    async with asyncio.timeout(10), aclosing(engine.generate(await engine.prepare(request))) as deltas:
        return [delta async for delta in deltas]


def saying(*parts: Any, done: bool = True, **head: Any) -> Script:
    """The script that answers with these parts, whatever is asked."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(**head)
        await exchange.send(*parts)
        await exchange.end(done=done)

    return script


def refusing(status: int, body: Any = None, **headers: str) -> Script:
    """The script that refuses."""

    async def script(exchange: Exchange) -> None:
        await exchange.refuse(status, body, **headers)

    return script
