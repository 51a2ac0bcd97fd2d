"""Channels to peers: what every call carries on, how it is retried, and how its end is made certain."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, Self, TypeVar

import grpc

from meshkit import deadline, rpc, status, telemetry
from meshkit.errors import DeadlineExceeded
from meshkit.identity import Identity, current_or_none, to_metadata
from meshkit.settings import ChannelSettings


class _Cancellable(Protocol):
    def cancel(self) -> bool: ...


_Call = TypeVar("_Call", bound=_Cancellable)


@asynccontextmanager
async def open_channel(
    target: str, settings: ChannelSettings | None = None, identity: Identity | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `target` (host:port or any gRPC name); open it in the loop that uses it.

    Its calls carry on the deadline, identity, trace and request id of the call being served. `identity` is
    who the calls act for where none is being served.
    """
    async with make_channel(target, settings, identity) as channel:
        yield channel


def make_channel(
    target: str, settings: ChannelSettings | None = None, identity: Identity | None = None
) -> "MeshChannel":
    """The channel that `open_channel` opens, for who closes it elsewhere."""
    settings = settings or ChannelSettings()
    return MeshChannel(grpc.aio.insecure_channel(target, options=_options(settings)), settings, identity)


@asynccontextmanager
async def streaming(call: _Call) -> AsyncIterator[_Call]:
    """The call, cancelled when the body ends: who leaves a stream early frees the peer at once."""
    try:
        yield call
    finally:
        call.cancel()


@contextmanager
def peer_errors(peer: str = "") -> Iterator[None]:
    """Turn a peer's failure into the error that it sent; `peer` names the service called."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise status.from_rpc_error(error, peer) from error


class MeshChannel(grpc.aio.Channel):
    """A channel whose calls carry the current context on; `close` it, or leave its context.

    It wraps the four kinds of callable rather than adding gRPC's interceptors, which put a task before each
    call and a generator around each stream: here the caller holds the call itself, and `cancel` reaches it at
    once.
    """

    def __init__(self, channel: grpc.aio.Channel, settings: ChannelSettings, identity: Identity | None) -> None:
        self._channel = channel
        self._settings = settings
        self._identity = identity

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A callable for a method with one request and one response."""
        return self._carrying(self._channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A callable for a method with one request and a stream of responses."""
        return self._carrying(self._channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A callable for a method with a stream of requests and one response."""
        return self._carrying(_peers_own_status(self._channel.stream_unary(*args, **kwargs)))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A callable for a method with streams both ways."""
        return self._carrying(_peers_own_status(self._channel.stream_stream(*args, **kwargs)))

    def _carrying(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def carrying(
            *args: Any,
            timeout: float | None = None,
            metadata: Iterable[tuple[str, str | bytes]] | None = None,
            **kwargs: Any,
        ) -> Any:
            return call(*args, timeout=self._timeout_s(timeout), metadata=self._metadata(metadata or ()), **kwargs)

        return carrying

    def _timeout_s(self, asked_s: float | None) -> float:
        """The time for a call; raises DeadlineExceeded where none is left."""
        limit = deadline.current()
        if limit is None:
            return self._settings.default_deadline_s if asked_s is None else asked_s
        left_s = limit.less(self._settings.deadline_margin_s).remaining_s()
        if left_s == 0:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "no time is left for the next call")
        return left_s if asked_s is None else min(asked_s, left_s)

    def _metadata(self, given: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str | bytes], ...]:
        acting = current_or_none() or self._identity
        call = rpc.current()
        carried = [
            *(to_metadata(acting) if acting else ()),
            *telemetry.trace_metadata(),
            *([(rpc.REQUEST_ID_KEY, call.request_id)] if call else ()),
        ]
        named = dict(given)
        return (*named.items(), *((key, value) for key, value in carried if key not in named))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def idle(self) -> None:
        """Return when no call is under way."""
        # gRPC's own record: its `close` waits for calls too, but is not over sooner for being cancelled.
        while calls := list(self._channel._active_calls):  # type: ignore[attr-defined] # noqa: SLF001
            await asyncio.gather(*(call.code() for call in calls), return_exceptions=True)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel to new calls at once, cancelling the calls that are left after `grace` seconds."""
        await self._channel.close(grace)

    def get_state(  # gRPC's own signature
        self,
        try_to_connect: bool = False,  # noqa: FBT001, FBT002
    ) -> grpc.ChannelConnectivity:
        """The state of the connection."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when the connection is in another state."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Return when the connection is ready."""
        await self._channel.channel_ready()


def _peers_own_status(make: Callable[..., Any]) -> Callable[..., Any]:
    """Calls that end with the status that the peer sent, also where it came while a message was being written."""

    def made(*args: Any, **kwargs: Any) -> Any:
        call = make(*args, **kwargs)
        call._cython_call = _Core(call._cython_call)  # noqa: SLF001 - nothing public reaches it
        return call

    return made


class _Core:
    """gRPC's core of a call, less one thing; lives as long as the call.

    Where a message cannot be written any more, because the peer has refused the call, grpc.aio sets INTERNAL as its
    status and forgets the peer's. Without that the failed write waits for the peer's status and raises it.
    """

    def __init__(self, core: Any) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def set_internal_error(self, _details: str) -> None:
        """Leave the status to the peer."""


def _options(settings: ChannelSettings) -> list[tuple[str, Any]]:
    return [
        ("grpc.service_config", json.dumps(_service_config(settings))),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_timeout_s)),
        # A stream may be silent for long: without this gRPC stops pinging it after two pings.
        ("grpc.http2.max_pings_without_data", 0),
        # gRPC's own backoff grows to two minutes: a restarted peer would stay lost for as long.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", _ms(settings.reconnect_backoff_max_s)),
        # Connections are this channel's own, so that closing it closes them.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def _service_config(settings: ChannelSettings) -> dict[str, Any]:
    method: dict[str, Any] = {"name": [{}]}
    if settings.retry_attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": settings.retry_attempts,
            "initialBackoff": f"{settings.retry_backoff_s:.3f}s",
            "maxBackoff": f"{settings.retry_backoff_max_s:.3f}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [method],
        # While more than half of the calls fail, retries stop: three hops that retry make 27 calls of one.
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
