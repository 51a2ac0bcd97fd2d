"""The step that looks whether the answer was given before, and gives it again."""

from dataclasses import dataclass, field, replace
from functools import partial

from gateway.answers import Answer, CachePolicy, FinishReason
from gateway.caching import AnswerCache, Asked, Kept, Lookup, of
from gateway.course import Course, State
from gateway.equality import digest, kind_key, normalised
from gateway.events import Event, Retrieved, Stage, StageState, Token
from gateway.retrieval import Found, Retriever, Search, SearchMode


async def recall(course: Course) -> State:
    """Give the answer again that an equal question had, or see to it that this one's is kept.

    A question that goes on a conversation, has tools of its caller's or shall not be answered from a cache passes by.
    """
    cache, asked = course.ports.cache, _asked(course)
    if cache is None or asked is None or course.question.cache is CachePolicy.BYPASS:
        await course.announce()
        return State.PLAN
    begin_s = course.elapsed_s()
    lookup = await (cache.find(asked) if course.question.cache is CachePolicy.USE else cache.look(asked))
    await course.announce(cached=lookup.kept is not None)
    if course.question.cache is CachePolicy.USE:
        await _tell(course, lookup, begin_s)
    if lookup.kept:
        return await _give_again(course, lookup.kept)
    if lookup.edition:
        witness = _Witness(course.ports.retriever, course.question.collection, course.question.text, lookup.vector)
        course.ports = replace(course.ports, retriever=witness)
        course.when_answered = partial(_remember, course, cache, asked, lookup, witness)
    return State.PLAN


def _asked(course: Course) -> Asked | None:
    question, owner = course.question, course.owner
    if question.session or question.history or question.tools or question.tool_exchanges:
        return None
    kind = digest(kind_key(question, owner), course.model.name, course.ports.limits)
    key = digest(kind, normalised(question.text))
    return Asked(owner.tenant, question.collection, question.text, key, kind)


async def _tell(course: Course, lookup: Lookup, begin_s: float) -> None:
    detail: dict[str, str | float] = {"hit": lookup.how.value}
    if lookup.kept:
        # Not whose question it was, nor its words: another subject may have asked it.
        detail["similarity"] = lookup.similarity
    duration_s = course.time("cache", begin_s)
    await course.emit(Stage("cache", StageState.STARTED))
    await course.emit(Stage("cache", StageState.DONE, duration_s, detail))


async def _give_again(course: Course, kept: Kept) -> State:
    """The events of the answer as it was, under this one's name; its text comes whole."""
    course.found = Found(kept.hits)
    course.say(kept.text)
    course.note(cached=True, citations=kept.citations, grounding=kept.grounding, usage=kept.usage)
    await course.emit(Retrieved(course.question.text, kept.hits))
    await course.emit(Token(kept.text, kept.usage.completion_tokens))
    told: tuple[Event, ...] = (*kept.citations, kept.usage, *kept.grounding)
    for event in told:
        await course.emit(event)
    return course.end(FinishReason.STOP)


@dataclass(slots=True)
class _Witness:
    """The retriever, for one course: it sees which content was searched, and knows the question's vector already."""

    retriever: Retriever
    collection: str
    query: str
    vector: bytes
    searched: set[tuple[str, int]] = field(default_factory=set)

    async def search(self, search: Search) -> Found:
        same = (search.collection, search.query) == (self.collection, self.query)
        if self.vector and same and search.mode is not SearchMode.SPARSE:
            search = replace(search, vector=self.vector)
        found = await self.retriever.search(search)
        self.searched.add((search.collection, found.version))
        return found


def _remember(
    course: Course, cache: AnswerCache, asked: Asked, lookup: Lookup, witness: _Witness, answer: Answer
) -> None:
    """Keep a good answer, all of it found in the one edition that was looked up: what changed meanwhile is not kept.

    Nor is what rests on tools: the web, for instance, has no editions.
    """
    edition = lookup.edition
    good = answer.finish_reason is FinishReason.STOP and not answer.degradations and not course.exchanges
    if edition is None or not good or witness.searched != {(asked.collection, edition.version)}:
        return
    kept = Kept(
        edition=of(edition),
        question=asked.text,
        hits=course.found.hits,
        text=answer.text,
        citations=answer.citations,
        grounding=answer.grounding,
        usage=answer.usage,
    )
    cache.keep(asked, kept, lookup)
