"""Memory shared out in bytes: who needs more than is left waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """So many bytes to be held at once; lives as long as its process. `_left` changes under `_changed` only."""

    def __init__(self, total_bytes: int) -> None:
        self._total = self._left = total_bytes
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, amount_bytes: int) -> AsyncIterator[None]:
        """Hold so many bytes for the body; more than there are in all are held alone."""
        amount = min(amount_bytes, self._total)
        async with self._changed:
            await self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            async with self._changed:
                self._left += amount
                self._changed.notify_all()
