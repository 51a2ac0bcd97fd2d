"""A circuit breaker: what keeps failing is left alone for a while."""

import time
from collections.abc import Callable
from enum import Enum


class BreakerState(Enum):
    """Whether to ask: everybody, nobody, or one who finds out."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens for `open_s` after `max_failures` in a row; belongs to one event loop, nothing to close.

    Then one asks while the others go on without: its success closes the breaker, its failure opens it again. One
    of whom nothing is heard (its caller left) counts as failed after `open_s`.
    """

    def __init__(self, max_failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_failures = max_failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._probing = False
        self._shut_until_s = 0.0

    @property
    def state(self) -> BreakerState:
        """The state now; open also when the time to ask has come and nobody has."""
        if self._failures < self._max_failures:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._probing else BreakerState.OPEN

    def allows(self) -> bool:
        """Whether this caller may ask; he then says how it went."""
        if self._failures < self._max_failures:
            return True
        if self._clock() < self._shut_until_s:
            return False
        self._probing = True
        self._shut_until_s = self._clock() + self._open_s
        return True

    def succeeded(self) -> None:
        """It answered."""
        self._failures = 0
        self._probing = False

    def failed(self) -> None:
        """It did not answer."""
        self._failures += 1
        self._probing = False
        self._shut_until_s = self._clock() + self._open_s
