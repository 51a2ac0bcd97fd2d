"""The time until which the work of a call is wanted, as a point in monotonic time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A point in monotonic time, in seconds of `time.monotonic`."""

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """The point so many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Seconds until the point; 0 where it has passed."""
        return max(self.at_s - time.monotonic(), 0.0)

    def less(self, margin_s: float) -> "Deadline":
        """The point so much earlier: what a peer gets, so that its answer still arrives in time."""
        return Deadline(self.at_s - margin_s)


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def current() -> Deadline | None:
    """The deadline of the call being served, or None outside of one."""
    return _current.get()


@contextmanager
def using(deadline: Deadline) -> Iterator[Deadline]:
    """Make the deadline current."""
    token = _current.set(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)


def capped(default_s: float, max_s: float) -> Deadline:
    """The current deadline, or `default_s` from now without one; never later than `max_s` from now."""
    return min(current() or Deadline.after(default_s), Deadline.after(max_s))
