"""Holds a conversation on one stream: questions one at a time, each of which may be interrupted."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.answers import Question
from gateway.events import Numbered
from gateway.relaying import Relay
from meshkit.errors import InvalidArgument, MeshError


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Stops the answer that is being given."""


@dataclass(frozen=True, slots=True)
class _End:
    """The caller says no more: it left, or what it said last was wrong."""

    error: MeshError | None = None


Said = Question | Interrupt
_Heard = Said | _End


async def converse(
    said: AsyncIterator[Said], open_relay: Callable[[Question], Relay]
) -> AsyncGenerator[Numbered, None]:
    """The events of the answers to the caller's questions, until the caller has said all and was answered.

    An interrupt with nothing to stop is ignored: it crossed the answer's last event. Raises InvalidArgument
    OUT_OF_ORDER for a question asked while another is being answered, and what `said` and the answers raise.
    """
    async with _listening(said) as heard:
        message = await heard.get()
        while not isinstance(message, _End):
            if isinstance(message, Interrupt):
                message = await heard.get()
                continue
            async with open_relay(message) as relay, _following(heard, relay) as following:
                async for event in relay:
                    yield event
            message = await heard.get() if following.cancelled() else following.result()
        if message.error:
            raise message.error


@asynccontextmanager
async def _listening(said: AsyncIterator[Said]) -> AsyncIterator[asyncio.Queue[_Heard]]:
    """A queue of what the caller says, and at last _End; all but one message wait in gRPC's own buffers."""
    heard: asyncio.Queue[_Heard] = asyncio.Queue(1)
    listening = asyncio.create_task(_listen(said, heard))
    try:
        yield heard
    finally:
        listening.cancel()


async def _listen(said: AsyncIterator[Said], heard: asyncio.Queue[_Heard]) -> None:
    try:
        async for message in said:
            await heard.put(message)
    except MeshError as error:
        await heard.put(_End(error))
    else:
        await heard.put(_End())


@asynccontextmanager
async def _following(heard: asyncio.Queue[_Heard], relay: Relay) -> AsyncIterator[asyncio.Task[_Heard]]:
    """Acts on what is said during an answer; the task's result, if any, is what was said after it."""
    following = asyncio.create_task(_follow(heard, relay))
    try:
        yield following
    finally:
        # A cancelled `get` leaves its message in the queue; a task that is done keeps its result.
        following.cancel()
        await asyncio.wait({following})


async def _follow(heard: asyncio.Queue[_Heard], relay: Relay) -> _Heard:
    while True:
        message = await heard.get()
        if isinstance(message, Interrupt):
            relay.stop()
            return await heard.get()
        if relay.finished or message == _End():
            return message
        relay.stop(message.error if isinstance(message, _End) else _out_of_order())


def _out_of_order() -> InvalidArgument:
    text = "a question was asked while another was being answered; interrupt first"
    return InvalidArgument("OUT_OF_ORDER", text, metadata={"expected": "interrupt"})
