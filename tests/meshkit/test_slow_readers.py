"""What a server does about readers that leave or stall, and about those that are merely quiet."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from meshkit import errors
from meshkit.channel import peer_errors
from meshkit.settings import ServerSettings
from meshkit.testing import connect, serve
from tests.meshkit.probe import ALICE, Echo, app_of, invoke

SETTINGS: dict[str, Any] = {"metrics_listen": "", "drain_grace_s": 0.2}


class Pouring(Echo):
    """Writes without end, whether anybody reads or not, and notes that it was ended."""

    def __init__(self, wire: Any) -> None:
        super().__init__(wire)
        self.ended = asyncio.Event()

    async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield self.wire.ProbeResponse(text="x" * 60000)
        finally:
            self.ended.set()


async def test_reader_that_leaves_a_blocked_writer(wire: Any) -> None:
    """A handler blocked in a write is cleaned up as soon as its reader leaves."""
    pouring = Pouring(wire)
    async with serve(app_of(wire, pouring)) as address, connect(address, ALICE) as channel:
        call = wire.ProbeServiceStub(channel).Count(wire.ProbeRequest())
        await call.read()
        await asyncio.sleep(0.2)
        assert not pouring.ended.is_set()
        call.cancel()
        await asyncio.wait_for(pouring.ended.wait(), 0.2)


async def test_reader_that_stalls(wire: Any) -> None:
    """Who takes nothing for longer than allowed is cut off with READER_STALLED; the handler does not wait for it."""
    pouring = Pouring(wire)
    settings = ServerSettings(**SETTINGS, max_stall_s=0.3)
    async with serve(app_of(wire, pouring), settings) as address, connect(address, ALICE) as channel:
        call = wire.ProbeServiceStub(channel).Count(wire.ProbeRequest())
        await call.read()
        await asyncio.wait_for(pouring.ended.wait(), 1.0)
        with pytest.raises(errors.Aborted) as caught, peer_errors():
            while await call.read() is not grpc.aio.EOF:
                pass

    assert (caught.value.reason, caught.value.metadata) == ("READER_STALLED", {"limit_s": "0.3"})


async def test_silence_is_no_stall(wire: Any) -> None:
    """Only a write that lasts counts: a handler that says little, to a reader who takes it, may take its time."""

    class Quiet(Echo):
        async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
            for _ in range(request.number):
                await asyncio.sleep(0.35)
                yield self.wire.ProbeResponse()

    settings = ServerSettings(**SETTINGS, max_stall_s=0.3)
    async with serve(app_of(wire, Quiet(wire)), settings) as address, connect(address, ALICE) as channel:
        responses = await invoke(channel, wire, "server_stream", wire.ProbeRequest(number=2))
    assert len(responses) == 2
