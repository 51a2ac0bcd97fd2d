"""The course of an answer over peers in memory."""

import asyncio
from dataclasses import replace

import pytest

from gateway.answers import Abstention, Exchange, FinishReason, Retrieval
from gateway.events import Retrieved, Stage, StageState, Token
from gateway.generation import Chat, Delta, Ending, Grounded, Message, StructuredOutput, Usage, Writing
from gateway.retrieval import Degradation, Found, SearchMode, Span
from meshkit.errors import InvalidArgument, MeshError, NotFound, Unavailable
from meshkit.identity import Identity
from tests.gateway.in_memory import ALICE, HITS, QUESTION, Told, World, hit

AWAY = Degradation("session", "STORE_UNAVAILABLE")


def _shown(world: World) -> tuple[Message, ...]:
    """The messages of the last chat."""
    prompt = world.generator.generations[-1].prompt
    assert isinstance(prompt, Chat)
    return prompt.messages


async def test_events_come_in_the_order_of_the_course() -> None:
    """Every stage begins and ends, the citation follows the token that completes its marker."""
    told = Told()
    answer = await World().begin().run(told)
    assert told.names() == [
        *["Started", "Stage", "Stage", "Stage", "Retrieved", "Stage", "Stage", "Stage", "Stage"],
        *["Token", "Token", "Citation", "Usage", "Grounding", "Stage", "Answer"],
    ]
    stages = [(event.stage, event.state) for event in told.events if isinstance(event, Stage)]
    names = ["plan", "retrieve", "prompt", "generate"]
    assert stages == [(name, state) for name in names for state in (StageState.STARTED, StageState.DONE)]
    assert told.events[-1] == answer


async def test_answer_sums_up_its_events() -> None:
    """Text, citations, usage and timings of the answer are those that were told on the way."""
    world = World()
    answer = await world.begin().run(Told())
    assert (answer.text, answer.finish_reason) == ("25 days of leave. [1]", FinishReason.STOP)
    assert [(c.number, c.answer, c.quote) for c in answer.citations] == [(1, Span(0, 17), "25 days of leave.")]
    assert answer.usage == Usage(30, 10, 7)
    stages = [timing.stage for timing in answer.timings]
    assert stages == ["plan", "retrieve", "prompt", "first_token", "generate"]
    assert world.kept == answer


async def test_search_asks_for_what_the_question_says() -> None:
    """Options of the search are passed on; the number of chunks has the gateway's default."""
    world = World()
    wanted = Retrieval(SearchMode.SPARSE, 0, 'lang = "en"', rerank=True, diversity=0.5, window=2)
    await world.begin(retrieval=wanted).run(Told())
    (search,) = world.retriever.searches
    assert (search.mode, search.top_k, search.filter) == (SearchMode.SPARSE, 8, 'lang = "en"')
    assert (search.rerank, search.diversity, search.window) == (True, 0.5, 2)


async def test_extractive_engine_gets_grounded_input() -> None:
    """The default model here is extractive: it gets the passages with their scores."""
    world = World()
    await world.begin().run(Told())
    prompt = world.generator.generations[0].prompt
    assert isinstance(prompt, Grounded)
    assert [(p.number, p.text, p.score) for p in prompt.passages] == [
        (1, HITS[0].chunk.text, 1.0),
        (2, HITS[1].chunk.text, 0.5),
    ]


async def test_prompt_that_fits_is_sent_uncounted() -> None:
    """What the model takes as it is has one prompt stage, which says how many passages there are."""
    world, told = World(), Told()
    await world.begin(model="tiny").run(told)
    assert [stage.detail for stage in _prompted(told)] == [{"passages": 2}]
    assert len(world.generator.generations) == 1
    assert world.generator.counted == 0


