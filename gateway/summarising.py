"""Puts the older turns of conversations into a few words, in the background."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.citing import without_markers
from gateway.generation import Chat, Generation, Generator, Message, Model, Sampling, Writing
from gateway.sessions import SessionStore, Summary, Turn
from meshkit import deadline
from meshkit.deadline import Deadline
from meshkit.errors import MeshError
from meshkit.identity import Identity

logger = logging.getLogger(__name__)

_INSTRUCTIONS = """\
Summarise the conversation for somebody who goes on with it: what was asked, what was answered, names and numbers.
Write no more than ten short sentences, in the language of the conversation, without any introduction."""
_MAX_TOKENS = 320
_SHOWN_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Older:
    """Turns of a session that are to join its summary, oldest first; `before` is the summary so far."""

    owner: Identity
    session: str
    before: str
    turns: Sequence[Turn]


class Summaries:
    """Summarises in tasks of its own, at most `most` at once and one a session; made and closed by `open_summaries`.

    What is refused, fails or takes longer than `timeout_s` is left to the session's next answer.
    """

    def __init__(self, generator: Generator, sessions: SessionStore, timeout_s: float, most: int) -> None:
        self._generator = generator
        self._sessions = sessions
        self._timeout_s = timeout_s
        self._most = most
        self._tasks: dict[tuple[Identity, str], asyncio.Task[None]] = {}

    def want(self, model: Model, older: Older) -> None:
        """Have the turns put into the summary of their session, later."""
        key = older.owner, older.session
        if key in self._tasks or len(self._tasks) >= self._most:
            return
        task = self._tasks[key] = asyncio.create_task(self._summarise(model, older))
        task.add_done_callback(lambda _: self._tasks.pop(key))

    async def settle(self) -> None:
        """Return when no summary is under way."""
        await asyncio.gather(*self._tasks.values())

    async def close(self) -> None:
        """Leave what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _summarise(self, model: Model, older: Older) -> None:
        # The caller's own deadline is that of the answer, which has ended.
        with deadline.using(Deadline.after(self._timeout_s)):
            try:
                async with asyncio.timeout(self._timeout_s):
                    text = await self._written(model, older)
                    summary = Summary(text, older.turns[-1].answer)
                    if text:
                        await self._sessions.summarise(older.owner, older.session, summary)
            except (MeshError, TimeoutError) as error:
                logger.info("session %s is not summarised: %r", older.session, error)

    async def _written(self, model: Model, older: Older) -> str:
        said = [
            f"User: {turn.question[:_SHOWN_CHARS]}\nAssistant: {without_markers(turn.text)[:_SHOWN_CHARS]}"
            for turn in older.turns
        ]
        # Half of the context at most, by four signs a token; the end is what matters.
        room = 2 * model.max_model_tokens if model.max_model_tokens else None
        text = "\n".join([f"Before that, in short: {older.before}", *said] if older.before else said)
        chat = Chat((Message("system", _INSTRUCTIONS), Message("user", text[-room:] if room else text)))
        writing = Writing(sampling=Sampling(temperature=0.0))
        generation = Generation(model.name, chat, writing, _max_tokens(model), older.session)
        async with self._generator.generate(generation) as deltas:
            return "".join([delta.text async for delta in deltas]).strip()


def _max_tokens(model: Model) -> int:
    return min(_MAX_TOKENS, model.max_model_tokens // 4) if model.max_model_tokens else _MAX_TOKENS


@asynccontextmanager
async def open_summaries(
    generator: Generator, sessions: SessionStore, timeout_s: float, most: int
) -> AsyncIterator[Summaries]:
    """The summaries for the body."""
    summaries = Summaries(generator, sessions, timeout_s, most)
    try:
        yield summaries
    finally:
        await summaries.close()
