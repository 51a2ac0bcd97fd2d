"""Dynamic batching: what many callers want of one model, sorted by length and cut into batches by tokens."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from meshkit.errors import ResourceExhausted, Unavailable

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Run = Callable[[Sequence[Item]], Sequence[Result]]


class Priority(Enum):
    """Who goes first: a caller who waits for one query, or bulk work."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The bounds of batches and of the queue before them; every item counts at least one token.

    A batch's tokens are those of its longest item times its items, as padding makes it; of those at most
    `max_padding_tokens` are padding: more would cost the model more than a batch of its own for what is longer.
    `window_batches` is how much of the queue is sorted at once; `max_interactive_run` how many batches may go
    before waiting bulk work.
    """

    max_batch_tokens: int
    max_padding_tokens: int
    max_batch_items: int
    max_queue_tokens: int
    window_batches: int
    max_interactive_run: int
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Entry(Generic[Item]):
    """One item of a call: its length in tokens, and a group; a batch holds items of one group only.

    Items are hashable; equal ones in a batch, whoever wants them, are run once.
    """

    item: Item
    tokens: int
    group: str = ""


@dataclass(frozen=True, slots=True)
class Batched(Generic[Result]):
    """A call's results in order; when in monotonic time it came, its first batch began and its last one ended."""

    results: list[Result]
    submitted_s: float
    started_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class BatcherLoad:
    """Calls that are wholly in the model's hands or done, and calls of which something still waits."""

    running: int
    waiting: int


class _Call(Generic[Item, Result]):
    """A call under way, until its future is done: by its last result, a failure or its caller."""

    def __init__(self, entries: Sequence[Entry[Item]]) -> None:
        self.queue = deque(_Place(self, position, entry) for position, entry in enumerate(entries))
        self.waiting_tokens = sum(entry.tokens for entry in entries)
        self.done: asyncio.Future[Batched[Result]] = asyncio.get_running_loop().create_future()
        self.started_s = 0.0
        self._submitted_s = time.monotonic()
        self._results: dict[int, Result] = {}
        self._size = len(entries)

    def finish(self, position: int, result: Result) -> None:
        self._results[position] = result
        if len(self._results) == self._size and not self.done.done():
            ordered = [self._results[position] for position in range(self._size)]
            self.done.set_result(Batched(ordered, self._submitted_s, self.started_s, time.monotonic()))

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def begin(self, tokens: int) -> None:
        self.waiting_tokens -= tokens
        self.started_s = self.started_s or time.monotonic()


@dataclass(frozen=True, slots=True, eq=False)
class _Place(Generic[Item, Result]):
    """An entry's place in its call."""

    call: _Call[Item, Result]
    position: int
    entry: Entry[Item]


_Batch = list[_Place[Item, Result]]


class _Lane(Generic[Item, Result]):
    """The calls that wait with one priority, oldest first, and the batches cut from the oldest of them."""

    def __init__(self, limits: BatchLimits) -> None:
        self.calls: dict[_Call[Item, Result], None] = {}
        self._ready: deque[_Batch[Item, Result]] = deque()
        self._limits = limits

    def pop(self) -> _Batch[Item, Result]:
        """The next batch, without the entries whose call is over; empty where nothing waits."""
        while self._ready or self.calls:
            if not self._ready:
                self._ready.extend(cut(list(self._window()), self._limits))
            batch = [place for place in self._ready.popleft() if not place.call.done.done()]
            if batch:
                return batch
        return []

    def _window(self) -> Iterator[_Place[Item, Result]]:
        room = self._limits.window_batches * self._limits.max_batch_tokens
        while self.calls and room > 0:
            call = next(iter(self.calls))
            place = call.queue.popleft()
            room -= place.entry.tokens
            yield place
            if not call.queue:
                del self.calls[call]


def cut(places: _Batch[Item, Result], limits: BatchLimits) -> Iterator[_Batch[Item, Result]]:
    """Batches of one group each within the limits, shortest items first; a longer item goes alone."""
    batch: _Batch[Item, Result] = []
    tokens = 0
    for place in sorted(places, key=lambda place: (place.entry.group, place.entry.tokens)):
        padded = place.entry.tokens * (len(batch) + 1)
        padding = padded - tokens - place.entry.tokens
        full = padded > limits.max_batch_tokens or len(batch) == limits.max_batch_items
        uneven = padding > limits.max_padding_tokens
        if batch and (full or uneven or place.entry.group != batch[0].entry.group):
            yield batch
            batch, tokens = [], 0
        batch.append(place)
        tokens += place.entry.tokens
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Device:
    """What models run on: a thread that owns them, and whose turn it is; `open_device` makes and closes it.

    Models of one device take turns, a batch each, in the order in which they asked: none of them alone can
    keep the others waiting, and none has its threads fight another's for the same cores.
    """

    thread: ThreadPoolExecutor
    turn: asyncio.Lock


