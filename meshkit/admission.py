"""Permits: so much work at once and no more; the rest is refused while it is still cheap."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshkit.errors import ResourceExhausted


class Permits:
    """So many permits, for the life of a server or an engine; belongs to one event loop, nothing to close."""

    def __init__(self, limit: int, retry_after_s: float) -> None:
        self.limit = limit
        self.running = 0
        self._retry_after_s = retry_after_s

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Hold a permit for the body; raises ResourceExhausted at once where none is left."""
        if self.running >= self.limit:
            raise self._refusal()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def _refusal(self) -> ResourceExhausted:
        return ResourceExhausted(
            "OVERLOADED",
            "the server takes no more work now",
            metadata={"running": str(self.running), "limit": str(self.limit)},
            retry_after_s=self._retry_after_s,
        )
