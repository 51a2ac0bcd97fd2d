"""The step that searches: what it searches for, what it races, and what it does when time is short."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.answers import Abstention, Exchange, FinishReason, Planning, Retrieval
from gateway.budget import Budget
from gateway.course import Course, State
from gateway.events import Retrieved
from gateway.plans import Plan
from gateway.retrieval import Degradation, Found, SearchMode
from gateway.steps.retrieving import retrieve
from meshkit import deadline
from meshkit.deadline import Deadline
from meshkit.errors import NotFound, Unavailable
from tests.gateway.in_memory import EXTRACTIVE, HITS, TINY, Told, World, hit

BEFORE = (Exchange("How long is parental leave?", "Six months [1]."),)
FOLLOW_UP = "And in Germany?"
JOINED = "How long is parental leave And in Germany?"
ALONE = "How long is parental leave in Germany?"
REWRITES, IMAGINES = "search engine", "Write a passage"
GERMAN = Found((hit(7, "Leave in Germany is longer."),))


class Step:
    """A course that has come to its search."""

    def __init__(self, model: Any = TINY, within_s: float | None = None, **changes: Any) -> None:
        self.world, self.told = World(), Told()
        given = {"session": None, "history": BEFORE, "text": FOLLOW_UP, **changes}
        self.course: Course = self.world.under_way(self.told, model, **given)
        if within_s is not None:
            with deadline.using(Deadline.after(within_s)):
                self.course.budget = Budget.current()

    def advise(self, **advice: Any) -> None:
        self.world.generator.advice = {{"rewrite": REWRITES, "hyde": IMAGINES}[k]: v for k, v in advice.items()}

    async def take(self) -> State:
        tasks = asyncio.all_tasks()
        async with asyncio.timeout(5):
            state = await retrieve(self.course)
        assert asyncio.all_tasks() == tasks
        return state

    @property
    def queries(self) -> list[str]:
        return [search.query for search in self.world.retriever.searches]


async def test_question_that_stands_alone_is_searched_as_it_is() -> None:
    """Neither a model nor a rule is asked to rewrite it."""
    step = Step(text="How long is leave?")
    assert await step.take() is State.WRITE
    assert step.queries == ["How long is leave?"]
    assert step.world.generator.advised == []
    assert step.told.names() == ["Stage", "Retrieved", "Stage"]


async def test_follow_up_is_joined_where_there_is_no_language_model() -> None:
    """It is searched for with the words of the question before it, once."""
    step = Step(EXTRACTIVE)
    await step.take()
    assert step.queries == [JOINED]
    assert step.course.plan.queries == (JOINED,)
    assert step.told.details("rewrite") == [{"queries": [JOINED]}]


async def test_follow_up_of_a_follow_up_goes_on_what_both_are_about() -> None:
    """The last question that stands alone has the words that are missing; thanks have none."""
    between = (Exchange("And in Germany?", "Seven."), Exchange("Thanks!", "You are welcome."))
    step = Step(EXTRACTIVE, text="What about fathers?", history=(*BEFORE, *between))
    await step.take()
    assert step.queries == ["How long is parental leave What about fathers?"]


async def test_rewritten_question_wins_and_the_quick_search_is_cancelled() -> None:
    """The model's question is searched for, and what rules made of it no longer."""
    step = Step()
    step.advise(rewrite=f'{{"question": "{ALONE}", "parts": []}}')
    step.world.retriever.special = {JOINED: None, ALONE: GERMAN}
    assert await step.take() is not State.END
    assert step.queries == [JOINED, ALONE]
    assert step.world.retriever.cancelled == [JOINED]
    assert step.course.found.hits == GERMAN.hits
    assert step.course.plan.queries == (ALONE,)
    assert [event.query for event in step.told.events if isinstance(event, Retrieved)] == [ALONE]


async def test_late_rewriting_loses_to_the_quick_search() -> None:
    """A model that does not answer in its share is left, and the answer says so."""
    step = Step(within_s=1.0)
    step.advise(rewrite=None)
    await step.take()
    assert step.queries == [JOINED]
    assert step.course.found.hits == HITS
    assert step.world.generator.freed
    assert step.course.answer.degradations == (Degradation("rewrite", "DEADLINE_EXCEEDED"),)


@pytest.mark.parametrize(
    ("said", "reason"),
    [('{"question": 7', "UNSUPPORTED_BY_ENGINE"), (Unavailable("ENGINE_UNAVAILABLE", "died"), "ENGINE_UNAVAILABLE")],
)
async def test_failed_rewriting_is_left_out(said: Any, reason: str) -> None:
    """What is no form, or an engine that fails, costs the rewriting and nothing else."""
    step = Step()
    step.advise(rewrite=said)
    await step.take()
    assert step.queries == [JOINED]
    assert Degradation("rewrite", reason) in step.course.answer.degradations


