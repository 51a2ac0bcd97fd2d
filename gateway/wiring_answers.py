"""The wiring of the answers under way and of their journal."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.answering import Answering
from gateway.course import Ports
from gateway.journal import Journal
from gateway.journaling import Habits, open_journaling
from gateway.relaying import Pace
from gateway.resuming import Resuming
from gateway.settings import Settings
from gateway.underway import Lingering, open_answers


@asynccontextmanager
async def open_resuming(settings: Settings, ports: Ports, journal: Journal) -> AsyncIterator[Resuming]:
    """Answers under way, which end when the body does, and what takes them up again."""
    knobs = settings.resume
    habits = Habits(knobs.journal_flush_s, knobs.producer_ttl_s, knobs.journal_patience_s)
    lingering = Lingering(knobs.max_linger_s, knobs.max_lingering)
    pace = Pace(
        heartbeat_s=settings.heartbeat_s,
        hold_s=settings.hold_s,
        buffer_events=settings.buffer_events,
        # Leaving means saving, which has its own limit.
        leave_timeout_s=settings.save_timeout_s + 1,
    )
    async with (
        open_journaling(journal, habits) as journaling,
        open_answers(Answering(ports), journaling, pace, lingering) as underway,
    ):
        yield Resuming(underway, journal, ports, knobs.journal_flush_s)
