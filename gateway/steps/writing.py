"""The step that has the answer written: prompt, generate, cite."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from pydantic_core import from_json

from gateway.abstaining import Abstaining
from gateway.answers import Abstention, FinishReason, Grounding
from gateway.citing import Citer
from gateway.course import Course, State
from gateway.events import Token
from gateway.generation import Delta, Ending, Generation
from gateway.grounding import Grounder
from gateway.prompting import Parts, chat, grounded, passages_of, shortened
from gateway.retrieval import Degradation
from meshkit.errors import DeadlineExceeded, InvalidArgument

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
    asked = _parts(course)
    async with course.stage("prompt") as detail:
        parts = _readable(course, asked)
        detail["passages"] = len(parts.passages)
    if asked.passages and not parts.passages:
        await course.skip("generate")
        return course.abstain(Abstention.OUT_OF_TIME)
    try:
        return await _generate(course, parts)
    except InvalidArgument as error:
        if error.reason != "PROMPT_TOO_LONG" or not course.model.max_model_tokens:
            raise
    return await _generate(course, await _shorten(course, parts))


def _parts(course: Course) -> Parts:
    """What the model is shown; one that takes no history gets the question as it stands alone."""
    writing, queries = course.question.writing, course.plan.queries
    return Parts(
        queries[0] if queries and course.model.extractive else course.question.text,
        passages_of(course.found.hits),
        course.history,
        writing.instructions,
        free_form=writing.structured_output is None,
        exchanges=course.exchanges,
        summary=course.summary,
    )


def _readable(course: Course, parts: Parts) -> Parts:
    """As many passages as the model can lately read in its share of the time; none where there is no time for one."""
    budget, pace = course.budget, _pace(course)
    each_s, count = budget.experience.expected_s(pace), len(parts.passages)
    if count * each_s <= budget.share_s("prose"):
        return parts
    budget.experience.left_out(pace)
    course.degrade(Degradation("prompt", "DEADLINE_EXCEEDED"))
    if budget.left_s() < each_s:
        return replace(parts, passages=())
    return parts.without(count - max(int(budget.share_s("prose") / each_s), 1))


def _pace(course: Course) -> str:
    """The name of what the first token takes, in seconds for each passage that is read before it."""
    return f"prose {course.model.name}"


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
    support = _support(course, parts)
    async with course.stage("generate"):
        try:
            async with course.budget.ending():
                return await _hear(course, generation, support)
        except (TimeoutError, DeadlineExceeded):
            return await _cut_off(course, support)


@dataclass(frozen=True, slots=True)
class _Support:
    """What ties the text to the passages, as it comes; `passages` are read before it, from `begin_s` on."""

    citer: Citer
    grounder: Grounder
    passages: int
    begin_s: float

    def wait_s(self, course: Course) -> float:
        """Seconds that have passed for each passage."""
        return (course.elapsed_s() - self.begin_s) / max(self.passages, 1)


def _support(course: Course, parts: Parts) -> _Support:
    """Over the passages of the prompt as it is sent; over none where its form has no room for markers."""
    numbers = {passage.number for passage in parts.passages if parts.free_form}
    shown = {number: hit for number, hit in enumerate(course.found.hits, start=1) if number in numbers}
    grounder = Grounder(shown, course.ports.limits.min_grounding, _told(course))
    return _Support(Citer(shown), grounder, len(parts.passages), course.elapsed_s())


def _told(course: Course) -> list[str]:
    """What tools have told the model; nothing where it is not shown that, and so bounds it by its context."""
    exchanges = () if course.model.extractive else course.exchanges
    return [" ".join(map(str, (*each.call.arguments.values(), each.result.content))) for each in exchanges]


async def _hear(course: Course, generation: Generation, support: _Support) -> State:
    abstaining = Abstaining()
    ending, unsaid = Ending.STOP, 0
    async with course.ports.generator.generate(generation) as deltas:
        async for delta in deltas:
            unsaid += delta.token_count
            if delta.text and (shown := abstaining.feed(delta.text)):
                if not support.citer.begun:
                    course.time("first_token", support.begin_s)
                    course.budget.experience.took(_pace(course), support.wait_s(course))
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
    if ending is Ending.STOP and not _is_in_form(course):
        course.degrade(Degradation("generate", "UNSUPPORTED_BY_ENGINE"))
    if ending is Ending.STOP and _is_unsupported(course):
        course.note(abstention=Abstention.INSUFFICIENT_SUPPORT)
        return course.end(FinishReason.ABSTAINED)
    return course.end(_REASONS[ending])


async def _cut_off(course: Course, support: _Support) -> State:
    """The time is over: what was said is the answer; where nothing was, the chunks found have to do."""
    course.degrade(Degradation("generate", "DEADLINE_EXCEEDED"))
    if not course.text:
        course.budget.experience.took(_pace(course), support.wait_s(course))
        return course.abstain(Abstention.OUT_OF_TIME)
    await _grade(course, support.grounder.rest())
    return course.end(FinishReason.LENGTH)


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


def _is_in_form(course: Course) -> bool:
    """Whether text that was to be JSON is: not every engine holds to what it is asked for, and stop words cut it."""
    form = course.question.writing.structured_output
    if form is None or form.form not in {"json_object", "json_schema"}:
        return True
    try:
        from_json(course.text)
    except ValueError:
        return False
    return True


def _is_unsupported(course: Course) -> bool:
    """Whether the text has claims, cites nothing, and none of it stands in what was found: refused, or made up."""
    answer = course.answer
    supported = answer.citations or course.exchanges or any(grade.numbers for grade in answer.grounding)
    return bool(answer.grounding) and course.plan.searches and not supported


async def _account(course: Course, delta: Delta) -> None:
    if delta.usage:
        course.note(usage=delta.usage)
        await course.emit(delta.usage)