async def test_rewriting_that_lately_took_too_long_is_not_begun() -> None:
    """What would overrun its share is skipped before a model is asked."""
    step = Step(within_s=5.0)
    step.course.budget.experience.took("rewrite tiny", 4.0)
    step.advise(rewrite=f'{{"question": "{ALONE}"}}')
    await step.take()
    assert step.world.generator.advised == []
    assert step.course.answer.degradations == (Degradation("rewrite", "DEADLINE_EXCEEDED"),)


async def test_question_without_a_collection_fails_while_it_is_rewritten() -> None:
    """The quick search's failure is not waited with."""
    step = Step()
    step.advise(rewrite=None)
    step.world.retriever.error = NotFound("COLLECTION_NOT_FOUND", "none")
    with pytest.raises(NotFound, match="COLLECTION_NOT_FOUND"):
        await step.take()


async def test_compound_question_is_searched_in_parts() -> None:
    """The whole and its parts are searched for at once; chunks that several find come first, each once."""
    step = Step(text="Compare sick leave with holidays.", history=())
    step.advise(rewrite='{"question": "sick leave or holidays", "parts": ["sick leave?", "holidays?"]}')
    sick, holidays, both = hit(3, "Sick leave."), hit(4, "Holidays."), hit(5, "Sick leave and holidays.")
    found = {
        "sick leave?": Found((sick, both)),
        "holidays?": Found((holidays, both)),
        "sick leave or holidays": Found(()),
    }
    step.world.retriever.special = dict(found)
    await step.take()
    assert step.queries[1:] == ["sick leave or holidays", "sick leave?", "holidays?"]
    assert step.course.found.hits == (both, sick, holidays)


async def test_text_of_several_questions_is_parted_by_rules() -> None:
    """Without a language model its questions are searched for side by side."""
    step = Step(EXTRACTIVE, text="How long is leave? Who approves travel?", history=())
    await step.take()
    assert step.queries == ["How long is leave? Who approves travel?", "How long is leave?", "Who approves travel?"]


async def test_options_say_whether_a_question_is_rewritten() -> None:
    """No is no, and splitting that rules cannot do is said to be left out."""
    step = Step(planning=Planning(rewrite=False, decompose=False))
    await step.take()
    assert step.queries == [FOLLOW_UP]
    step = Step(EXTRACTIVE, text="Leave", history=(), planning=Planning(decompose=True, hyde=True))
    await step.take()
    assert {each.stage for each in step.course.answer.degradations} == {"rewrite", "hyde"}


async def test_made_up_passage_is_searched_by_its_vector() -> None:
    """HyDE searches dense beside the question; both orders are fused."""
    step = Step(text="How long is leave?", planning=Planning(hyde=True))
    step.advise(hyde="Leave is 25 days.")
    step.world.retriever.special = {"Leave is 25 days.": Found((hit(9, "Days."), HITS[0]))}
    await step.take()
    modes = {search.query: search.mode for search in step.world.retriever.searches}
    assert modes == {"How long is leave?": SearchMode.HYBRID, "Leave is 25 days.": SearchMode.DENSE}
    assert [each.chunk.ordinal for each in step.course.found.hits] == [0, 9, 1]
    assert step.told.details("hyde") == [{"passage": "Leave is 25 days."}]


async def test_search_out_of_time_ends_the_course_with_a_reason() -> None:
    """Nothing found when the share is over: an abstention for the time, not an error."""
    step = Step(within_s=0.3, text="How long is leave?")
    step.world.retriever.special = {"How long is leave?": None}
    assert await step.take() is State.END
    answer = step.course.answer
    assert (answer.finish_reason, answer.abstention) == (FinishReason.ABSTAINED, Abstention.OUT_OF_TIME)
    assert answer.degradations == (Degradation("retrieve", "DEADLINE_EXCEEDED"),)


async def test_what_was_found_in_time_counts() -> None:
    """One of several searches that does not end is left out, and the answer says so."""
    step = Step(EXTRACTIVE, within_s=0.5, text="How long is leave? Who approves travel?", history=())
    step.world.retriever.special = {"Who approves travel?": None}
    assert await step.take() is State.WRITE
    assert step.course.found.hits == HITS
    assert step.course.answer.degradations == (Degradation("retrieve", "DEADLINE_EXCEEDED"),)


async def test_reranking_that_lately_took_too_long_is_left_out() -> None:
    """A short deadline gets the order of the search."""
    step = Step(EXTRACTIVE, within_s=1.0, retrieval=Retrieval(rerank=True))
    step.course.budget.experience.took("rerank", 2.0)
    await step.take()
    assert [search.rerank for search in step.world.retriever.searches] == [False]
    assert step.course.answer.degradations == (Degradation("rerank", "DEADLINE_EXCEEDED"),)


async def test_second_search_is_fused_with_the_first() -> None:
    """What was found before stays, and what both found comes first."""
    step = Step()
    step.course.found = Found(HITS)
    step.course.plan = replace(Plan(), queries=("better",))
    step.world.retriever.special = {"better": Found((hit(8, "New."), HITS[1]))}
    await step.take()
    assert [each.chunk.ordinal for each in step.course.found.hits] == [1, 0, 8]
