"""Pings on a silent connection, sent as Envoy sends them: gRPC's own client spaces them out by itself."""

import asyncio
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated
from h2.exceptions import ProtocolError

from meshkit.settings import ServerSettings
from meshkit.testing import serve
from tests.meshkit.probe import NAME, Echo, app_of

CALL = {
    ":method": "POST",
    ":path": f"/{NAME}/Chat",
    ":scheme": "http",
    ":authority": "mesh",
    "te": "trailers",
    "content-type": "application/grpc",
    "x-ragmesh-tenant": "acme",
    "x-ragmesh-subject": "alice",
}


async def outlives(address: str, pings: int, interval_s: float) -> bool:
    """Whether the connection of a call with nothing to say outlives so many pings."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    connection.send_headers(1, list(CALL.items()))
    try:
        for number in range(pings):
            connection.ping(number.to_bytes(8, "big"))
            writer.write(connection.data_to_send())
            await asyncio.sleep(interval_s)
            events = connection.receive_data(await reader.read(65536))
            if any(isinstance(event, ConnectionTerminated) for event in events):
                return False
    except ProtocolError:
        # h2 accepts nothing after a GOAWAY, and the call's own end may come in the same read.
        return False
    else:
        return True
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(("min_ping_interval_s", "kept"), [(0.02, True), (10.0, False)])
async def test_pings(wire: Any, min_ping_interval_s: float, kept: bool) -> None:
    """Pings no closer than the setting leave a silent stream alone; closer ones end its connection."""
    settings = ServerSettings(metrics_listen="", drain_grace_s=0, min_ping_interval_s=min_ping_interval_s)
    async with serve(app_of(wire, Echo(wire)), settings) as address:
        assert await outlives(address, pings=8, interval_s=0.04) is kept
