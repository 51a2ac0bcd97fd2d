"""How much of a conversation an answer is shown, and what becomes of the rest."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from gateway.answers import Exchange, FinishReason
from gateway.generation import Chat
from gateway.remembering import Bound, estimated_tokens, newest, remember
from gateway.sessions import Session, Summary, Turn
from gateway.summarising import Older, open_summaries
from meshkit.errors import Unavailable
from tests.gateway.in_memory import ALICE, TINY, MemoryGenerator, MemorySessions, Told, World

NOW = datetime.now(UTC)
SUMMARISES = "Summarise the conversation"


def _turns(count: int, text: str = "an answer") -> tuple[Turn, ...]:
    return tuple(Turn(f"a{n}", f"q{n}", text, (), FinishReason.STOP, NOW) for n in range(count))


def _session(turns: Sequence[Turn], summary: Summary | None = None) -> Session:
    return Session("s1", "title", NOW, NOW, NOW, tuple(turns), summary)


def _questions(history: Sequence[Exchange]) -> list[str]:
    return [exchange.question for exchange in history]


def test_tokens_are_estimated_from_bytes() -> None:
    """Four bytes make one, so a sign of Chinese is most of one."""
    assert estimated_tokens("twelve bytes") == 4
    assert estimated_tokens("年假有多少天") == 5


@pytest.mark.parametrize(("turns", "tokens", "shown"), [(8, 1000, 5), (3, 1000, 3), (8, 19, 4), (8, 1, 0)])
def test_newest_exchanges_are_shown_within_the_bound(turns: int, tokens: int, shown: int) -> None:
    """By number and by tokens, whichever is less; never the oldest."""
    history = [Exchange(f"q{n}", "an answer") for n in range(5)]
    assert _questions(newest(history, Bound(turns, tokens))) == [f"q{n}" for n in range(5)][5 - shown :]


def test_short_conversation_is_remembered_whole() -> None:
    """Nothing is to be summarised; a turn that said nothing is not shown."""
    memory = remember(_session((*_turns(2), *_turns(1, ""))), Bound(8, 1000))
    assert (_questions(memory.history), memory.older, memory.summary) == (["q0", "q1"], (), "")


def test_long_conversation_leaves_its_older_half_to_a_summary() -> None:
    """What exceeds the bound is summarised down to half of it, so that the next summary is some turns away."""
    memory = remember(_session(_turns(9)), Bound(8, 1000))
    assert _questions(memory.history) == [f"q{n}" for n in range(1, 9)]
    assert [turn.answer for turn in memory.older] == ["a0", "a1", "a2", "a3", "a4"]


def test_summarised_turns_are_shown_as_their_summary() -> None:
    """Only what was said after it is shown as it was said, so prompts begin alike until the next summary."""
    memory = remember(_session(_turns(9), Summary("Of leave.", "a4")), Bound(8, 1000))
    assert (memory.summary, _questions(memory.history), memory.older) == ("Of leave.", ["q5", "q6", "q7", "q8"], ())


def test_summary_of_forgotten_turns_counts() -> None:
    """Where the turn that it ends with is kept no longer, all that are kept came after it."""
    memory = remember(_session(_turns(2), Summary("Of leave.", "gone")), Bound(8, 1000))
    assert (memory.summary, len(memory.history)) == ("Of leave.", 2)


async def _summarised(said: object, timeout_s: float = 1.0) -> tuple[MemoryGenerator, MemorySessions]:
    generator, sessions = MemoryGenerator(), MemorySessions()
    generator.advice = {SUMMARISES: said}  # type: ignore[dict-item]
    async with open_summaries(generator, sessions, timeout_s, most=1) as summaries, asyncio.timeout(5):
        summaries.want(TINY, Older(ALICE, "s1", "Before.", _turns(2)))
        summaries.want(TINY, Older(ALICE, "s1", "Before.", _turns(2)))
        summaries.want(TINY, Older(ALICE, "s2", "Before.", _turns(2)))
        await summaries.settle()
    return generator, sessions


async def test_summary_goes_on_the_one_before() -> None:
    """The model reads that and the turns; one task a session, and no more at once than allowed."""
    generator, sessions = await _summarised(" Of leave. ")
    assert sessions.summaries == {(ALICE, "s1"): Summary("Of leave.", "a1")}
    (generation,) = generator.advised
    assert isinstance(generation.prompt, Chat)
    shown = generation.prompt.messages[1].content
    assert shown.startswith("Before that, in short: Before.")
    assert "User: q1\nAssistant: an answer" in shown


@pytest.mark.parametrize("said", [Unavailable("ENGINE_UNAVAILABLE", "died"), None, " "])
async def test_failed_summary_is_left_to_the_next_answer(said: object) -> None:
    """An engine that dies, hangs or says nothing leaves the session as it was."""
    _, sessions = await _summarised(said, timeout_s=0.05)
    assert sessions.summaries == {}


async def test_closing_leaves_what_is_under_way() -> None:
    """A summary that would take for ever does not keep the process."""
    generator = MemoryGenerator(advice={SUMMARISES: None})
    async with asyncio.timeout(5), open_summaries(generator, MemorySessions(), 60, most=1) as summaries:
        summaries.want(TINY, Older(ALICE, "s1", "", _turns(2)))
        await asyncio.sleep(0)
    assert generator.freed


async def test_answer_shows_the_summary_and_has_the_next_one_made() -> None:
    """The turn that comes after a long conversation summarises it; the one after that is shown the summary."""
    world = World()
    world.generator.advice = {SUMMARISES: "It was about leave."}
    world.sessions.turns[ALICE, "s1"] = _turns(3)
    async with open_summaries(world.generator, world.sessions, 1.0, most=4) as summaries:
        world.summaries = summaries
        await world.begin(session="s1", model="tiny").run(Told())
        await summaries.settle()
        assert world.sessions.summaries[ALICE, "s1"] == Summary("It was about leave.", "a1")
        await world.begin(session="s1", model="tiny").run(Told())
    prompt = world.generator.generations[-1].prompt
    assert isinstance(prompt, Chat)
    assert prompt.messages[0].content.endswith("It was about leave.")


async def test_without_a_language_model_older_turns_are_only_dropped() -> None:
    """An extractive engine summarises nothing."""
    world = World()
    world.sessions.turns[ALICE, "s1"] = _turns(3)
    async with open_summaries(world.generator, world.sessions, 1.0, most=4) as summaries:
        world.summaries = summaries
        await world.begin(session="s1").run(Told())
        await summaries.settle()
    assert world.sessions.summaries == {}
