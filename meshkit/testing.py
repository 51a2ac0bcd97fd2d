"""An app served over a real loopback channel, for tests of services."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
from opentelemetry.sdk.trace import SpanProcessor

from meshkit.channel import open_channel
from meshkit.identity import Identity
from meshkit.server import App, open_server
from meshkit.settings import ChannelSettings, ServerSettings

# A test's end does not wait for calls that it left open.
_GRACE_S = 0.2


@asynccontextmanager
async def serve(
    app: App, settings: ServerSettings | None = None, processors: Sequence[SpanProcessor] = ()
) -> AsyncIterator[str]:
    """Serve the app on a free port of the loopback and yield its address, host:port."""
    settings = settings or ServerSettings(metrics_listen="", drain_grace_s=_GRACE_S)
    async with open_server(settings, app, processors) as server:
        yield f"127.0.0.1:{server.port}"


@asynccontextmanager
async def connect(
    address: str, identity: Identity | None = None, settings: ChannelSettings | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the address whose calls act for `identity`; without one they carry none."""
    async with open_channel(address, settings, identity) as channel:
        yield channel
