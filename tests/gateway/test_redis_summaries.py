"""Summaries of conversations, in a real Redis."""

from datetime import UTC, datetime

from gateway.answers import FinishReason
from gateway.redis_sessions import RedisSessions
from gateway.sessions import Summary, Turn
from meshkit.redis_store import open_redis
from tests.gateway.in_memory import ALICE

TURN = Turn("a1", "How long?", "25 days.", (), FinishReason.STOP, datetime.now(UTC))


async def test_summary_is_kept_with_its_session(redis_url: str) -> None:
    """A later one takes the place of the one before; a session that was deleted does not come back."""
    async with open_redis(redis_url, 1.0, 4) as redis:
        sessions = RedisSessions(redis, ttl_s=60, max_turns=10, max_sessions=10)
        await sessions.put(ALICE, "s1", TURN)
        for text in ("Of leave.", "Of leave and pay."):
            await sessions.summarise(ALICE, "s1", Summary(text, "a1"))
        loaded = await sessions.load(ALICE, "s1")
        assert loaded is not None
        assert loaded.summary == Summary("Of leave and pay.", "a1")
        await sessions.delete(ALICE, "s1")
        await sessions.summarise(ALICE, "s1", Summary("Too late.", "a1"))
        assert await sessions.load(ALICE, "s1") is None
