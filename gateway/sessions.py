"""Conversations of a caller, and where they are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.answers import Citation, FinishReason
from meshkit.identity import Identity

TITLE_CHARS = 80


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer, as far as it came; `answer` is the answer's id."""

    answer: str
    question: str
    text: str
    citations: tuple[Citation, ...]
    finish_reason: FinishReason
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation; turns oldest first, empty in lists."""

    id: str
    title: str
    create_time: datetime
    update_time: datetime
    expire_time: datetime
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Some sessions and the cursor behind the last of them, "" where there are no more."""

    sessions: Sequence[Session]
    cursor: str


class SessionStore(Protocol):
    """Keeps sessions, each for the caller who began it; raises Unavailable STORE_UNAVAILABLE."""

    async def load(self, owner: Identity, id: str) -> Session | None: ...

    async def append(self, owner: Identity, id: str, turn: Turn) -> None:
        """Add a turn, beginning the session where there is none."""
        ...

    async def list(self, owner: Identity, cursor: str, limit: int) -> Page:
        """The owner's sessions behind the cursor, last used first."""
        ...

    async def delete(self, owner: Identity, id: str) -> bool:
        """Forget a session; False where there was none."""
        ...
