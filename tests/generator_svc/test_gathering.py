"""How long a stream waits between its messages."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing

import pytest

from generator_svc.engine import Delta, FinishReason
from generator_svc.gathering import Gathering

LAST = Delta("", 0, finish=FinishReason.STOP)


async def said(*deltas: Delta, broken: bool = False) -> AsyncGenerator[Delta, None]:
    """The deltas, all at once, and then a failure where it is broken."""
    for delta in deltas:
        yield delta
    if broken:
        raise ConnectionError("gone")


def words(text: str, index: int = 0) -> Sequence[Delta]:
    """A delta for each word."""
    return [Delta(f"{word} ", 1, index, token_ids=(len(word),)) for word in text.split()]


async def joined(deltas: AsyncGenerator[Delta, None], others: int = 1) -> list[Delta]:
    """What a reader gets while so many others read streams of their own."""
    gathering = Gathering(0.01)
    with ExitStack() as streams:
        for _ in range(1 + others):
            streams.enter_context(gathering.stream())
        async with asyncio.timeout(5), aclosing(gathering.joined(deltas, asyncio.Event())) as read:
            return [delta async for delta in read]


def test_a_stream_alone_waits_for_nothing() -> None:
    """Nobody else's tokens are on their way."""
    gathering = Gathering(0.04)
    assert gathering.gap_s == 0
    with gathering.stream():
        assert gathering.gap_s == 0


def test_each_other_stream_adds_a_millisecond() -> None:
    """The wait grows with the streams, no further than the limit."""
    gathering = Gathering(0.02)
    with ExitStack() as streams:
        gaps_s = []
        for _ in range(32):
            streams.enter_context(gathering.stream())
            gaps_s.append(gathering.gap_s)
    assert gaps_s == pytest.approx([min(0.001 * others, 0.02) for others in range(32)])


def test_stream_that_fails() -> None:
    """However it ends, the others wait no longer for it."""
    gathering = Gathering(0.04)
    with gathering.stream():
        with pytest.raises(ValueError, match="broken"), gathering.stream():
            raise ValueError("broken")
        assert gathering.gap_s == 0


def test_a_limit_of_nothing_gathers_nothing() -> None:
    """The setting's zero turns it off."""
    gathering = Gathering(0.0)
    with gathering.stream(), gathering.stream():
        assert gathering.gap_s == 0


async def test_the_first_comes_alone_and_the_rest_joined() -> None:
    """Texts, tokens and their ids in order, ended as the last one ends."""
    first, rest = await joined(said(*words("boats are moored"), LAST))
    assert first.text == "boats "
    assert (rest.text, rest.tokens, rest.token_ids) == ("are moored ", 2, (3, 6))
    assert rest.finish is FinishReason.STOP


async def test_a_stream_alone_is_not_joined() -> None:
    """Each delta as it came."""
    deltas = [*words("boats are moored"), LAST]
    assert await joined(said(*deltas), others=0) == deltas
    assert await joined(said()) == []


async def test_sequences_are_joined_apart() -> None:
    """Each goes on with its own text."""
    one, other = words("boats are moored"), words("ships lie here", index=1)
    both = [delta for pair in zip(one, other, strict=True) for delta in pair]
    _, second, first = await joined(said(*both))
    assert (first.index, first.text, second.index, second.text) == (0, "are moored ", 1, "ships lie here ")


async def test_what_comes_while_nobody_waits_is_read_in_one_go() -> None:
    """The source rests until more is wanted, and then tells all that it has."""
    wanted = asyncio.Event()
    wanted.set()

    async def source() -> AsyncGenerator[Delta, None]:
        for text in ("boats are", "moored here", "at night"):
            await wanted.wait()
            for delta in words(text):
                yield delta

    gathering = Gathering(0.01)
    with gathering.stream(), gathering.stream():
        async with asyncio.timeout(5), aclosing(source()) as deltas, aclosing(gathering.joined(deltas, wanted)) as read:
            assert [delta.text async for delta in read] == ["boats ", "are ", "moored here ", "at night "]


async def test_a_failure_comes_behind_what_was_read() -> None:
    """Nothing that had come is lost."""
    read: list[str] = []
    gathering = Gathering(0.01)
    with gathering.stream(), gathering.stream(), pytest.raises(ConnectionError, match="gone"):
        async for delta in gathering.joined(said(*words("boats are moored"), broken=True), asyncio.Event()):
            read.append(delta.text)
    assert read == ["boats ", "are moored "]


async def test_who_leaves_ends_the_reading() -> None:
    """The source is closed by its owner, with nobody left in it."""
    asked = asyncio.Event()

    async def silent() -> AsyncGenerator[Delta, None]:
        yield Delta("boats ", 1)
        asked.set()
        await asyncio.Event().wait()

    source = silent()
    async with aclosing(source), aclosing(Gathering(0.01).joined(source, asyncio.Event())) as deltas:
        assert (await anext(deltas)).text == "boats "
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(deltas)
        assert asked.is_set()
