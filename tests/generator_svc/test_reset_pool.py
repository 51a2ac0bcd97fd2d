"""Connections over HTTP/2, on which what is left ends at the upstream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset

from generator_svc.engine import Prompt, Request
from generator_svc.openai_engine import OpenAIOptions, open_openai_engine
from tests.generator_svc.scripted_upstream import usage, word

_MODELS = {"object": "list", "data": [{"id": "h2", "owned_by": "scripted"}]}


class Http2Upstream:
    """Answers `finish` with a whole answer, `silent` with nothing and all else with a stream that never ends."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.resets: asyncio.Queue[ErrorCodes] = asyncio.Queue()
        self.asked = asyncio.Semaphore(0)
        self.ended = asyncio.Semaphore(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        paths: dict[int, str] = {}
        bodies: dict[int, bytes] = {}
        with suppress(ConnectionError):
            while True:
                writer.write(connection.data_to_send())
                received = await reader.read(65536)
                if not received:
                    break
                for event in connection.receive_data(received):
                    self._answer(connection, event, paths, bodies)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.ended.release()

    def _answer(self, connection: H2Connection, event: Event, paths: dict[int, str], bodies: dict[int, bytes]) -> None:
        match event:
            case RequestReceived(stream_id=int(id), headers=headers):
                paths[id] = dict(headers or ())[b":path"].decode()
                bodies[id] = b""
            case DataReceived(stream_id=int(id), data=bytes(data)):
                bodies[id] += data
                connection.acknowledge_received_data(len(data), id)
            case StreamEnded(stream_id=int(id)):
                self._reply(connection, id, paths[id], bodies[id])
            case StreamReset(error_code=code):
                self.resets.put_nowait(ErrorCodes(code or 0))

    def _reply(self, connection: H2Connection, id: int, path: str, body: bytes) -> None:
        prompt = json.loads(body)["prompt"] if body else ""
        self.asked.release()
        if prompt == "silent":
            return
        connection.send_headers(id, [(":status", "200")])
        if path.endswith("/models"):
            connection.send_data(id, json.dumps(_MODELS).encode(), end_stream=True)
            return
        connection.send_data(id, _event(word("a")) * 20)
        if prompt == "finish":
            connection.send_data(id, _event(word("b", "stop")) + _event(usage(1, 2)), end_stream=True)


def _event(chunk: object) -> bytes:
    return b"data: %s\n\n" % json.dumps(chunk).encode()


@asynccontextmanager
async def http2_upstream() -> AsyncIterator[Http2Upstream]:
    """The server on a free port, without TLS."""
    upstream = Http2Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield upstream
    for _ in range(upstream.connections):
        await upstream.ended.acquire()


async def test_leaving_resets_the_stream_and_spares_the_connection() -> None:
    """More streams are left than may be open at once, beside one that goes on; all on one connection."""
    async with (
        asyncio.timeout(20),
        http2_upstream() as upstream,
        open_openai_engine(OpenAIOptions(upstream.url, upstream_h2c=True)) as engine,
    ):
        beside = engine.generate(await engine.prepare(Request("beside", Prompt("go on"))))
        await anext(beside)
        for number in range(150):
            stream = engine.generate(await engine.prepare(Request(str(number), Prompt("go on"))))
            await anext(stream)
            await stream.aclose()
            assert await upstream.resets.get() is ErrorCodes.CANCEL

        whole = engine.generate(await engine.prepare(Request("whole", Prompt("finish"))))
        assert "".join([delta.text async for delta in whole]) == "a" * 20 + "b"
        assert (await anext(beside)).text == "a"
        await beside.aclose()
        assert upstream.connections == 1


async def test_leaving_before_the_answer_begins_resets_the_stream_too() -> None:
    """The upstream has the request and would work on it."""
    async with (
        asyncio.timeout(10),
        http2_upstream() as upstream,
        open_openai_engine(OpenAIOptions(upstream.url, upstream_h2c=True)) as engine,
    ):
        await upstream.asked.acquire()
        stream = engine.generate(await engine.prepare(Request("one", Prompt("silent"))))
        waiting = asyncio.ensure_future(anext(stream))
        await upstream.asked.acquire()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await upstream.resets.get() is ErrorCodes.CANCEL
        await stream.aclose()
