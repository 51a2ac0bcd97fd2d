"""How the time of an answer is shared."""

import asyncio

import pytest

from gateway.budget import Budget, Experience
from meshkit import deadline
from meshkit.deadline import Deadline


def _budget(seconds: float, experience: Experience | None = None) -> Budget:
    with deadline.using(Deadline.after(seconds)):
        return Budget.current(0.25, experience)


async def test_without_a_deadline_nothing_is_short() -> None:
    """A call without a deadline has all the time."""
    budget = Budget.current(0.25)
    assert budget.left_s() == budget.share_s("plan") == float("inf")
    assert budget.affords("plan")
    async with budget.within("plan"), budget.ending():
        assert deadline.current() is None


def test_reserve_is_kept_at_the_end() -> None:
    """It is not shared among the stages, and no more than a quarter of what is left."""
    assert _budget(100).left_s() == pytest.approx(99.75, abs=0.05)
    assert _budget(0.4).left_s() == pytest.approx(0.3, abs=0.05)


def test_stage_gets_its_share_of_what_is_left() -> None:
    """Shares are of the time left when the stage begins."""
    assert _budget(100).share_s("plan") == pytest.approx(0.15 * 99.75, abs=0.05)


def test_stage_that_would_overrun_is_not_afforded_until_it_has_faded() -> None:
    """What took too long is left out, and tried again after some answers."""
    experience = Experience()
    experience.took("hyde", 4.0)
    answers = [_budget(10, experience).affords("hyde") for _ in range(5)]
    assert answers == [False, False, False, False, True]
    assert _budget(100, experience).affords("hyde")


def test_experience_is_a_mean_that_follows() -> None:
    """The newest length counts for 0.3."""
    experience = Experience()
    experience.took("plan", 1.0)
    experience.took("plan", 2.0)
    assert experience.expected_s("plan") == pytest.approx(1.3)
    assert experience.expected_s("judge") == 0


def test_nothing_is_afforded_when_nothing_is_left() -> None:
    """A stage that was never seen is not begun at the end."""
    assert not _budget(0).affords("rewrite")


async def test_share_ends_its_body_and_bounds_its_peers() -> None:
    """The body ends when its share is over; calls made in it carry that as their deadline."""
    budget = _budget(0.6)
    with pytest.raises(TimeoutError):
        async with budget.within("retrieve"):
            current = deadline.current()
            assert current is not None
            assert current.remaining_s() <= 0.6 * 0.6
            await asyncio.Event().wait()
    assert budget.left_s() > 0
    assert deadline.current() is None
