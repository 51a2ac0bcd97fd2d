"""Texts of many documents encoded together: batches are full however small the documents are."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

from ingest_svc.encoder import VectorMaker, Vectors
from ingest_svc.work import Lane
from meshkit import deadline
from meshkit.deadline import Deadline
from meshkit.errors import Internal, MeshError
from meshkit.identity import Identity, acting_as, current

logger = logging.getLogger(__name__)

# One batch is on its way while the encoder is at another.
_AHEAD = 2
# Every so many batches bulk work goes first.
_BULK_FIRST = 4
_IDLE_S = 1.0
# What says nothing of the texts: the encoder is away or busy.
_AWAY = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of a batch, and how long a stream to the encoder is used before another takes its place."""

    max_tokens: int
    max_texts: int
    stream_s: float


@dataclass(eq=False, slots=True)
class _Asked:
    """Texts that wait for their vectors: `sent` are in batches, `rows` are back. `alone`: in no other's batch."""

    texts: Sequence[str]
    tokens: Sequence[int]
    lane: Lane
    answer: asyncio.Future[Vectors]
    sent: int = 0
    rows: list[Vectors] = field(default_factory=list)
    alone: bool = False


@dataclass(frozen=True, slots=True)
class _Piece:
    """The texts [start, stop) of what was asked."""

    asked: _Asked
    start: int
    stop: int


_Batch = list[_Piece]


