"""Keeps an answer and its turn, whatever becomes of the caller and of the store meanwhile."""

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime

from gateway.answers import Answer, AnswerStore, FinishReason
from gateway.sessions import SessionStore, Turn
from meshkit.errors import Unavailable
from meshkit.identity import Identity

logger = logging.getLogger(__name__)


class Keeping:
    """The keeping of one answer: its turn from the start, the whole at the end; lives as long as its course.

    `kept` is the answer as it ended. It is `owed` where the store was away: who has time tries `again`.
    """

    def __init__(self, answers: AnswerStore, sessions: SessionStore, owner: Identity, timeout_s: float) -> None:
        self.create_time = datetime.now(UTC)
        self.kept: Answer | None = None
        self.owed = False
        self._answers = answers
        self._sessions = sessions
        self._owner = owner
        self._timeout_s = timeout_s
        self._beginning: asyncio.Task[None] | None = None

    def begin(self, answer: Answer) -> None:
        """Put the turn, if there is a session, while other work goes on: who dies in mid-answer leaves it."""
        if answer.session:
            self._beginning = asyncio.create_task(self._begin(answer))

    async def keep(self, answer: Answer) -> bool:
        """Save the answer, whoever cancels meanwhile, and return when that is over; whether it was done in time."""
        self.kept = answer
        keeping = asyncio.create_task(self._keep(answer))
        try:
            return await asyncio.shield(keeping)
        except asyncio.CancelledError:
            await asyncio.wait({keeping})
            raise

    async def again(self) -> None:
        """Save what is owed; raises Unavailable."""
        if self.owed and self.kept:
            await self._save(self.kept)
            self.owed = False

    async def _begin(self, answer: Answer) -> None:
        with suppress(Unavailable):
            await self._sessions.put(self._owner, answer.session, Turn.of(answer, self.create_time))

    async def _keep(self, answer: Answer) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._beginning:
                    await self._beginning
                await self._save(answer)
        except (Unavailable, TimeoutError) as error:
            logger.warning("answer %s is not kept yet: %r", answer.id, error)
            self.owed = True
        return not self.owed

    async def _save(self, answer: Answer) -> None:
        """Save answer and turn; one that failed before any text leaves neither, one that wants tools run no turn."""
        unsaid = answer.finish_reason is FinishReason.FAILED and not answer.text
        no_turn = unsaid or (answer.finish_reason is FinishReason.TOOL_CALL and not answer.text)
        if not unsaid:
            await self._answers.save(self._owner, answer)
        if no_turn and self._beginning:
            await self._sessions.remove(self._owner, answer.session, answer.id)
        elif answer.session and not no_turn:
            await self._sessions.put(self._owner, answer.session, Turn.of(answer, self.create_time))
