"""Events are relayed one by one, numbered, with heartbeats and a plain failure where nothing was said."""

import asyncio

import pytest

from gateway.answers import Answer, FinishReason
from gateway.events import Event, Failed, Heartbeat, Numbered, Started, Token
from gateway.generation import Delta
from gateway.relaying import Pace, Relay, Underway
from meshkit.errors import Aborted, Internal, InvalidArgument, MeshError, Unavailable
from tests.gateway.in_memory import World

PACE = Pace(heartbeat_s=5.0, hold_s=1.0, buffer_events=64, leave_timeout_s=2.0)
DIED = Unavailable("ENGINE_UNAVAILABLE", "died")


async def _relayed(relay: Relay) -> tuple[list[Numbered], MeshError | None]:
    heard: list[Numbered] = []
    try:
        async for event in relay:
            heard.append(event)
    except MeshError as error:
        return heard, error
    return heard, None


async def test_events_are_numbered_without_gaps() -> None:
    """Numbers begin with 1 and the last event is the answer; times do not go back."""
    async with Relay(Underway(World().begin(), PACE)) as relay:
        heard, error = await _relayed(relay)
    assert [event.sequence for event in heard] == list(range(1, len(heard) + 1))
    assert [event.elapsed_s for event in heard] == sorted(event.elapsed_s for event in heard)
    assert isinstance(heard[-1].event, Answer)
    assert error is None
    assert relay.finished


async def test_failure_before_any_result_is_only_raised() -> None:
    """A search that fails leaves no event behind, so that HTTP callers see a plain status."""
    world = World()
    world.retriever.error = InvalidArgument("INVALID_FILTER", "no")
    async with Relay(Underway(world.begin(), PACE)) as relay:
        heard, error = await _relayed(relay)
    assert heard == []
    assert error is world.retriever.error


async def test_failure_in_mid_answer_is_told_then_raised() -> None:
    """Once something was relayed the failure is the last event and then the error."""
    world = World()
    world.generator.deltas = [Delta("25"), Delta(" days"), DIED]
    heard: list[Event] = []
    async with Relay(Underway(world.begin(), PACE)) as relay:
        with pytest.raises(Unavailable):
            async for event in relay:
                heard.append(event.event)
                await asyncio.sleep(0)
    assert isinstance(heard[0], Started)
    assert heard[-1] == Failed(DIED)
    assert [event.text for event in heard if isinstance(event, Token)] == ["25", " days"]


async def test_fault_of_ours_leaves_with_fixed_words() -> None:
    """What nobody foresaw reaches the caller as INTERNAL_ERROR without its own text."""
    world = World()
    world.retriever.error = ValueError("password=secret")  # type: ignore[assignment]
    async with Relay(Underway(world.begin(), PACE)) as relay:
        heard, error = await _relayed(relay)
    assert heard == []
    assert isinstance(error, Internal)
    assert "secret" not in str(error)


async def test_silence_is_filled_with_heartbeats() -> None:
    """A heartbeat comes each time nothing happened for long enough, with a number like any event."""
    world = World()
    world.generator.deltas = [Delta("25"), None]
    pace = Pace(heartbeat_s=0.02, hold_s=1.0, buffer_events=64, leave_timeout_s=2.0)
    heard: list[Numbered] = []
    async with Relay(Underway(world.begin(), pace)) as relay:
        async for event in relay:
            heard.append(event)
            if sum(isinstance(h.event, Heartbeat) for h in heard) == 2:
                break
    assert [event.sequence for event in heard] == list(range(1, len(heard) + 1))
    assert isinstance(heard[-1].event, Heartbeat)


async def test_slow_search_does_not_hold_the_first_event() -> None:
    """After the hold the caller sees that the work has begun; a failure is then told as an event."""
    heard_first = asyncio.Event()

    class Slow:
        async def search(self, search: object) -> None:
            await heard_first.wait()
            raise DIED

    world = World()
    world.retriever = Slow()  # type: ignore[assignment]
    pace = Pace(heartbeat_s=5.0, hold_s=0.02, buffer_events=64, leave_timeout_s=2.0)
    async with asyncio.timeout(5), Relay(Underway(world.begin(), pace)) as relay:
        first = await anext(relay)
        heard_first.set()
        heard, error = await _relayed(relay)
    assert isinstance(first.event, Started)
    assert heard[-1].event == Failed(DIED)
    assert error is DIED


