"""Asks the answer's language model for something short on the way: a plan, a query, a verdict."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from gateway.citing import without_markers
from gateway.course import Course
from gateway.generation import Chat, Generation, Message, Sampling, StructuredOutput, Writing
from gateway.prompting import shown_exchange
from gateway.retrieval import Degradation
from meshkit.errors import DeadlineExceeded, MeshError

FormT = TypeVar("FormT")

# What was said before is shown in part: a query rests on its topic, and each token is read before the answer begins.
_SHOWN_TURNS = 4
_SHOWN_CHARS = 500


class Form(Generic[FormT]):
    """What a model is to fill in, in at most `max_tokens`; made once, which takes milliseconds."""

    def __init__(self, type: type[FormT], max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._adapter = TypeAdapter(type)
        self._schema = self._adapter.json_schema()

    def written(self, schema: Mapping[str, Any] | None = None) -> StructuredOutput:
        """The form for an engine; with a schema that allows less than the type does."""
        return StructuredOutput("json_schema", json.dumps(schema or self._schema))

    def read(self, text: str) -> FormT:
        """What the model filled in; raises ValidationError."""
        return self._adapter.validate_json(text)


def consultable(course: Course) -> bool:
    """Whether the model can fill in a form."""
    return course.model.structured_output and not course.model.extractive


async def consult(
    course: Course, stage: str, form: Form[FormT], chat: Chat, schema: Mapping[str, Any] | None = None
) -> FormT | None:
    """The form as the model filled it in, or None, and then the answer says why the stage was left out."""
    if not consultable(course):
        course.degrade(Degradation(stage, "UNSUPPORTED_BY_ENGINE"))
        return None
    text = await ask(course, stage, chat, form.max_tokens, form.written(schema))
    if text is None:
        return None
    try:
        return form.read(text)
    except ValidationError:
        # Cut off at its most tokens.
        course.degrade(Degradation(stage, "UNSUPPORTED_BY_ENGINE"))
        return None


async def ask(
    course: Course, stage: str, chat: Chat, max_tokens: int, form: StructuredOutput | None = None
) -> str | None:
    """What the model says in the stage's share of the time, or None, and then the answer says why it was left out."""
    name = f"{stage} {course.model.name}"
    if not course.budget.affords(stage, name):
        course.degrade(Degradation(stage, "DEADLINE_EXCEEDED"))
        return None
    writing = Writing(sampling=Sampling(temperature=0.0), structured_output=form)
    generation = Generation(course.model.name, chat, writing, max_tokens, course.answer.session)
    begin_s, text = course.elapsed_s(), None
    try:
        async with asyncio.timeout(course.ports.limits.planning.consult_timeout_s), course.budget.within(stage):
            text = await _text(course, generation)
    except (TimeoutError, DeadlineExceeded):
        course.degrade(Degradation(stage, "DEADLINE_EXCEEDED"))
    except MeshError as error:
        course.degrade(Degradation(stage, error.reason))
        return None
    course.budget.experience.took(name, course.elapsed_s() - begin_s)
    return text


async def _text(course: Course, generation: Generation) -> str:
    async with course.ports.generator.generate(generation) as deltas:
        return "".join([delta.text async for delta in deltas])


def conversation(course: Course) -> str:
    """The last turns, each cut short, the question, and what tools have answered to it, as text."""
    turns = [
        f"User: {turn.question[:_SHOWN_CHARS]}\nAssistant: {without_markers(turn.text)[:_SHOWN_CHARS]}"
        for turn in course.history[-_SHOWN_TURNS:]
    ]
    return "\n".join([*turns, f"Question: {course.question.text}", *map(shown_exchange, course.exchanges)])


def instructed(instructions: str, text: str) -> Chat:
    """A chat of instructions and what they are about."""
    return Chat((Message("system", instructions), Message("user", text)))
