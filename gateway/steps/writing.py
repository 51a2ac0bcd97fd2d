"""The step that has the answer written: prompt, generate, cite."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from gateway.abstaining import Abstaining
from gateway.answers import Abstention, FinishReason, Grounding
from gateway.citing import Citer
from gateway.course import Course, State
from gateway.events import Token
from gateway.generation import Delta, Ending, Generation
from gateway.grounding import Grounder
from gateway.prompting import Parts, chat, grounded, passages_of, shortened
from meshkit.errors import InvalidArgument

_REASONS = {
    Ending.STOP: FinishReason.STOP,
    Ending.LENGTH: FinishReason.LENGTH,
    Ending.ABSTAINED: FinishReason.ABSTAINED,
    Ending.TOOL_CALL: FinishReason.TOOL_CALL,
}


async def write(course: Course) -> State:
    """Prompt and generate; both once more, with less, where the model finds the prompt too long.

    So a prompt that fits, as most do, is not counted before it is sent.
    """
    parts = _parts(course)
    async with course.stage("prompt") as detail:
        detail["passages"] = len(parts.passages)
    try:
        return await _generate(course, parts)
    except InvalidArgument as error:
        if error.reason != "PROMPT_TOO_LONG" or not course.model.max_model_tokens:
            raise
    return await _generate(course, await _shorten(course, parts))


def _parts(course: Course) -> Parts:
    writing = course.question.writing
    return Parts(
        course.question.text,
        passages_of(course.found.hits),
        course.history,
        writing.instructions,
        free_form=writing.structured_output is None,
    )


async def _shorten(course: Course, parts: Parts) -> Parts:
    async with course.stage("prompt") as detail:
        count = partial(course.ports.generator.count_tokens, course.model.name)
        fitting = await shortened(parts, count, course.model.max_model_tokens - _reserved_tokens(course))
        detail["passages"] = len(fitting.passages)
        detail["dropped_passages"] = len(parts.passages) - len(fitting.passages)
        detail["dropped_turns"] = len(parts.history) - len(fitting.history)
    return fitting


def _reserved_tokens(course: Course) -> int:
    """Tokens kept free for the answer: as asked for, else at most a quarter of the context."""
    limit, context = course.ports.limits.max_answer_tokens, course.model.max_model_tokens
    return course.question.writing.max_tokens or (min(limit, context // 4) if context else limit)


def _generation(course: Course, parts: Parts) -> Generation:
    model, writing = course.model, course.question.writing
    if model.extractive:
        return Generation(model.name, grounded(parts), writing, writing.max_tokens)
    return Generation(model.name, chat(parts), writing, _reserved_tokens(course), course.answer.session)


async def _generate(course: Course, parts: Parts) -> State:
    generation = _generation(course, parts)
    course.prompt = generation.prompt
    async with course.stage("generate"):
        return await _hear(course, generation, _support(course, parts))


@dataclass(frozen=True, slots=True)
class _Support:
    """What ties the text to the passages, as it comes."""

    citer: Citer
    grounder: Grounder


def _support(course: Course, parts: Parts) -> _Support:
    """Over the passages of the prompt as it is sent; over none where its form has no room for markers."""
    numbers = {passage.number for passage in parts.passages if parts.free_form}
    shown = {number: hit for number, hit in enumerate(course.found.hits, start=1) if number in numbers}
    return _Support(Citer(shown), Grounder(shown, course.ports.limits.min_grounding))


async def _hear(course: Course, generation: Generation, support: _Support) -> State:
    abstaining = Abstaining()
    ending, unsaid, begin_s = Ending.STOP, 0, course.elapsed_s()
    async with course.ports.generator.generate(generation) as deltas:
        async for delta in deltas:
            unsaid += delta.token_count
            if delta.text and (shown := abstaining.feed(delta.text)):
                if not support.citer.begun:
                    course.time("first_token", begin_s)
                await _say(course, shown, unsaid, support)
                unsaid = 0
            if abstaining.abstained:
                break
            await _account(course, delta)
            ending = delta.ending or ending
    if abstaining.abstained or ending is Ending.ABSTAINED:
        return course.abstain(Abstention.INSUFFICIENT_SUPPORT)
    if rest := abstaining.rest():
        await _say(course, rest, unsaid, support)
    await _grade(course, support.grounder.rest())
    if ending is Ending.STOP and _is_unsupported(course):
        course.note(abstention=Abstention.INSUFFICIENT_SUPPORT)
        return course.end(FinishReason.ABSTAINED)
    return course.end(_REASONS[ending])


async def _say(course: Course, text: str, token_count: int, support: _Support) -> None:
    course.say(text)
    await course.emit(Token(text, token_count))
    for citation in support.citer.feed(text):
        course.note(citations=(*course.answer.citations, citation))
        await course.emit(citation)
    await _grade(course, support.grounder.feed(text))


async def _grade(course: Course, grades: Sequence[Grounding]) -> None:
    for grade in grades:
        course.note(grounding=(*course.answer.grounding, grade))
        await course.emit(grade)


def _is_unsupported(course: Course) -> bool:
    """Whether the text has claims, cites nothing, and none of it stands in what was found: refused, or made up."""
    answer = course.answer
    supported = answer.citations or course.exchanges or any(grade.numbers for grade in answer.grounding)
    return bool(answer.grounding) and not supported


async def _account(course: Course, delta: Delta) -> None:
    if delta.usage:
        course.note(usage=delta.usage)
        await course.emit(delta.usage)
