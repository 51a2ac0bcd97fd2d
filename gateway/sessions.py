"""Conversations of a caller, and where they are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.answers import Answer, Citation, FinishReason
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

    @classmethod
    def of(cls, answer: Answer, create_time: datetime) -> "Turn":
        """The turn of an answer to a question that came at `create_time`."""
        return cls(answer.id, answer.question, answer.text, answer.citations, answer.finish_reason, create_time)


@dataclass(frozen=True, slots=True)
class Summary:
    """What the turns of a session up to the one with the answer `through` said, in short."""

    text: str
    through: str


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation; turns oldest first, empty in lists."""

    id: str
    title: str
    create_time: datetime
    update_time: datetime
    expire_time: datetime
    turns: tuple[Turn, ...] = ()
    summary: Summary | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some sessions and the cursor behind the last of them, "" where there are no more."""

    sessions: Sequence[Session]
    cursor: str


class SessionStore(Protocol):
    """Keeps sessions, each for the caller who began it; raises Unavailable STORE_UNAVAILABLE."""

    async def load(self, owner: Identity, id: str) -> Session | None: ...

    async def put(self, owner: Identity, id: str, turn: Turn) -> None:
        """Keep a turn, in the place of the one with the same answer if any; begins the session where there is none."""
        ...

    async def remove(self, owner: Identity, id: str, answer: str) -> None:
        """Forget the turn with the answer, and the session where it had no other."""
        ...

    async def summarise(self, owner: Identity, id: str, summary: Summary) -> None:
        """Keep the summary in the place of the one before; a session that is gone stays gone."""
        ...

    async def list(self, owner: Identity, cursor: str, limit: int) -> Page:
        """The owner's sessions behind the cursor, last used first."""
        ...

    async def delete(self, owner: Identity, id: str) -> bool:
        """Forget a session; False where there was none."""
        ...