async def test_language_model_gets_a_chat_that_fits() -> None:
    """Passages beyond the model's room are left out, worst first, and the stage says how many and how many remain."""
    world, told = World(), Told()
    world.retriever.found = Found(tuple(hit(n, f"leave{n} " * 60) for n in range(6)))
    answer = await world.begin(model="tiny", writing=Writing(max_tokens=50)).run(told)
    _, generation = world.generator.generations
    assert isinstance(generation.prompt, Chat)
    assert await world.generator.count_tokens("tiny", generation.prompt) <= 350
    assert generation.max_tokens == 50
    assert "leave0" in generation.prompt.messages[-1].content
    first, second = _prompted(told)
    kept = second.detail["passages"]
    assert isinstance(kept, int)
    assert first.detail == {"passages": 6}
    assert second.detail == {"passages": kept, "dropped_passages": 6 - kept, "dropped_turns": 0}
    assert kept in range(1, 6)
    assert answer.finish_reason is FinishReason.STOP


async def test_prompt_too_long_begins_its_stages_again() -> None:
    """Generating has begun when the model refuses: it is never done, and prompting stands before it anew."""
    world, told = World(), Told()
    world.retriever.found = Found(tuple(hit(n, f"leave{n} " * 60) for n in range(6)))
    answer = await world.begin(model="tiny").run(told)
    stages = [(event.stage, event.state) for event in told.events if isinstance(event, Stage)]
    began, done = StageState.STARTED, StageState.DONE
    again = [("prompt", began), ("prompt", done), ("generate", began)]
    assert stages[4:] == [*again, *again, ("generate", done)]
    assert [timing.stage for timing in answer.timings] == [
        *["plan", "retrieve", "prompt", "prompt", "first_token", "generate"]
    ]


def _prompted(told: Told) -> list[Stage]:
    """The prompt stages that were done."""
    stages = [event for event in told.events if isinstance(event, Stage)]
    return [stage for stage in stages if (stage.stage, stage.state) == ("prompt", StageState.DONE)]


async def test_tokens_are_bounded_where_nobody_says() -> None:
    """Without a wish the answer has at most a quarter of the context, and never more than the limit."""
    world = World()
    await world.begin(model="tiny").run(Told())
    assert world.generator.generations[0].max_tokens == 100


async def test_wish_that_leaves_no_room_fails_with_numbers() -> None:
    """More tokens than the context has are refused as PROMPT_TOO_LONG."""
    with pytest.raises(InvalidArgument, match="PROMPT_TOO_LONG") as raised:
        await World().begin(model="tiny", writing=Writing(max_tokens=400)).run(Told())
    assert raised.value.metadata["max_prompt_tokens"] == "0"


async def test_history_of_the_session_reaches_the_model() -> None:
    """The last turns of the session are in the prompt, without their markers."""
    world = World()
    for text in ("one", "two", "three"):
        await world.begin(text=text, session="s1", model="tiny").run(Told())
    shown = _shown(world)
    assert [said.content for said in shown if said.role == "user"][:-1] == ["one", "two"]
    assert "25 days of leave." in [said.content for said in shown]
    assert len(world.sessions.turns[ALICE, "s1"]) == 3


async def test_caller_may_bring_the_history() -> None:
    """A question without a session has the history that came with it, and none is kept."""
    world = World()
    history = (Exchange("before?", "yes"),)
    answer = await world.begin(session=None, history=history, model="tiny").run(Told())
    assert "before?" in [said.content for said in _shown(world)]
    assert answer.session == ""
    assert world.sessions.turns == {}


async def test_nothing_found_abstains_without_the_engine() -> None:
    """No hits: no generation, no text, and the reason as data."""
    world, told = World(), Told()
    world.retriever.found = Found((), (Degradation("dense", "PEER_UNAVAILABLE"),))
    answer = await world.begin().run(told)
    assert (answer.finish_reason, answer.abstention) == (FinishReason.ABSTAINED, Abstention.NO_RELEVANT_CHUNKS)
    assert (answer.text, world.generator.generations) == ("", [])
    assert answer.degradations == (Degradation("dense", "PEER_UNAVAILABLE"),)
    skipped = [e.stage for e in told.events if isinstance(e, Stage) and e.state is StageState.SKIPPED]
    assert skipped == ["prompt", "generate"]


