"""How far the events of an answer may run ahead of a caller who says what it has read."""

import asyncio


class Window:
    """Holds back the events of a conversation that are too far ahead; lives as long as the conversation.

    A caller who never acknowledges is never waited for. The task that sends and the one that listens share it; only
    the first `admit`s.
    """

    def __init__(self, events: int) -> None:
        self._events = events
        self._acknowledged: int | None = None
        self._sent = 0
        self._lifted = False
        self._moved = asyncio.Event()

    def begin(self) -> None:
        """The events of another answer come, numbered from 1."""
        self._sent, self._lifted = 0, False
        if self._acknowledged is not None:
            self._acknowledged = 0

    def acknowledge(self, sequence: int) -> None:
        """The caller has read the event and those before it; what it has not been sent it cannot have read."""
        self._acknowledged = max(self._acknowledged or 0, min(sequence, self._sent))
        self._moved.set()

    def lift(self) -> None:
        """Hold back nothing more of this answer: it is ending, or nobody will acknowledge."""
        self._lifted = True
        self._moved.set()

    async def admit(self, sequence: int) -> None:
        """Wait until the event may be sent."""
        while self._holds(sequence):
            self._moved.clear()
            await self._moved.wait()
        self._sent = sequence

    def _holds(self, sequence: int) -> bool:
        if self._lifted or self._acknowledged is None:
            return False
        return sequence > self._acknowledged + self._events
