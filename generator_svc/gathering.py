"""How long a stream waits between its messages, so that the tokens of streams read side by side come joined."""

from collections.abc import Iterator
from contextlib import contextmanager

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
