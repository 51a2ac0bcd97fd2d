"""An OpenAI-compatible server of which the test writes each answer, byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

MODEL = "scripted"
_CONNECTIONS = 16
_END_S = 5.0


@dataclass
class Exchange:
    """One request and the means to answer it."""

    path: str
    headers: Mapping[str, str]
    body: Any
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self, status: int = 200, **headers: str) -> None:
        """The head of an answer that comes in parts."""
        lines = [f"HTTP/1.1 {status} Whatever", "content-type: text/event-stream", "transfer-encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self._write("\r\n".join([*lines, "", ""]).encode())

    async def send(self, *parts: bytes | str | Mapping[str, Any]) -> None:
        """Parts of the answer; a mapping goes as an event."""
        for part in parts:
            event = f"data: {json.dumps(part)}\n\n" if isinstance(part, Mapping) else part
            data = event.encode() if isinstance(event, str) else event
            await self._write(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self, *, done: bool = True) -> None:
        """The end of the answer."""
        if done:
            await self.send("data: [DONE]\n\n")
        await self._write(b"0\r\n\r\n")

    async def refuse(self, status: int, body: Any = None, **headers: str) -> None:
        """An answer that is no stream."""
        await self.head(status, **headers)
        await self.send(json.dumps(body or {}))
        await self.end(done=False)

    def cut(self) -> None:
        """End the connection as a crash would."""
        self.writer.transport.abort()

    async def until_left(self) -> None:
        """Return when the caller has closed its connection."""
        with suppress(ConnectionError):
            assert await self.reader.read(1) == b""

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Script: TypeAlias = Callable[[Exchange], Awaitable[None]]


@dataclass
class ScriptedUpstream:
    """A running server; a test may change its script at any time."""

    script: Script
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": MODEL, "owned_by": "scripted"}])
    asked: list[Exchange] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    _serving: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CONNECTIONS))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests, one after the other."""
        self.connections += 1
        async with self._serving:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._answer(await _read(reader, writer))
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def closed(self) -> None:
        """Return when every connection has ended, which is the caller's to see to."""
        async with asyncio.timeout(_END_S):
            for _ in range(_CONNECTIONS):
                await self._serving.acquire()

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.path == "/v1/models":
            await exchange.refuse(200, {"object": "list", "data": self.models})
        else:
            self.asked.append(exchange)
            await self.script(exchange)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Exchange(first.split()[1], headers, json.loads(body) if body else None, reader, writer)


@asynccontextmanager
async def scripted_upstream(script: Script, port: int = 0) -> AsyncIterator[ScriptedUpstream]:
    """The server on that port, or on a free one."""
    upstream = ScriptedUpstream(script)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", port)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield upstream
    await upstream.closed()


def word(text: str, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish, **more}]}


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    """The chunk that tells the usage."""
    details = {"cached_tokens": cached}
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    return {"choices": [], "usage": counts}
