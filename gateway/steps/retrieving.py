"""The step that finds what the answer is to rest on."""

from gateway.answers import Abstention, Question
from gateway.course import Course, State
from gateway.events import Retrieved
from gateway.retrieval import Search


async def retrieve(course: Course) -> State:
    """Search for the question; nothing found ends the course before any engine is asked."""
    search = _search(course.question, course.ports.limits.top_k)
    async with course.stage("retrieve") as detail:
        found = course.found = await course.ports.retriever.search(search)
        detail["hits"] = len(found.hits)
        await course.emit(Retrieved(search.query, found.hits, found.degradations))
    course.degrade(*found.degradations)
    if found.hits:
        return State.WRITE
    await course.skip("prompt", "generate")
    return course.abstain(Abstention.NO_RELEVANT_CHUNKS)


def _search(question: Question, top_k: int) -> Search:
    asked = question.retrieval
    return Search(
        collection=question.collection,
        query=question.text,
        top_k=asked.top_k or top_k,
        mode=asked.mode,
        filter=asked.filter,
        rerank=asked.rerank,
        diversity=asked.diversity,
        window=asked.window,
    )