@contextmanager
def open_device(name: str) -> Iterator[Device]:
    """A device whose thread has this name."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) as thread:
        yield Device(thread, asyncio.Lock())


class Batcher(Generic[Item, Result]):
    """The queue before one model, which runs in its device's thread; `open_batcher` makes and closes it.

    All state belongs to the event loop: `submit` adds, the worker task takes, the thread sees only items.
    """

    def __init__(self, run: Run[Item, Result], limits: BatchLimits, device: Device) -> None:
        self._run = run
        self._limits = limits
        self._device = device
        self._lanes: dict[Priority, _Lane[Item, Result]] = {priority: _Lane(limits) for priority in Priority}
        self._open: set[_Call[Item, Result]] = set()
        self._interactive_run = 0
        self._wake = asyncio.Event()
        self._worker = asyncio.create_task(self._work())

    @property
    def alive(self) -> bool:
        """Whether what waits will be done."""
        return not self._worker.done()

    @property
    def load(self) -> BatcherLoad:
        """Its calls now."""
        waiting = sum(call.waiting_tokens > 0 for call in self._open)
        return BatcherLoad(running=len(self._open) - waiting, waiting=waiting)

    def refuse_if_full(self, tokens: int = 1) -> None:
        """Raise ResourceExhausted where so many more tokens do not fit; an empty queue takes any call."""
        waiting, limit = sum(call.waiting_tokens for call in self._open), self._limits.max_queue_tokens
        if waiting and waiting + tokens > limit:
            metadata = {"waiting_tokens": str(waiting), "limit": str(limit)}
            retry_after_s = self._limits.retry_after_s
            raise ResourceExhausted("OVERLOADED", "the queue is full", metadata=metadata, retry_after_s=retry_after_s)

    async def submit(self, entries: Sequence[Entry[Item]], priority: Priority) -> Batched[Result]:
        """The results of the entries (at least one), in order; a caller who leaves takes along what waits.

        A call of more than one batch is bulk, whatever it asks for. Raises ResourceExhausted at once where
        the queue is full, Unavailable where the batcher is closed or closes, and whatever the model raised.
        """
        if not self.alive:
            raise _draining()
        call: _Call[Item, Result] = _Call(entries)
        self.refuse_if_full(call.waiting_tokens)
        large = call.waiting_tokens > self._limits.max_batch_tokens
        calls = self._lanes[Priority.BULK if large else priority].calls
        calls[call] = None
        self._open.add(call)
        self._wake.set()
        try:
            return await call.done
        finally:
            self._open.discard(call)
            calls.pop(call, None)
            call.queue.clear()

    async def close(self) -> None:
        """End the worker and fail what waits; the batch in the thread runs to its end."""
        self._worker.cancel()
        await asyncio.wait([self._worker])
        for call in self._open:
            call.fail(_draining())

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            # The batch is cut when its turn has come: who arrives while another model runs is in it.
            async with self._device.turn:
                if batch := self._next():
                    await self._serve(batch)
                else:
                    self._wake.clear()

    def _next(self) -> _Batch[Item, Result]:
        interactive, bulk = self._lanes[Priority.INTERACTIVE], self._lanes[Priority.BULK]
        if self._interactive_run < self._limits.max_interactive_run and (batch := interactive.pop()):
            self._interactive_run += 1
            return batch
        self._interactive_run = 0
        return bulk.pop() or interactive.pop()

    async def _serve(self, batch: _Batch[Item, Result]) -> None:
        for place in batch:
            place.call.begin(place.entry.tokens)
        items = list(dict.fromkeys(place.entry.item for place in batch))
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._device.thread, self._run, items)
            by_item = dict(zip(items, results, strict=True))
            for place in batch:
                place.call.finish(place.position, by_item[place.entry.item])
        except Exception as error:
            # The worker serves all callers and outlives whatever one batch does; its callers get the error.
            logger.exception("a batch of %d items failed", len(batch))
            for place in batch:
                place.call.fail(error)


def _draining() -> Unavailable:
    return Unavailable("DRAINING", "the server is shutting down")


@asynccontextmanager
async def open_batcher(
    run: Run[Item, Result], limits: BatchLimits, device: Device
) -> AsyncIterator[Batcher[Item, Result]]:
    """A batcher over a model, whose `run` gives each item of a batch its result, in the device's thread."""
    batcher = Batcher(run, limits, device)
    try:
        yield batcher
    finally:
        await batcher.close()