async def test_leaving_ends_and_keeps_the_answer() -> None:
    """When the body is left the engine is free and the turn is kept."""
    world = World()
    world.generator.deltas = [Delta("25"), None]
    async with Relay(Underway(world.begin(), PACE)) as relay:
        async for event in relay:
            if isinstance(event.event, Token):
                break
    assert world.generator.freed
    assert (world.kept.text, world.kept.finish_reason) == ("25", FinishReason.INTERRUPTED)


async def test_closing_returns_when_the_answer_is_kept() -> None:
    """Also where it was being kept already: the store is closed next."""
    world = World()
    world.answers.delay_s = 0.05
    underway = Underway(world.begin(), PACE)
    async with asyncio.timeout(2):
        while not underway.course.keeping.kept:
            await asyncio.sleep(0)
    await underway.close()
    assert world.kept.finish_reason is FinishReason.STOP
    assert underway.events[-1].event == world.kept


async def test_answer_that_is_closed_at_once_ends() -> None:
    """Also before its task has run at all."""
    underway = Underway(World().begin(), PACE)
    await underway.close()
    last = underway.events[-1].event
    assert isinstance(last, Answer)
    assert (underway.ended, last.finish_reason) == (True, FinishReason.INTERRUPTED)


async def test_slow_caller_holds_the_engine_up() -> None:
    """No more events than the buffer has are made ahead of the caller."""
    world = World()
    world.generator.deltas = [Delta("x ")] * 1000
    pace = Pace(heartbeat_s=5.0, hold_s=1.0, buffer_events=16, leave_timeout_s=2.0)
    underway = Underway(world.begin(), pace)
    async with Relay(underway) as relay:
        await anext(relay)
        await asyncio.sleep(0.05)
        assert [len(underway.events), underway.ended] == [17, False]
        rest, error = await _relayed(relay)
    assert (len([event for event in rest if isinstance(event.event, Token)]), error) == (1000, None)


async def test_readers_each_read_all_of_it() -> None:
    """Readers have the same events with the same numbers, each at its own speed; the fastest sets the engine's."""
    world = World()
    world.generator.deltas = [Delta("x ")] * 100
    pace = Pace(heartbeat_s=5.0, hold_s=1.0, buffer_events=16, leave_timeout_s=2.0)
    underway = Underway(world.begin(), pace)
    async with Relay(underway) as slow, Relay(underway) as fast, Relay(underway, after=5) as late:
        first = await anext(slow)
        heard, _ = await _relayed(fast)
        again, _ = await _relayed(slow)
        rest, _ = await _relayed(late)
    assert [first, *again] == heard
    assert rest == heard[5:]


async def test_answer_ends_when_its_last_reader_leaves() -> None:
    """One of two readers may leave; after the other one the engine is free, and there is a last event all the same."""
    world = World()
    world.generator.deltas = [Delta("25"), None]
    underway = Underway(world.begin(), PACE)
    async with Relay(underway) as first:
        async with Relay(underway) as second:
            await anext(second)
        assert not underway.ended
        await anext(first)
    assert world.generator.freed
    last = underway.events[-1].event
    assert isinstance(last, Answer)
    assert last.finish_reason is FinishReason.INTERRUPTED


async def test_last_event_may_be_all_that_is_read() -> None:
    """Who wants the end only holds nobody up."""
    world = World()
    world.generator.deltas = [Delta("x ")] * 100
    pace = Pace(heartbeat_s=5.0, hold_s=1.0, buffer_events=16, leave_timeout_s=2.0)
    async with Relay(Underway(world.begin(), pace)) as relay:
        assert (await relay.last()).text == "x " * 100


@pytest.mark.parametrize("times", [1, 2])
async def test_interrupt_ends_with_the_answer_so_far(times: int) -> None:
    """Stopping an answer, once or more, ends it with what was said; it is kept like that."""
    world = World()
    world.generator.deltas = [Delta("25 days"), None]
    heard: list[Event] = []
    async with Relay(Underway(world.begin(), PACE)) as relay:
        async for event in relay:
            heard.append(event.event)
            if isinstance(event.event, Token):
                for _ in range(times):
                    relay.stop()
    last = heard[-1]
    assert isinstance(last, Answer)
    assert (last.text, last.finish_reason) == ("25 days", FinishReason.INTERRUPTED)
    assert world.kept.finish_reason is FinishReason.INTERRUPTED


async def test_stop_with_an_error_fails_the_answer() -> None:
    """Stopping for an error tells it last and raises it."""
    world = World()
    world.generator.deltas = [Delta("25 days"), None]
    why = Aborted("OUT_OF_ORDER", "no")
    async with Relay(Underway(world.begin(), PACE)) as relay:
        await anext(relay)
        relay.stop(why)
        heard, error = await _relayed(relay)
    assert heard[-1].event == Failed(why)
    assert error is why
