"""What calls carry from hop to hop, and how they end, over two servers in a row."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from meshkit import deadline, errors, identity, rpc, telemetry
from meshkit.channel import peer_errors, streaming
from meshkit.deadline import Deadline
from meshkit.settings import ChannelSettings, ServerSettings
from meshkit.testing import connect, serve
from tests.meshkit.probe import ALICE, KINDS, Echo, app_of, invoke


class Relay:
    """Answers each call with the peer's answer to it."""

    def __init__(self, wire: Any, channel: grpc.aio.Channel) -> None:
        self.peer = wire.ProbeServiceStub(channel)

    async def Say(self, request: Any, context: Any) -> Any:
        with peer_errors("back"):
            return await self.peer.Say(request)

    async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
        with peer_errors("back"):
            async with streaming(self.peer.Count(request)) as call:
                async for response in call:
                    yield response

    async def Collect(self, requests: Any, context: Any) -> Any:
        with peer_errors("back"):
            return await self.peer.Collect(requests)

    async def Chat(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        with peer_errors("back"):
            async with streaming(self.peer.Chat(requests)) as call:
                async for response in call:
                    yield response


@asynccontextmanager
async def two_hops(wire: Any, back: object, settings: ChannelSettings | None = None) -> AsyncIterator[grpc.aio.Channel]:
    """A channel for Alice to a relay before `back`."""
    async with (
        serve(app_of(wire, back)) as back_address,
        connect(back_address, settings=settings) as between,
        serve(app_of(wire, Relay(wire, between))) as address,
        connect(address, ALICE) as channel,
    ):
        yield channel


class Telling(Echo):
    """Answers with what `tell` says inside the handler."""

    def __init__(self, wire: Any, tell: Any) -> None:
        super().__init__(wire)
        self.tell = tell

    async def seen(self, request: Any, context: Any) -> Any:
        return self.wire.ProbeResponse(text=str(self.tell()))


class Waiting(Echo):
    """Waits until it is ended, and keeps when it began and ended."""

    def __init__(self, wire: Any) -> None:
        super().__init__(wire)
        self.began, self.ended = asyncio.Event(), asyncio.Event()

    async def seen(self, request: Any, context: Any) -> Any:
        self.began.set()
        try:
            await asyncio.sleep(30)
        finally:
            self.ended.set()


def remaining_s() -> float:
    """The time that the handler has."""
    limit = deadline.current()
    return limit.remaining_s() if limit else -1.0


@pytest.mark.parametrize("kind", KINDS)
async def test_deadline_passed_on(wire: Any, kind: str) -> None:
    """The second hop sees the caller's deadline less the margin of the hop before it."""
    settings = ChannelSettings(deadline_margin_s=0.5)
    async with two_hops(wire, Telling(wire, remaining_s), settings) as channel:
        (response,) = await invoke(channel, wire, kind, wire.ProbeRequest(), timeout=2.0)
    assert 1.2 < float(response.text) < 1.6  # gRPC rounds a deadline up on the wire


async def test_no_time_left(wire: Any) -> None:
    """With no time left a call fails at once and the peer never hears of it."""
    back = Echo(wire)
    async with serve(app_of(wire, back)) as address, connect(address, ALICE) as channel:
        for kind in KINDS:
            with deadline.using(Deadline.after(0.005)), pytest.raises(errors.DeadlineExceeded):
                await invoke(channel, wire, kind, wire.ProbeRequest())
    assert back.calls == 0


@pytest.mark.parametrize("kind", ["client_stream", "bidi_stream"])
async def test_refusal_during_a_write(wire: Any, kind: str) -> None:
    """A peer that refuses while messages are being sent is heard, each time, over the write that failed."""

    async def large(channel: grpc.aio.Channel) -> None:
        async def requests() -> AsyncIterator[Any]:
            for _ in range(5):
                yield wire.ProbeRequest(text="x" * 200_000)

        stub = wire.ProbeServiceStub(channel)
        with peer_errors("back"):
            if kind == "client_stream":
                await stub.Collect(requests())
            else:
                async for _ in stub.Chat(requests()):
                    pass

    reasons = set()
    async with serve(app_of(wire, Echo(wire))) as address:
        for _ in range(40):
            async with connect(address) as stranger:
                with pytest.raises(errors.Unauthenticated) as refused:
                    await large(stranger)
            reasons.add(refused.value.reason)
    assert reasons == {"IDENTITY_MISSING"}


async def test_own_timeout(wire: Any) -> None:
    """A timeout given with a call shortens the current deadline and never lengthens it."""
    async with serve(app_of(wire, Telling(wire, remaining_s))) as address, connect(address, ALICE) as channel:
        with deadline.using(Deadline.after(2.0)):
            (shorter,) = await invoke(channel, wire, "unary", wire.ProbeRequest(), timeout=1.0)
            (longer,) = await invoke(channel, wire, "unary", wire.ProbeRequest(), timeout=9.0)
    assert 0.5 < float(shorter.text) < 1.1
    assert 1.5 < float(longer.text) < 2.1


async def test_default_deadline(wire: Any) -> None:
    """A call made while none is served gets the channel's default deadline."""
    settings = ChannelSettings(default_deadline_s=3.0)
    async with (
        serve(app_of(wire, Telling(wire, remaining_s))) as address,
        connect(address, ALICE, settings) as channel,
    ):
        (response,) = await invoke(channel, wire, "unary", wire.ProbeRequest())
    assert 2.0 < float(response.text) < 3.1


@pytest.mark.parametrize("kind", KINDS)
async def test_cancellation_passed_on(wire: Any, kind: str) -> None:
    """When the caller leaves, the second hop's handler is cleaned up within 100 ms."""
    back = Waiting(wire)
    async with two_hops(wire, back) as channel:
        call = asyncio.create_task(invoke(channel, wire, kind, wire.ProbeRequest()))
        await asyncio.wait_for(back.began.wait(), 5)
        left = time.perf_counter()
        call.cancel()
        await asyncio.wait_for(back.ended.wait(), 5)
    assert time.perf_counter() - left < 0.1


async def test_leaving_a_stream_early(wire: Any) -> None:
    """Who leaves the body of `streaming` frees the peer at once, though the call is still referenced."""
    ended = asyncio.Event()

    class Endless(Echo):
        async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                while True:
                    yield self.wire.ProbeResponse(text="more")
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

    async with serve(app_of(wire, Endless(wire))) as address, connect(address, ALICE) as channel:
        async with streaming(wire.ProbeServiceStub(channel).Count(wire.ProbeRequest())) as call:
            async for response in call:
                assert response.text == "more"
                break
        await asyncio.wait_for(ended.wait(), 0.1)
        assert call.cancelled()


@pytest.mark.parametrize("kind", KINDS)
async def test_identity_passed_on(wire: Any, kind: str) -> None:
    """The second hop acts for the first caller."""
    async with two_hops(wire, Telling(wire, identity.current)) as channel:
        (response,) = await invoke(channel, wire, kind, wire.ProbeRequest())
    assert response.text == repr(ALICE)


async def test_acting_as(wire: Any) -> None:
    """A worker's calls act for the identity that it took up, before the channel's own."""
    bob = identity.Identity("globex", "bob")
    async with (
        serve(app_of(wire, Telling(wire, identity.current))) as address,
        connect(address, ALICE) as channel,
    ):
        with identity.acting_as(bob):
            (response,) = await invoke(channel, wire, "unary", wire.ProbeRequest())
    assert response.text == repr(bob)


async def test_request_id_passed_on(wire: Any) -> None:
    """Every hop shares the caller's request id; one that is not of its form is replaced."""

    def request_id() -> str:
        call = rpc.current()
        return call.request_id if call else ""

    async with two_hops(wire, Telling(wire, request_id)) as channel:
        (given,) = await invoke(channel, wire, "unary", wire.ProbeRequest(), metadata=(("x-request-id", "r-17"),))
        (bad,) = await invoke(channel, wire, "unary", wire.ProbeRequest(), metadata=(("x-request-id", "r 17"),))
    assert given.text == "r-17"
    assert len(bad.text) == 32


async def test_trace_passed_on(wire: Any) -> None:
    """The second hop's span belongs to the trace that the caller began."""
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with two_hops(wire, Telling(wire, telemetry.trace_ids)) as channel:
        (response,) = await invoke(channel, wire, "unary", wire.ProbeRequest(), metadata=(("traceparent", parent),))
    assert "4bf92f3577b34da6a3ce929d0e0e4736" in response.text
    assert "00f067aa0ba902b7" not in response.text


@pytest.mark.parametrize("kind", KINDS)
async def test_details_over_two_hops(wire: Any, kind: str) -> None:
    """An error's details survive two hops."""
    raised = errors.invalid("texts[3]", "is too long")

    class Refusing(Echo):
        async def seen(self, request: Any, context: Any) -> Any:
            raise raised

    async with two_hops(wire, Refusing(wire)) as channel:
        with pytest.raises(errors.InvalidArgument) as caught, peer_errors():
            await invoke(channel, wire, kind, wire.ProbeRequest())
    assert vars(caught.value) == vars(raised)


@pytest.mark.parametrize("kind", KINDS)
async def test_peer_that_is_not_there(wire: Any, kind: str, unused_tcp_port: int) -> None:
    """A peer that cannot be reached is UNAVAILABLE, named, and without the transport's words."""
    async with (
        connect(f"127.0.0.1:{unused_tcp_port}") as between,
        serve(app_of(wire, Relay(wire, between))) as address,
        connect(address, ALICE, ChannelSettings(retry_attempts=1)) as channel,
    ):
        with pytest.raises(errors.Unavailable) as caught, peer_errors():
            await invoke(channel, wire, kind, wire.ProbeRequest())
    assert (caught.value.reason, caught.value.metadata) == ("PEER_UNAVAILABLE", {"peer": "back"})
    assert str(unused_tcp_port) not in caught.value.message


async def test_peer_comes_back(wire: Any, unused_tcp_port: int) -> None:
    """A channel finds a restarted peer again within seconds, with no help."""
    settings = ServerSettings(listen=f"127.0.0.1:{unused_tcp_port}", metrics_listen="", drain_grace_s=0)
    app = app_of(wire, Echo(wire))
    async with connect(f"127.0.0.1:{unused_tcp_port}", ALICE) as channel:
        async with serve(app, settings):
            await invoke(channel, wire, "unary", wire.ProbeRequest())
        with pytest.raises(errors.Unavailable), peer_errors():
            await invoke(channel, wire, "unary", wire.ProbeRequest())
        async with serve(app, settings):
            await invoke(channel, wire, "unary", wire.ProbeRequest(), wait_for_ready=True, timeout=5.0)


@pytest.mark.parametrize(("code", "calls"), [("UNAVAILABLE", 3), ("ABORTED", 1), ("RESOURCE_EXHAUSTED", 1)])
async def test_retries(wire: Any, code: str, calls: int) -> None:
    """UNAVAILABLE is tried again up to the number of attempts; nothing else is."""

    class Refusing(Echo):
        async def seen(self, request: Any, context: Any) -> Any:
            self.calls += 1
            await context.abort(grpc.StatusCode[code], "no")

    servicer = Refusing(wire)
    settings = ChannelSettings(retry_attempts=3, retry_backoff_s=0.01, retry_backoff_max_s=0.02)
    async with serve(app_of(wire, servicer)) as address, connect(address, ALICE, settings) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await invoke(channel, wire, "unary", wire.ProbeRequest())
    assert caught.value.code() is grpc.StatusCode[code]
    assert servicer.calls == calls


async def test_large_answer(wire: Any) -> None:
    """An answer larger than its caller takes has a reason."""
    settings = ChannelSettings(max_message_bytes=1000)
    async with (
        serve(app_of(wire, Telling(wire, lambda: "x" * 5000))) as address,
        connect(address, ALICE, settings) as channel,
    ):
        with pytest.raises(errors.ResourceExhausted, match="TOO_LARGE"), peer_errors():
            await invoke(channel, wire, "unary", wire.ProbeRequest())


async def test_plain_caller(wire: Any) -> None:
    """A channel of gRPC's own gets the status in the standard trailer, which other languages read."""
    async with serve(app_of(wire, Echo(wire))) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await invoke(channel, wire, "unary", wire.ProbeRequest())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "grpc-status-details-bin" in dict(caught.value.trailing_metadata())
