"""Turns a question into what is searched for: with the conversation, in parts, as a passage made up."""

from dataclasses import dataclass

from gateway import rules
from gateway.consulting import Form, ask, consult, consultable, conversation, instructed
from gateway.course import Course
from gateway.retrieval import Degradation

_MAX_QUERIES = 4
_MAX_HYDE_TOKENS = 128

_REWRITE = """\
You prepare a question for a search engine, which knows nothing of the conversation. Reply with a JSON object.
- question: the last question so that it stands alone, with the names that its pronouns stand for. Keep its language and
  its meaning; do not answer it.
- parts: where it asks for several things, each of them as a question that stands alone; otherwise none."""

_HYDE = """\
Write a passage of two to four sentences as it might stand in a document that answers the question.
Write it in the language of the question, without any introduction."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a model makes of a question."""

    question: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """Why a question is rewritten: it goes on the conversation, it asks for several things."""

    follows_up: bool = False
    compound: bool = False

    def __bool__(self) -> bool:
        return self.follows_up or self.compound


_FORM = Form(Rewritten, max_tokens=256)


def need(course: Course) -> Need:
    """As the question's options say, else by rules; without a conversation there is nothing to go on."""
    asked, text = course.question.planning, course.question.text
    follows_up = bool(course.history) and (rules.follows_up(text) if asked.rewrite is None else asked.rewrite)
    compound = rules.compound(text) if consultable(course) else len(rules.parts(text)) > 1
    return Need(follows_up, compound if asked.decompose is None else asked.decompose)


def quickly(course: Course, need: Need) -> tuple[str, ...]:
    """By rules: a follow-up with the words of the question that it goes on, a text of several questions in these."""
    text = course.question.text
    parts = rules.parts(text) if need.compound else ()
    before = [turn.question for turn in course.history if not rules.courtesy(turn.question)]
    whole = text
    if before and need.follows_up and rules.follows_up(text):
        alone = (question for question in reversed(before) if not rules.follows_up(question))
        whole = rules.joined(next(alone, before[-1]), text)
    return (whole, *parts[: _MAX_QUERIES - 1]) if len(parts) > 1 else (whole,)


async def rewrite(course: Course, need: Need) -> tuple[str, ...]:
    """The question as it stands alone, then its parts; none where the model could not say so in time.

    A language model says it in one call. Where there is none it is done by rules.
    """
    async with course.stage("rewrite") as detail:
        if consultable(course):
            said = await consult(course, "rewrite", _FORM, instructed(_REWRITE, conversation(course)))
            queries = _said(said, need) if said else ()
        else:
            queries = quickly(course, need)
            if course.question.planning.decompose and len(queries) == 1:
                course.degrade(Degradation("rewrite", "UNSUPPORTED_BY_ENGINE"))
        detail["queries"] = list(queries)
    return queries


def _said(said: Rewritten, need: Need) -> tuple[str, ...]:
    parts = said.parts if need.compound and len(said.parts) > 1 else ()
    queries = (query.strip() for query in (said.question, *parts))
    return tuple(dict.fromkeys(filter(None, queries)))[:_MAX_QUERIES]


async def imagine(course: Course) -> str:
    """A passage that might answer the question (HyDE, Gao et al. 2022); "" where no model can say so in time."""
    if course.model.extractive:
        course.degrade(Degradation("hyde", "UNSUPPORTED_BY_ENGINE"))
        await course.skip("hyde")
        return ""
    async with course.stage("hyde") as detail:
        passage = await ask(course, "hyde", instructed(_HYDE, conversation(course)), _MAX_HYDE_TOKENS) or ""
        detail["passage"] = passage
    return passage
