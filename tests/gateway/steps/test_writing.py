"""The step that has the answer written: what supports it, and what does not."""

import pytest

from gateway.answers import Abstention, Answer, FinishReason
from gateway.events import Token
from gateway.generation import Delta, Ending, StructuredOutput, Writing
from gateway.retrieval import Degradation, Found
from gateway.tools import ToolCall, ToolExchange, ToolResult
from tests.gateway.in_memory import Told, World, hit


async def _written(text: str, ending: Ending = Ending.STOP, writing: Writing | None = None) -> tuple[Answer, Told]:
    """What becomes of a language model's text."""
    world, told = World(), Told()
    world.generator.deltas = (*(Delta(f"{word} ", 1) for word in text.split(" ")), Delta(ending=ending))
    return await world.begin(model="tiny", writing=writing or Writing()).run(told), told


async def test_sentences_are_graded_as_they_end() -> None:
    """A grade comes behind the token that begins the next sentence, the last one behind the last token."""
    answer, told = await _written("Employees get 25 days of leave. [1] Managers get a car.")
    names = told.names()
    assert [grade.score for grade in answer.grounding] == [1.0, pytest.approx(0.0, abs=0.49)]
    assert [grade.numbers for grade in answer.grounding] == [(1,), ()]
    assert names.index("Grounding") < len(names) - 1 - names[::-1].index("Token")
    assert answer.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("text", ["I do not know. Ask somebody else.", "Managers get a company car in May."])
async def test_text_without_any_support_is_marked(text: str) -> None:
    """A refusal in prose and an invention end as abstentions; what has been said stays said."""
    answer, told = await _written(text)
    assert (answer.finish_reason, answer.abstention) == (FinishReason.ABSTAINED, Abstention.INSUFFICIENT_SUPPORT)
    assert answer.text == "".join(event.text for event in told.events if isinstance(event, Token)) == f"{text} "


@pytest.mark.parametrize(
    ("text", "ending", "reason"),
    [
        ("Managers get a company car. [1]", Ending.STOP, FinishReason.STOP),
        ("Managers get a car. Employees get 25 days of leave.", Ending.STOP, FinishReason.STOP),
        ("Managers get a company", Ending.LENGTH, FinishReason.LENGTH),
        ("Yes.", Ending.STOP, FinishReason.STOP),
    ],
)
async def test_text_with_some_support_is_an_answer(text: str, ending: Ending, reason: FinishReason) -> None:
    """What cites, what has a supported sentence, what broke off and what claims nothing is no abstention."""
    answer, _ = await _written(text, ending)
    assert (answer.finish_reason, answer.abstention) == (reason, Abstention.NONE)


@pytest.mark.parametrize(("model", "score"), [("tiny", 1.0), ("extractive", 0.0)])
async def test_tools_support_whom_they_were_shown_to(model: str, score: float) -> None:
    """An extractive engine quotes passages only: to take apart what its caller's tools say would be for nothing."""
    world = World()
    call = ToolCall("c1", "canteen", {})
    exchange = ToolExchange(call, ToolResult("c1", "Pizza comes at noon."))
    world.generator.deltas = (Delta("Pizza comes at noon.", 4), Delta(ending=Ending.STOP))
    answer = await world.begin(model=model, tool_exchanges=(exchange,)).run(Told())
    assert [grade.score for grade in answer.grounding] == [score]


async def test_passages_dropped_from_the_prompt_support_nothing() -> None:
    """Where the prompt was shortened its markers cite what is left, under the same numbers."""
    world = World()
    world.retriever.found = Found(tuple(hit(n, f"word{n} " * 60) for n in range(6)))
    world.generator.deltas = (Delta("word5 word5. [6] word0 word0. [1]", 9), Delta(ending=Ending.STOP))
    answer = await world.begin(model="tiny", writing=Writing(max_tokens=50)).run(Told())
    assert [cited.number for cited in answer.citations] == [1]


async def test_form_has_no_citations() -> None:
    """Numbers in the brackets of a JSON answer are its own."""
    form = StructuredOutput("json_object", value=True)
    answer, told = await _written('{"days": [1]}', writing=Writing(structured_output=form))
    assert (answer.citations, answer.grounding) == ((), ())
    assert answer.finish_reason is FinishReason.STOP
    assert "Grounding" not in told.names()


@pytest.mark.parametrize(
    ("form", "text", "ending", "holds"),
    [
        (StructuredOutput("json_object", value=True), '{"days": 25}', Ending.STOP, True),
        (StructuredOutput("json_object", value=True), "25 days", Ending.STOP, False),
        (StructuredOutput("json_schema", "{}"), '{"days": ', Ending.STOP, False),
        (StructuredOutput("json_schema", "{}"), "[" * 100_000, Ending.STOP, False),
        (StructuredOutput("json_schema", "{}"), '{"days": ', Ending.LENGTH, True),
        (StructuredOutput("regex", ".*"), "25 days", Ending.STOP, True),
    ],
    ids=["json", "prose", "broken", "deep", "cut", "regex"],
)
async def test_text_that_is_not_in_its_form_is_told(
    form: StructuredOutput, text: str, ending: Ending, *, holds: bool
) -> None:
    """An engine that does not hold to JSON leaves it out; what is cut off says so itself."""
    answer, _ = await _written(text, ending, Writing(structured_output=form))
    assert answer.degradations == (() if holds else (Degradation("generate", "UNSUPPORTED_BY_ENGINE"),))