@pytest.mark.parametrize("deltas", [[Delta(ending=Ending.ABSTAINED)], [Delta("NO_", 1), Delta("ANSWER", 1), None]])
async def test_engine_abstains(deltas: list[Delta | None]) -> None:
    """An engine's abstention, or a model's NO_ANSWER, is data, shows no text and frees the engine."""
    world, told = World(), Told()
    world.generator.deltas = deltas
    answer = await world.begin().run(told)
    assert answer.finish_reason is FinishReason.ABSTAINED
    assert answer.abstention is Abstention.INSUFFICIENT_SUPPORT
    assert answer.text == ""
    assert not [event for event in told.events if isinstance(event, Token)]
    assert world.generator.freed


async def test_held_back_beginning_is_shown_after_all() -> None:
    """Text that only began like NO_ANSWER is shown whole, with all of its tokens."""
    world, told = World(), Told()
    world.generator.deltas = [Delta("NO", 1), Delta("T so", 2)]
    answer = await world.begin().run(told)
    assert [(e.text, e.token_count) for e in told.events if isinstance(e, Token)] == [("NOT so", 3)]
    assert answer.text == "NOT so"


async def test_unknown_model_fails_before_anything_is_told() -> None:
    """MODEL_NOT_FOUND comes before the search and before any event."""
    world, told = World(), Told()
    with pytest.raises(NotFound, match="MODEL_NOT_FOUND"):
        await world.begin(model="gpt-9").run(told)
    assert told.events == []
    assert world.retriever.searches == []


async def test_new_model_is_found_without_waiting() -> None:
    """A name that the gateway does not know yet makes it ask the generator again."""
    world = World()
    course = world.begin(model="late")
    await course.ports.models.list()
    world.generator.models = [*world.generator.models, replace(world.generator.models[0], name="late")]
    assert (await course.run(Told())).model == "late"
    assert world.generator.asked_for_models == 2


async def test_form_is_refused_by_an_extractive_engine() -> None:
    """An engine that quotes cannot hold to a schema."""
    form = Writing(structured_output=StructuredOutput("json_object", True))
    with pytest.raises(InvalidArgument, match="UNSUPPORTED_BY_ENGINE"):
        await World().begin(writing=form).run(Told())


async def test_blank_question_is_refused_by_its_own_name() -> None:
    """What the caller sees is its own field, and not one of a search that it never asked for."""
    with pytest.raises(InvalidArgument, match="question: is blank"):
        await World().begin(text=" \n").run(Told())


async def test_failure_in_mid_answer_is_kept() -> None:
    """The turn of an answer that broke is kept as failed, with what was said and why it broke."""
    world = World()
    error = Unavailable("ENGINE_UNAVAILABLE", "the engine died")
    world.generator.deltas = [Delta("25 days"), error]
    with pytest.raises(Unavailable, match="ENGINE_UNAVAILABLE"):
        await world.begin().run(Told())
    assert (world.kept.text, world.kept.finish_reason) == ("25 days", FinishReason.FAILED)
    assert world.kept.failure is not None
    assert world.kept.failure.reason == "ENGINE_UNAVAILABLE"


async def test_failure_before_any_text_is_not_a_turn() -> None:
    """A question that was refused leaves nothing in the session."""
    world = World()
    world.retriever.error = InvalidArgument("INVALID_FILTER", "no")
    with pytest.raises(MeshError):
        await world.begin(session="s1").run(Told())
    assert (world.answers.answers, world.sessions.turns) == ({}, {})