class Gathering:
    """Encodes the texts of many callers over one stream for each tenant and model; see `open_gathering`.

    `_lines` holds those at work; they end when they have had nothing to do for a while, and go with the next one made.
    """

    def __init__(self, encoder: VectorMaker, limits: BatchLimits) -> None:
        self._encoder = encoder
        self._limits = limits
        self._lines: dict[tuple[str, str], _Line] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing waits for vectors here."""
        return all(line.idle for line in self._lines.values())

    async def encode(self, model: str, texts: Sequence[str], tokens: Sequence[int], lane: Lane) -> Vectors:
        """The texts' vectors, a row each; uploads go first. `tokens` has about how many tokens each text has.

        Raises what the encoder answers. Who is cancelled is no longer encoded for.
        """
        key = (current().tenant, model)
        line = self._lines.get(key)
        if line is None or line.task.done():
            self._lines = {other: line for other, line in self._lines.items() if not line.task.done()}
            line = self._lines[key] = _Line(self._encoder, model, current(), self._limits)
        return await line.encode(texts, tokens, lane)

    async def close(self) -> None:
        """Encode no more."""
        tasks = [line.task for line in self._lines.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_gathering(encoder: VectorMaker, limits: BatchLimits) -> AsyncIterator[Gathering]:
    """Encode for many while the body runs."""
    gathering = Gathering(encoder, limits)
    try:
        yield gathering
    finally:
        await gathering.close()


class _Line:
    """The texts of one tenant for one model; lives until there were none for a while. Only its task sends."""

    def __init__(self, encoder: VectorMaker, model: str, identity: Identity, limits: BatchLimits) -> None:
        self._encoder = encoder
        self._model = model
        self._identity = identity
        self._limits = limits
        self._waiting: dict[Lane, deque[_Asked]] = {lane: deque() for lane in Lane}
        self._under_way: deque[_Batch] = deque()
        self._moved = asyncio.Event()
        self._batches = 0
        self.task = asyncio.create_task(self._run())

    @property
    def idle(self) -> bool:
        return not self._under_way and not any(self._waiting.values())

    async def encode(self, texts: Sequence[str], tokens: Sequence[int], lane: Lane) -> Vectors:
        asked = _Asked(texts, tokens, lane, asyncio.get_running_loop().create_future())
        self._waiting[lane].append(asked)
        self._moved.set()
        return await asked.answer

    async def _run(self) -> None:
        while await self._has_work():
            try:
                with acting_as(self._identity), deadline.using(Deadline.after(2 * self._limits.stream_s)):
                    async with aclosing(self._encoder.embed(self._model, self._next_batches())) as answers:
                        async for vectors in answers:
                            self._take(vectors)
            except MeshError as error:
                self._fail(error)
            except Exception:
                logger.exception("unexpected error on a stream to the encoder")
                self._fail(Internal("INTERNAL_ERROR", "internal error"))

    async def _has_work(self) -> bool:
        """Whether there is work, or comes within a moment."""
        if not any(self._waiting.values()):
            self._moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await self._moved.wait()
        return any(self._waiting.values())

    async def _next_batches(self) -> AsyncGenerator[Sequence[str]]:
        """Batch after batch, a few ahead of the answers, until nothing is left to do or the stream has had its time."""
        until_s = time.monotonic() + self._limits.stream_s
        while time.monotonic() < until_s and (self._under_way or await self._has_work()):
            batch = self._filled() if len(self._under_way) < _AHEAD else []
            if batch:
                self._under_way.append(batch)
                yield [text for piece in batch for text in piece.asked.texts[piece.start : piece.stop]]
            elif self._under_way:
                self._moved.clear()
                await self._moved.wait()

    def _filled(self) -> _Batch:
        """A batch with as many of the waiting texts as it may have, at least one; empty where none waits."""
        batch: _Batch = []
        for waiting in self._in_order():
            while waiting:
                asked = waiting[0]
                if asked.alone and batch:
                    return batch
                if not asked.answer.done() and (piece := self._piece(asked, batch)):
                    batch.append(piece)
                    if asked.sent < len(asked.texts):
                        return batch
                elif not asked.answer.done():
                    return batch
                waiting.popleft()
                if asked.alone:
                    return batch
        return batch

    def _piece(self, asked: _Asked, batch: _Batch) -> _Piece | None:
        """The next of the texts asked for that the batch has room for; None where it has none."""
        count = sum(piece.stop - piece.start for piece in batch)
        tokens = sum(sum(piece.asked.tokens[piece.start : piece.stop]) for piece in batch)
        start = asked.sent
        while asked.sent < len(asked.texts) and count < self._limits.max_texts:
            tokens += asked.tokens[asked.sent]
            if count and tokens > self._limits.max_tokens:
                break
            count += 1
            asked.sent += 1
        return _Piece(asked, start, asked.sent) if asked.sent > start else None

    def _in_order(self) -> list[deque[_Asked]]:
        self._batches += 1
        lanes = list(self._waiting.values())
        return lanes[::-1] if self._batches % _BULK_FIRST == 0 else lanes

    def _take(self, vectors: Vectors) -> None:
        batch = self._under_way[0]
        if vectors.count != sum(piece.stop - piece.start for piece in batch):
            raise Internal("INTERNAL_ERROR", "the embedder answered with other vectors than asked for")
        self._under_way.popleft()
        self._moved.set()
        width, place = len(vectors.data) // vectors.count, 0
        for piece in batch:
            count = piece.stop - piece.start
            data = vectors.data[place * width : (place + count) * width]
            piece.asked.rows.append(Vectors(data, vectors.dtype, vectors.dimension, count, vectors.encoder))
            place += count
            if piece.stop == len(piece.asked.texts) and not piece.asked.answer.done():
                piece.asked.answer.set_result(_joined(piece.asked.rows))

    def _fail(self, error: MeshError) -> None:
        """What the end of a stream means: for all where the encoder is away, else for who was in the failed batch.

        The failed batch is the first that was not answered. Where it had texts of many, each is tried again alone.
        """
        batches, self._under_way = list(self._under_way), deque()
        if error.code in _AWAY or not batches:
            asked = [piece.asked for batch in batches for piece in batch]
            _refuse([*asked, *(each for waiting in self._waiting.values() for each in waiting)], error)
            return
        owners = {id(piece.asked): piece.asked for piece in batches[0]}
        if len(owners) == 1:
            _refuse(list(owners.values()), error)
        for owner in owners.values():
            owner.alone = True
        for piece in reversed([piece for batch in batches for piece in batch]):
            self._send_again(piece)

    def _send_again(self, piece: _Piece) -> None:
        piece.asked.sent = piece.start
        waiting = self._waiting[piece.asked.lane]
        if piece.asked not in waiting:
            waiting.appendleft(piece.asked)


def _refuse(refused: Sequence[_Asked], error: MeshError) -> None:
    for asked in refused:
        if not asked.answer.done():
            asked.answer.set_exception(error)


def _joined(rows: Sequence[Vectors]) -> Vectors:
    """The rows as one; of encoders that are not the same, all names, which are no encoder's."""
    if len(rows) == 1:
        return rows[0]
    names = ", ".join(sorted({part.encoder for part in rows}))
    data, count = b"".join(part.data for part in rows), sum(part.count for part in rows)
    return Vectors(data, rows[0].dtype, rows[0].dimension, count, names)
