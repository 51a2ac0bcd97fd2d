"""Who is reading a collection, so that what they read is not deleted under them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from retriever_svc.index import Scope


class Readers:
    """The readings under way, by collection; lives as long as its process, nothing to close."""

    def __init__(self) -> None:
        # A collection has an entry while somebody reads it; `reading` adds and takes out.
        self._ends: dict[Scope, set[asyncio.Future[None]]] = {}

    @contextmanager
    def reading(self, scope: Scope) -> Iterator[None]:
        """Read the collection in the body; begins before its state is loaded."""
        end = asyncio.get_running_loop().create_future()
        ends = self._ends.setdefault(scope, set())
        ends.add(end)
        try:
            yield
        finally:
            end.set_result(None)
            ends.discard(end)
            if not ends:
                del self._ends[scope]

    async def left(self, scope: Scope) -> None:
        """Return when all who are reading the collection now have ended."""
        if ends := self._ends.get(scope):
            await asyncio.wait(set(ends))
