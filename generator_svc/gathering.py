"""How long a stream waits between its messages, so that the tokens of streams read side by side come joined."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from generator_svc.engine import Delta

# What a message costs is of the order of 0.1 ms in each process on its way: so many streams at once would take a core.
_S_A_STREAM = 0.001


class Gathering:
    """Counts the streams that are read; lives as long as their engine, on one event loop."""

    def __init__(self, max_s: float) -> None:
        """No stream waits longer than `max_s` seconds."""
        self._max_s = max_s
        self._streams = 0

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A stream is read within."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    @property
    def gap_s(self) -> float:
        """Seconds to wait after a message: none for a stream alone, a millisecond more for each other one."""
        return min(_S_A_STREAM * (self._streams - 1), self._max_s) if self._streams else 0.0

    async def joined(self, deltas: AsyncGenerator[Delta, None], wanted: asyncio.Event) -> AsyncGenerator[Delta, None]:
        """The deltas, the first by itself, those that come while the stream waits joined; each sequence's apart.

        They are read in a task of their own, which ends with this generator; the caller closes `deltas` behind it.
        `wanted` tells whoever makes them whether some are waited for: what comes meanwhile can be read in one go.
        """
        first = await anext(deltas, None)
        if first is None:
            return
        wanted.clear()
        yield first
        arrived = _Arrived(wanted)
        reading = asyncio.create_task(arrived.read(deltas))
        try:
            while not arrived.over:
                if gap_s := self.gap_s:
                    await asyncio.wait({reading}, timeout=gap_s)
                wanted.set()
                taken = await arrived.take()
                for delta in _merged(taken) if gap_s else taken:
                    yield delta
            await reading
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})
            # Looked at, so that nobody is told of a failure that came when the reader had left.
            _ = reading.cancelled() or reading.exception()


class _Arrived:
    """What one stream has brought and nobody has taken yet; lives as long as the stream."""

    def __init__(self, wanted: asyncio.Event) -> None:
        self._deltas: list[Delta] = []
        self._wanted = wanted
        self._news = asyncio.Event()
        self._ended = False

    @property
    def over(self) -> bool:
        """Whether no more comes, and all is taken."""
        return self._ended and not self._deltas

    async def read(self, deltas: AsyncGenerator[Delta, None]) -> None:
        """Read to the end; raises what reading raises."""
        try:
            async for delta in deltas:
                self._deltas.append(delta)
                self._wanted.clear()
                self._news.set()
        finally:
            self._ended = True
            self._news.set()

    async def take(self) -> list[Delta]:
        """What has come since the last time, when there is some; none at the end."""
        await self._news.wait()
        taken, self._deltas = self._deltas, []
        if not self._ended:
            self._news.clear()
        return taken


def _merged(deltas: Sequence[Delta]) -> list[Delta]:
    """One delta for each sequence that goes on, in the order in which they first do."""
    parts: dict[int, list[Delta]] = {}
    for delta in deltas:
        parts.setdefault(delta.index, []).append(delta)
    return [_whole(each) if len(each) > 1 else each[0] for each in parts.values()]


def _whole(parts: Sequence[Delta]) -> Delta:
    return replace(
        parts[-1],
        text="".join(part.text for part in parts),
        tokens=sum(part.tokens for part in parts),
        token_ids=tuple(id for part in parts for id in part.token_ids),
        logprobs=tuple(position for part in parts for position in part.logprobs),
    )
