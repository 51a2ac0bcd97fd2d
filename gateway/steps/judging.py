"""The step that asks whether what was found suffices for an answer, and for a better query where it does not."""

from dataclasses import dataclass, replace

from gateway import rules
from gateway.answers import Abstention
from gateway.consulting import Form, consult, consultable, conversation, instructed
from gateway.course import Course, State
from gateway.plans import Action

_JUDGE = """\
You are shown a question and passages that a search engine found for it. Reply with a JSON object.
- sufficient: whether the passages together hold what an answer needs.
- query: where they do not, another query that may find what is missing: other words, a name spelled out. Otherwise
  empty."""

# Fewer hits than this are weak, as are hits in which less than half of the question's telling words occur.
_FEW_HITS = 2
_LEAST_COVERAGE = 0.5
# A verdict rests on the best passages and how they begin; all of them are read again for the answer itself.
_SHOWN_HITS = 6
_SHOWN_CHARS = 600


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model thinks of the passages."""

    sufficient: bool
    query: str = ""


_FORM = Form(Verdict, max_tokens=96)


def worth_judging(course: Course) -> bool:
    """Whether a language model is to judge, which costs a call: the question asks for it, or the hits look weak."""
    asked = course.question.planning.max_retrieval_rounds
    most = course.ports.limits.planning.max_retrieval_rounds if asked is None else asked
    searches = sum(timing.stage == "retrieve" for timing in course.answer.timings)
    return consultable(course) and searches <= most and (bool(asked) or _weak(course))


async def judge(course: Course) -> State:
    """Search once more with a better query, where there is one; otherwise go on with what was found."""
    async with course.stage("judge") as detail:
        verdict = await consult(course, "judge", _FORM, instructed(_JUDGE, _material(course)))
        query = verdict.query.strip() if verdict and not verdict.sufficient else ""
        if verdict:
            detail.update(sufficient=verdict.sufficient, query=query)
    if not query or query in (course.question.text, *course.plan.queries):
        return await go_on(course)
    course.plan = replace(course.plan, action=Action.RETRIEVE, queries=(query,))
    return State.RETRIEVE


async def go_on(course: Course, why: Abstention = Abstention.NO_RELEVANT_CHUNKS) -> State:
    """Write with what there is; where there is nothing, abstain before any engine is asked."""
    if course.found.hits or course.exchanges:
        return State.WRITE
    await course.skip("prompt", "generate")
    return course.abstain(why)


def _weak(course: Course) -> bool:
    hits = course.found.hits
    question = course.plan.queries[0] if course.plan.queries else course.question.text
    texts = (hit.passage() for hit in hits)
    return len(hits) < _FEW_HITS or rules.coverage(question, texts) < _LEAST_COVERAGE


def _material(course: Course) -> str:
    passages = "\n\n".join(hit.passage()[:_SHOWN_CHARS] for hit in course.found.hits[:_SHOWN_HITS])
    return f"Passages:\n{passages or '(none)'}\n\n{conversation(course)}"
