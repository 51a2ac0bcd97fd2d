"""An OpenAI-compatible server that computes nothing: it stands for a model elsewhere, and keeps a pace.

`python -m bench.paced_upstream PORT` answers a chat, which has to be streamed, with the words of its last message, one
a chunk, at the pace that was last posted to /pace as {"first_s": 0.05, "gap_s": 0.02}: seconds to the first token, and
between two, however many streams there are. Each sentence is followed by a marker of the first passage. What it costs
is next to nothing, so that on two cores the rest of the course is measured, as where the model has a GPU of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any, cast

import uvloop

MODEL = "paced"
_DEFAULT_TOKENS = 32
_END = b"\r\n\r\n"


@dataclass(slots=True)
class Pace:
    """Seconds to the first token, and between two; that of the process, which the benchmark changes."""

    first_s: float = 0.05
    gap_s: float = 0.02


class Connection(asyncio.Protocol):
    """A caller's connection, which asks for one thing after another; lives until either side closes it."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._received = b""
        self._next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write to the caller."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own signature
        """Stop in mid-answer: the caller has left."""
        if self._next:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer when a request is whole."""
        self._received += data
        head, ended, rest = self._received.partition(_END)
        length = _content_length(head) if ended else 0
        if ended and len(rest) >= length:
            self._received = rest[length:]
            self._answer(head, rest[:length])

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST /pace"):
            asked = json.loads(body)
            self._pace.first_s, self._pace.gap_s = asked["first_s"], asked["gap_s"]
            self._whole(asdict(self._pace))
        elif head.startswith(b"POST"):
            self._transport.write(_head(b"content-type: text/event-stream\r\ntransfer-encoding: chunked"))
            loop = asyncio.get_running_loop()
            due_s = loop.time() + self._pace.first_s
            self._next = loop.call_at(due_s, self._say, chunks(json.loads(body)), due_s, self._pace.gap_s)
        else:
            self._whole({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "bench"}]})

    def _whole(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self._transport.write(_head(b"content-type: application/json\r\ncontent-length: %d" % len(content)) + content)

    def _say(self, left: Iterator[bytes], due_s: float, gap_s: float) -> None:
        chunk = next(left, None)
        if chunk is None:
            self._transport.write(b"0\r\n\r\n")
            return
        self._transport.write(chunk)
        # By the clock of the whole answer: timers that are late do not add up.
        due_s += gap_s
        self._next = asyncio.get_running_loop().call_at(due_s, self._say, left, due_s, gap_s)


def chunks(asked: dict[str, Any]) -> Iterator[bytes]:
    """The parts of the answer to a chat, as HTTP sends them: a token each, with the last all that ends a stream."""
    count = asked.get("max_tokens") or asked.get("max_completion_tokens") or _DEFAULT_TOKENS
    for text in islice(cited(words(asked["messages"][-1]["content"])), count - 1):
        yield _part(_event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}))
    last = {"choices": [{"index": 0, "delta": {"content": " [1]"}, "finish_reason": "stop"}]}
    usage = {"prompt_tokens": 0, "completion_tokens": count, "total_tokens": count}
    yield _part(_event(last) + _event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")


def cited(said: Iterator[str]) -> Iterator[str]:
    """The words as tokens, and a marker behind each that ends a sentence."""
    for word in said:
        yield f" {word}"
        if word.endswith((".", "?", "!")):
            yield " [1]"


def words(text: str) -> Iterator[str]:
    """The words of the text but for markers and markup, again and again."""
    return cycle([word for word in text.split() if not set(word) & set("[]<>")] or ["nothing"])


def _event(fields: dict[str, Any]) -> bytes:
    whole = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": MODEL, **fields}
    return b"data: %s\n\n" % json.dumps(whole).encode()


def _part(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _head(lines: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n%s%s" % (lines, _END)


def _content_length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)


async def serve(port: int) -> None:
    """Serve for ever on the loopback."""
    pace = Pace()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(pace), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
