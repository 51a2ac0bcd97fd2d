"""A pool of HTTP connections on which a request that is left ends at the upstream too, over HTTP/2 as over HTTP/1.1."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import h11
import httpcore
from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.exceptions import ProtocolError

_RESET_TIMEOUT_S = 1.0


class ResetPool(httpcore.AsyncConnectionPool):
    """httpcore's pool; enter it to open it, leave it to close its connections.

    Over HTTP/1.1 httpcore closes the connection of a response that is not read to its end. Over HTTP/2 it stops
    listening and tells neither the server, which goes on, nor h2, which allows no more streams after a hundred.
    """

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """A connection that resets what is left."""
        return _Connection(
            origin=origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            http1=self._http1,
            http2=self._http2,
        )


class _Connection(httpcore.AsyncHTTPConnection):
    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        async with self._request_lock:
            if self._connection is None:
                await self._open(request)
        return await super().handle_async_request(request)

    async def _open(self, request: httpcore.Request) -> None:
        try:
            stream = await self._connect(request)
        except BaseException:
            # What the pool asks before it lets go of a connection.
            self._connect_failed = True
            raise
        tls = stream.get_extra_info("ssl_object")
        http2 = tls.selected_alpn_protocol() == "h2" if tls else not self._http1
        kind = _Http2Connection if http2 else _Http1Connection
        self._connection = kind(origin=self._origin, stream=stream, keepalive_expiry=self._keepalive_expiry)


class _Http1Connection(httpcore.AsyncHTTP11Connection):
    async def _receive_response_body(self, request: httpcore.Request) -> AsyncIterator[bytes]:
        """What was read at once in one piece, however many chunks it came in: each token is one."""
        timeout_s = request.extensions.get("timeout", {}).get("read")
        while True:
            event: object = await self._receive_event(timeout=timeout_s)
            data = bytearray()
            # What is malformed behind good data is found again, and raised, by the next call.
            with suppress(h11.RemoteProtocolError):
                while isinstance(event, h11.Data):
                    data += event.data
                    event = self._h11_state.next_event()
            if data:
                yield bytes(data)
            if isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
                return


class _Http2Connection(httpcore.AsyncHTTP2Connection):
    async def _response_closed(self, stream_id: int) -> None:
        # What has come and was not read counts against the window that all streams share.
        for event in self._events[stream_id]:
            if isinstance(event, DataReceived):
                self._h2_state.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
        with suppress(ProtocolError, httpcore.NetworkError, httpcore.TimeoutException, TimeoutError):
            # A stream that has ended is refused here: there is nothing to tell.
            self._h2_state.reset_stream(stream_id, ErrorCodes.CANCEL)
            async with asyncio.timeout(_RESET_TIMEOUT_S), self._write_lock:
                await self._network_stream.write(self._h2_state.data_to_send())
        await super()._response_closed(stream_id)
