"""Second attempts: when, how many, and what becomes of the loser."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.errors import InvalidArgument, ResourceExhausted, Unavailable
from retriever_svc.hedging import Attempt, Hedging, Policy, in_turn

# Every call takes longer than most, and each may be tried twice.
AT_ONCE = Policy(floor_s=0, ceiling_s=0, budget=1)
AWAY = Unavailable("PEER_UNAVAILABLE", "away")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Replica:
    """Answers with its name, at once or when it may, and notes who came and who left."""

    def __init__(self, name: str, *, answers: bool = True, error: Exception | None = None) -> None:
        self.name = name
        self.error = error
        self.may_answer = asyncio.Event()
        self.asked = 0
        self.left = 0
        if answers:
            self.may_answer.set()

    async def ask(self) -> str:
        self.asked += 1
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if self.error:
            raise self.error
        return self.name


async def run_for(hedging: Hedging, clock: Clock, *took_s: float) -> None:
    """Calls that took so long, of a peer with two replicas."""
    for seconds in took_s:
        await hedging.call([_taking(clock, seconds), _taking(clock, seconds)])


def _taking(clock: Clock, seconds: float) -> Attempt[None]:
    async def attempt() -> None:
        clock.now_s += seconds

    return attempt


async def test_the_delay_is_a_quantile_of_the_latest_calls() -> None:
    """Of the last twenty, old ones forgotten, the nineteenth; before there are so many, the ceiling."""
    clock = Clock()
    hedging = Hedging(Policy(window=20, least=20, floor_s=0.001, ceiling_s=5), clock)
    await run_for(hedging, clock, *[4.0] * 19)
    assert hedging.delay_s == 5
    await run_for(hedging, clock, *(place / 100 for place in range(20, 0, -1)))
    assert hedging.delay_s == pytest.approx(0.19)


async def test_the_delay_has_bounds() -> None:
    """However quick or slow the calls are."""
    for took_s, delay_s in ((0.0, 0.02), (0.1, 0.1), (60.0, 0.5)):
        clock = Clock()
        hedging = Hedging(Policy(floor_s=0.02, ceiling_s=0.5), clock)
        await run_for(hedging, clock, *[took_s] * 20)
        assert hedging.delay_s == pytest.approx(delay_s)


async def test_the_second_attempt_wins_and_the_first_is_cancelled() -> None:
    """Before the answer is given."""
    slow, quick = Replica("slow", answers=False), Replica("quick")
    hedging = Hedging(AT_ONCE)
    assert await hedging.call([slow.ask, quick.ask]) == "quick"
    assert (slow.asked, slow.left, quick.left) == (1, 1, 0)
    assert (hedging.totals.calls, hedging.totals.hedged, hedging.totals.won) == (1, 1, 1)


async def test_the_first_attempt_may_still_win() -> None:
    """And then the second is cancelled."""
    slow, slower = Replica("slow", answers=False), Replica("slower", answers=False)
    hedging = Hedging(AT_ONCE)
    call = asyncio.create_task(hedging.call([slow.ask, slower.ask]))
    await _until(lambda: slower.asked == 1)
    slow.may_answer.set()
    assert await call == "slow"
    assert (slower.left, hedging.totals.won) == (1, 0)


async def test_a_caller_who_leaves_cancels_both() -> None:
    """No attempt outlives its call."""
    replicas = [Replica(name, answers=False) for name in "ab"]
    call = asyncio.create_task(Hedging(AT_ONCE).call([replica.ask for replica in replicas]))
    await _until(lambda: replicas[1].asked == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [replica.left for replica in replicas] == [1, 1]


async def test_one_replica_is_asked_once() -> None:
    """However long it takes."""
    only = Replica("only", answers=False)
    call = asyncio.create_task(Hedging(AT_ONCE).call([only.ask]))
    await _until(lambda: only.asked == 1)
    only.may_answer.set()
    assert (await call, only.asked) == ("only", 1)


async def test_without_a_budget_the_first_answer_is_awaited() -> None:
    """And the refusal is counted."""
    slow, quick = Replica("slow", answers=False), Replica("quick")
    hedging = Hedging(Policy(floor_s=0, ceiling_s=0, budget=0))
    call = asyncio.create_task(hedging.call([slow.ask, quick.ask]))
    await _until(lambda: hedging.totals.denied == 1)
    slow.may_answer.set()
    assert (await call, quick.asked) == ("slow", 0)


@settings(max_examples=30)
@given(st.lists(st.booleans(), max_size=60), st.floats(0, 0.5), st.floats(1, 5))
def test_the_budget_holds_at_every_moment(slow: list[bool], budget: float, burst: float) -> None:
    """Of the calls so far at most the share has had a second attempt, and of a run at most that and the burst."""

    async def run() -> None:
        hedging = Hedging(Policy(floor_s=0, ceiling_s=0, budget=budget, burst=burst))
        for count, is_slow in enumerate(slow, start=1):
            await _call_once(hedging, is_slow=is_slow)
            assert hedging.totals.hedged <= budget * count + 1e-9

    asyncio.run(run())


async def _call_once(hedging: Hedging, *, is_slow: bool) -> None:
    """A call whose first attempt, where it is slow, ends once it is clear whether there is a second."""
    first, second = Replica("first", answers=not is_slow), Replica("second")
    denied = hedging.totals.denied
    call = asyncio.create_task(hedging.call([first.ask, second.ask]))
    await _until(lambda: call.done() or hedging.totals.denied > denied)
    first.may_answer.set()
    await call


@pytest.mark.parametrize("error", [AWAY, ResourceExhausted("OVERLOADED", "full")])
async def test_who_refuses_is_passed_over(error: Exception) -> None:
    """By as many as do, out of no budget."""
    first, second, third = Replica("first", error=error), Replica("second", error=error), Replica("third")
    hedging = Hedging(Policy(budget=0))
    assert await hedging.call([first.ask, second.ask, third.ask]) == "third"
    assert hedging.totals.hedged == 0


async def test_the_last_refusal_is_raised() -> None:
    """Where all refuse, hedged or not."""
    for policy in (AT_ONCE, Policy(budget=0)):
        replicas = [Replica(name, error=AWAY) for name in "ab"]
        with pytest.raises(Unavailable):
            await Hedging(policy).call([replica.ask for replica in replicas])


@pytest.mark.parametrize("at_fault", [0, 1])
async def test_one_that_fails_leaves_the_race_to_the_other(at_fault: int) -> None:
    """Whichever of the two it is."""
    racing = [Replica(name, answers=False) for name in "ab"]
    racing[at_fault].error = AWAY
    call = asyncio.create_task(Hedging(AT_ONCE).call([replica.ask for replica in racing]))
    await _until(lambda: racing[1].asked == 1)
    racing[at_fault].may_answer.set()
    await _turn()
    racing[1 - at_fault].may_answer.set()
    assert await call == racing[1 - at_fault].name


async def test_what_is_wrong_with_the_request_is_not_asked_again() -> None:
    """Another replica would say the same."""
    wrong, other = Replica("wrong", error=InvalidArgument("INVALID_FIELD", "bad")), Replica("other")
    with pytest.raises(InvalidArgument):
        await in_turn([wrong.ask, other.ask])
    assert other.asked == 0


async def _until(holds: Callable[[], Any]) -> None:
    """Let the others run until it holds."""
    async with asyncio.timeout(5):
        while not holds():
            await _turn()


def _turn() -> Awaitable[None]:
    return asyncio.sleep(0)
