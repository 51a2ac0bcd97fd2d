"""The journals of answers in Redis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json
from redis.asyncio import Redis

from gateway.answers import Answer, Citation, Grounding
from gateway.events import Event, Failed, Heartbeat, Numbered, Retrieved, Stage, Started, Token
from gateway.failures import Failure
from gateway.generation import Usage
from gateway.journal import Background, Opening, Part
from gateway.tools import ToolCall, ToolResult
from meshkit.identity import Identity
from meshkit.redis_store import store_errors

_OPENING = TypeAdapter(Opening)
_BACKGROUND = TypeAdapter(Background)
# Tokens, which are many, stand by themselves, and so do failures, which hold an exception.
_KINDS: Mapping[str, TypeAdapter[Any]] = MappingProxyType(
    {
        kind.__name__: TypeAdapter(kind)
        for kind in (Started, Stage, Retrieved, Citation, ToolCall, ToolResult, Grounding, Usage, Heartbeat, Answer)
    }
)


@dataclass(frozen=True, slots=True)
class RedisJournal:
    """Each answer's parts as a list of JSON under a key that holds tenant and subject, for `ttl_s` after the last."""

    redis: Redis
    ttl_s: int

    async def add(self, parts: Sequence[Part]) -> None:
        with store_errors():
            async with self.redis.pipeline(transaction=False) as pipeline:
                for part in parts:
                    key = _key(part.owner, part.answer)
                    pipeline.rpush(key, _dump(part))
                    pipeline.expire(key, self.ttl_s)
                await pipeline.execute()

    async def read(self, owner: Identity, answer: str, begin: int = 0) -> Sequence[Part]:
        with store_errors():
            kept = await self.redis.lrange(_key(owner, answer), begin, -1)
        return [_load(owner, answer, part) for part in cast(list[str], kept)]

    async def live(self, producer: str, for_s: float) -> None:
        with store_errors():
            await self.redis.set(_life(producer), "", px=math.ceil(1000 * for_s))

    async def lives(self, producer: str) -> bool:
        with store_errors():
            return bool(await self.redis.exists(_life(producer)))


def _dump(part: Part) -> bytes:
    opening = _OPENING.dump_json(part.opening) if part.opening else b"null"
    background = _BACKGROUND.dump_json(part.background) if part.background else b"null"
    return b"[%b,[%b],%b]" % (opening, b",".join(map(_row, part.events)), background)


def _row(numbered: Numbered) -> bytes:
    event = numbered.event
    if isinstance(event, Token):
        return to_json((numbered.sequence, numbered.elapsed_s, event.text, event.token_count))
    kind = type(event).__name__
    if isinstance(event, Failed):
        error = event.error
        said = (kind, None, error.code, error.reason, error.message, error.metadata)
        return to_json((numbered.sequence, numbered.elapsed_s, *said))
    data = _KINDS[kind].dump_json(event, warnings=False)
    return b'[%d,%f,"%b",null,%b]' % (numbered.sequence, numbered.elapsed_s, kind.encode(), data)


def _load(owner: Identity, answer: str, kept: str) -> Part:
    opening, rows, background = from_json(kept)
    return Part(
        owner,
        answer,
        tuple(Numbered(sequence, elapsed_s, _event(*row)) for sequence, elapsed_s, *row in rows),
        _OPENING.validate_python(opening) if opening else None,
        _BACKGROUND.validate_python(background) if background else None,
    )


def _event(what: str, token_count: int | None, *rest: Any) -> Event:
    if token_count is not None:
        return Token(what, token_count)
    if what == Failed.__name__:
        code, reason, message, metadata = rest
        return Failed(Failure(code, reason, message).error(metadata))
    return cast(Event, _KINDS[what].validate_python(rest[0]))


def _key(owner: Identity, answer: str) -> str:
    return f"ragmesh:{owner.tenant}:journal:{owner.subject}:{answer}"


# No tenant has a name with an underscore.
def _life(producer: str) -> str:
    return f"ragmesh:_gateway:lives:{producer}"
