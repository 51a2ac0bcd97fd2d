"""What people think of answers, and where it is kept."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from gateway.answers import Citation


class Rating(Enum):
    """A thumb; the values are the contract's numbers."""

    NONE = 0
    UP = 1
    DOWN = 2


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody thinks of an answer; `question` and `text` outlive the answer they come from."""

    id: str
    answer: str
    rating: Rating
    comment: str
    question: str
    text: str
    create_time: datetime
    corrected_citations: tuple[Citation, ...] = ()


class FeedbackStore(Protocol):
    """Keeps the feedback of each tenant; raises Unavailable STORE_UNAVAILABLE."""

    async def add(self, tenant: str, feedback: Feedback) -> str:
        """Record the feedback and return the id that it has got."""
        ...

    async def list(self, tenant: str, cursor: str, limit: int) -> tuple[Sequence[Feedback], str]:
        """The feedback behind the cursor, newest first, and the cursor behind the last ("" for no more)."""
        ...

    def all_since(self, tenant: str, since: datetime | None) -> AsyncIterator[Feedback]:
        """All of the feedback given since, oldest first."""
        ...
