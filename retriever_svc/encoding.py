"""The vectors of the queries of a call: encoded together, awaited by each search."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import numpy as np

from retriever_svc.index import Vectors, encoder_mismatch
from retriever_svc.search import Embedder, Encoded

# An encoder, `name@revision`, and a query for it.
Wanted = tuple[str, str]


class Encoding:
    """Queries being encoded; made and ended by `encoding`."""

    def __init__(self, tasks: Mapping[str, asyncio.Task[Encoded]], places: Mapping[Wanted, int]) -> None:
        self._tasks = tasks
        self._places = places

    async def vector(self, wanted: Wanted) -> Vectors:
        """The vector [dimension]; raises the embedder's error, FailedPrecondition where another encoder made it."""
        encoder, _ = wanted
        task = self._tasks[encoder]
        # Not awaited itself: others wait for it too, and who leaves must not cancel it.
        await asyncio.wait([task])
        encoded = task.result()
        if encoded.encoder != encoder:
            raise encoder_mismatch(encoder, encoded.encoder)
        return np.asarray(encoded.vectors[self._places[wanted]])


@asynccontextmanager
async def encoding(embedder: Embedder, wanted: Iterable[Wanted]) -> AsyncIterator[Encoding]:
    """The queries being encoded, in one call for each encoder, which ends when the body does."""
    queries: dict[str, list[str]] = {}
    places: dict[Wanted, int] = {}
    for encoder, query in dict.fromkeys(wanted):
        of_encoder = queries.setdefault(encoder, [])
        places[encoder, query] = len(of_encoder)
        of_encoder.append(query)
    tasks = {encoder: asyncio.create_task(embedder.encode(encoder, texts)) for encoder, texts in queries.items()}
    try:
        yield Encoding(tasks, places)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
