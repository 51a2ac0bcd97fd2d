"""Waits for the results of tools that a caller runs."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.failures import Failure
from gateway.tools import ToolResult
from meshkit.errors import NotFound

# Calls that are over whose late results are known for what they are.
_MAX_OVER = 256


class Awaiting:
    """The calls of one conversation whose results are to come; used on one event loop."""

    def __init__(self) -> None:
        self._coming: dict[str, asyncio.Future[ToolResult]] = {}
        self._over: deque[str] = deque(maxlen=_MAX_OVER)
        self._gone = False

    @contextmanager
    def expecting(self, id: str) -> Iterator[asyncio.Future[ToolResult]]:
        """The result of the call, which may come as long as the body runs."""
        coming = self._coming[id] = asyncio.get_running_loop().create_future()
        if self._gone:
            coming.set_result(_unanswered(id))
        try:
            yield coming
        finally:
            del self._coming[id]
            self._over.append(id)
            coming.cancel()

    def deliver(self, result: ToolResult) -> None:
        """Hand the result to the call that waits for it; the first counts, and one that comes too late is ignored.

        Raises NotFound TOOL_NOT_FOUND for a call that never was.
        """
        coming = self._coming.get(result.id)
        if coming is None and result.id not in self._over:
            text = f"no call of a tool has the id {result.id!r}"
            raise NotFound("TOOL_NOT_FOUND", text, metadata={"id": result.id})
        if coming and not coming.done():
            coming.set_result(result)

    def hang_up(self) -> None:
        """No result will come any more: its caller has said all."""
        self._gone = True
        for id, coming in self._coming.items():
            if not coming.done():
                coming.set_result(_unanswered(id))


def _unanswered(id: str) -> ToolResult:
    return ToolResult(id, failure=Failure("ABORTED", "TOOL_FAILED", "the caller says no more"))
