"""An answer whose stream is taken up again where it broke."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from ragmesh.gateway.v1 import answers_pb2
from ragmesh_client.connection import drained
from ragmesh_client.errors import NotFoundError, UnavailableError, cut_off
from ragmesh_client.events import Event, Failed, Final, Started, from_proto
from ragmesh_client.resuming import Patience

Call = grpc.aio.UnaryStreamCall[Any, Any]


async def told(call: Call) -> AsyncGenerator[Event, None]:
    """The events of a stream; a failure is yielded, then raised; a stream that ends without its last event raises."""
    async with aclosing(drained(call)) as responses:
        async for response in responses:
            event = from_proto(response.event)
            if event is None:
                continue
            yield event
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Final):
                return
    raise cut_off()


async def taken_up(
    ask: Callable[[float], Call],
    resume: Callable[[answers_pb2.ResumeAnswerRequest, float], Call],
    timeout_s: float,
    patience: Patience,
) -> AsyncGenerator[Event, None]:
    """The events of an answer, each once, over as many streams as it takes; both calls get the seconds left.

    Only a stream that breaks is taken up: an answer that failed has ended. A mesh that does not answer for longer than
    `patience` raises UnavailableError, and so does one that does not know the answer: it died too soon.
    """
    deadline_s, attempts = time.monotonic() + timeout_s, 0
    place, broken = answers_pb2.ResumeAnswerRequest(), cut_off()
    call = ask(timeout_s)
    while True:
        ended = False
        try:
            async with aclosing(told(call)) as events:
                async for event in events:
                    ended = isinstance(event, Failed)
                    attempts, place.after_sequence = 0, event.sequence
                    if isinstance(event, Started):
                        place.name = event.answer
                    yield event
            return
        except UnavailableError as error:
            attempts += 1
            if ended or not place.name or attempts >= patience.max_attempts:
                raise
            broken = error
        except NotFoundError:
            if not place.name:
                raise
            raise broken from None
        await asyncio.sleep(patience.wait_s(attempts))
        call = resume(place, max(deadline_s - time.monotonic(), 0.0))