async def test_caller_who_leaves_finds_what_was_said() -> None:
    """A cancelled answer frees the engine and is kept as interrupted, before the cancel goes on."""
    world, told = World(), Told()
    world.sessions.delay_s = 0.05
    world.generator.deltas = [Delta("25 "), Delta("days"), None]
    task = asyncio.create_task(world.begin(session="s1").run(told))
    async with asyncio.timeout(5):
        while "".join(e.text for e in told.events if isinstance(e, Token)) != "25 days":
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.generator.freed
    (turn,) = world.sessions.turns[ALICE, "s1"]
    assert (turn.text, turn.finish_reason) == ("25 days", FinishReason.INTERRUPTED)


async def test_second_cancel_does_not_lose_the_turn() -> None:
    """Even a caller's cancel during the saving leaves the saving to end."""
    world = World()
    world.answers.delay_s = world.sessions.delay_s = 0.05
    world.generator.deltas = [None]
    task = asyncio.create_task(world.begin(session="s1").run(Told()))
    for _ in range(2):
        await asyncio.sleep(0.02)
        task.cancel()
    await asyncio.wait({task}, timeout=5)
    await asyncio.sleep(0.2)
    assert world.sessions.turns[ALICE, "s1"][0].finish_reason is FinishReason.INTERRUPTED


async def test_answer_is_given_without_a_store() -> None:
    """With the store away a question without a session is answered, and the answer says what was left out."""
    world, told = World(), Told()
    world.sessions.away = world.answers.away = True
    answer = await world.begin().run(told)
    assert answer.text == "25 days of leave. [1]"
    assert answer.degradations == (AWAY,)
    assert told.events[-1] == answer


async def test_slow_store_holds_the_answer_up_no_longer_than_allowed() -> None:
    """Saving that takes too long is given up."""
    world = World()
    world.answers.delay_s = 60
    world.limits = replace(world.limits, save_timeout_s=0.05)
    async with asyncio.timeout(5):
        answer = await world.begin().run(Told())
    assert answer.degradations == (AWAY,)


async def test_named_session_needs_the_store() -> None:
    """A session that was named may exist: without the store its question is not answered as if it were new."""
    world = World()
    world.sessions.away = True
    with pytest.raises(Unavailable, match="STORE_UNAVAILABLE"):
        await world.begin(session="s1").run(Told())


async def test_same_request_id_gives_the_same_answer() -> None:
    """The second call generates nothing and saves no second turn."""
    world, told = World(), Told()
    first = await world.begin(session="s1", request_id="r1").run(Told())
    second = await world.begin(session="s1", request_id="r1").run(told)
    assert second == first
    assert told.names() == ["Started", "Token", "Citation", "Grounding", "Usage", "Answer"]
    assert len(world.generator.generations) == len(world.sessions.turns[ALICE, "s1"]) == 1


async def test_request_id_is_the_owners_and_the_questions() -> None:
    """Another caller's request id is another answer; another question under the same id is refused."""
    world = World()
    await world.begin(request_id="r1").run(Told())
    await world.begin(request_id="r1", owner=Identity("acme", "bob")).run(Told())
    assert len(world.generator.generations) == 2
    with pytest.raises(InvalidArgument, match="REQUEST_ID_REUSED"):
        await world.begin(text="other", request_id="r1").run(Told())


async def test_broken_answer_is_made_anew_under_its_request_id() -> None:
    """An answer that failed is no answer: asking again generates."""
    world = World()
    world.generator.deltas = [Delta("x"), Unavailable("ENGINE_UNAVAILABLE", "died")]
    with pytest.raises(Unavailable):
        await world.begin(request_id="r1").run(Told())
    world.generator.deltas = [Delta("25 days.")]
    assert (await world.begin(request_id="r1").run(Told())).text == "25 days."


async def test_hits_are_told_in_the_order_of_their_numbers() -> None:
    """The place of a hit in the event is the number by which the answer cites it."""
    told = Told()
    await World().begin().run(told)
    (retrieved,) = [event for event in told.events if isinstance(event, Retrieved)]
    assert (retrieved.query, retrieved.hits) == (QUESTION.text, HITS)
