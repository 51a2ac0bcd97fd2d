"""The step that finds what the answer is to rest on."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from gateway.answers import Abstention
from gateway.consulting import consultable
from gateway.course import Course, State
from gateway.events import Retrieved
from gateway.fusing import added, fuse
from gateway.racing import Race
from gateway.retrieval import Degradation, Found, Search, SearchMode
from gateway.steps.judging import go_on, worth_judging
from gateway.steps.rewriting import Need, imagine, need, quickly, rewrite
from meshkit.deadline import Deadline
from meshkit.errors import DeadlineExceeded

_Searching = asyncio.Task[Found | None]


async def retrieve(course: Course) -> State:
    """Search for what the plan says, else for the question, rewritten where it needs that.

    Where the time for searching ends before anything was found, so does the course.
    """
    try:
        async with course.stage("retrieve") as detail:
            found = await _find(course)
            course.found = _together(course, found)
            detail["hits"] = len(course.found.hits)
            query = course.plan.queries[0] if course.plan.queries else course.question.text
            await course.emit(Retrieved(query, course.found.hits, found.degradations))
    except (TimeoutError, DeadlineExceeded):
        course.degrade(Degradation("retrieve", "DEADLINE_EXCEEDED"))
        return await go_on(course, Abstention.OUT_OF_TIME)
    course.degrade(*found.degradations)
    return State.JUDGE if worth_judging(course) else await go_on(course)


async def _find(course: Course) -> Found:
    """What is found in the search's share of the time; raises DeadlineExceeded or TimeoutError where nothing is."""
    wanted = Need() if course.plan.queries else need(course)
    query, *more = _queries(course)
    if wanted or more or _wants_hyde(course):
        return await _find_in_ways(course, wanted)
    async with course.budget.within("retrieve"):
        return await _searched(course, query)


async def _find_in_ways(course: Course, wanted: Need) -> Found:
    """What several searches found, those that came to an end in time."""
    limit = course.budget.limit("retrieve")
    async with Race(limit) as race:
        hyde = [race.begin(_imagined(course))] if _wants_hyde(course) else []
        first = await _rewritten(course, wanted, race) if wanted else None
        searches = [first] if first else [race.begin(_searched(course, query)) for query in _queries(course)]
        return fuse(await _ended(course, [*searches, *hyde], limit), _top_k(course))


def _queries(course: Course) -> tuple[str, ...]:
    return course.plan.queries or (course.question.text,)


async def _rewritten(course: Course, wanted: Need, race: Race) -> _Searching | None:
    """Put the question as it is to be searched for into the plan.

    While a model rewrites it, what rules make of it is searched for already. That search is the one that counts, and
    returned, where the model is not done in its time; otherwise it is cancelled.
    """
    if not consultable(course):
        course.plan = replace(course.plan, queries=await rewrite(course, wanted))
        return None
    quick, *_ = quickly(course, wanted)
    searching = race.begin(_searched(course, quick))
    rewriting = race.begin(rewrite(course, wanted))
    await asyncio.wait({searching, rewriting}, return_when=asyncio.FIRST_COMPLETED)
    if searching.done():
        # What cannot be searched for at all fails at once.
        searching.result()
    queries = await rewriting
    course.plan = replace(course.plan, queries=queries or (quick,))
    if queries in ((), (quick,)):
        return searching
    searching.cancel()
    return None


async def _imagined(course: Course) -> Found | None:
    passage = await imagine(course)
    return await _searched(course, passage, mode=SearchMode.DENSE) if passage else None


async def _searched(course: Course, query: str, mode: SearchMode | None = None) -> Found:
    asked = course.question.retrieval
    search = Search(
        collection=course.question.collection,
        query=query,
        top_k=_top_k(course),
        mode=mode or asked.mode,
        filter=asked.filter,
        rerank=asked.rerank and _affords_rerank(course),
        diversity=asked.diversity,
        window=asked.window,
    )
    begin_s = course.elapsed_s()
    found = await course.ports.retriever.search(search)
    if search.rerank:
        course.budget.experience.took("rerank", course.elapsed_s() - begin_s)
    return found


async def _ended(course: Course, searches: Sequence[_Searching], limit: Deadline | None) -> list[Found]:
    """What the searches found that came to an end in time; raises DeadlineExceeded where none did, or its error."""
    left_s = limit.remaining_s() if limit else None
    await asyncio.wait(searches, timeout=left_s, return_when=asyncio.FIRST_EXCEPTION)
    founds, late = [], DeadlineExceeded("DEADLINE_EXCEEDED", "nothing was found in time")
    for search in searches:
        try:
            if not search.done():
                raise late
            founds.append(search.result())
        except DeadlineExceeded:
            course.degrade(Degradation("retrieve", "DEADLINE_EXCEEDED"))
    ended = [found for found in founds if found]
    if not ended:
        raise late
    return ended


def _together(course: Course, found: Found) -> Found:
    """What was found before with what was found now; what tools found keeps the numbers that they told."""
    if not course.found.hits:
        return found
    return added(course.found, found) if course.exchanges else fuse([course.found, found], _top_k(course))


def _wants_hyde(course: Course) -> bool:
    """Once, beside the first search."""
    return bool(course.question.planning.hyde) and not course.found.hits


def _affords_rerank(course: Course) -> bool:
    affords = course.budget.affords("rerank")
    if not affords:
        course.degrade(Degradation("rerank", "DEADLINE_EXCEEDED"))
    return affords


def _top_k(course: Course) -> int:
    return course.question.retrieval.top_k or course.ports.limits.top_k
