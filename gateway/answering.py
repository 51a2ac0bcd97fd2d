"""The course of an answer as a state machine: which step answers for which state."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from gateway.answers import Question
from gateway.awaiting import Awaiting
from gateway.course import Course, Ports, State, Step
from gateway.relaying import Underway
from gateway.steps.caching import recall
from gateway.steps.calling import call
from gateway.steps.following import follow
from gateway.steps.judging import judge
from gateway.steps.planning import plan
from gateway.steps.retrieving import retrieve
from gateway.steps.writing import write
from meshkit.identity import Identity

STEPS: Mapping[State, Step] = MappingProxyType(
    {
        State.CACHE: recall,
        State.PLAN: plan,
        State.CALL: call,
        State.RETRIEVE: retrieve,
        State.JUDGE: judge,
        State.WRITE: write,
    }
)


@dataclass(frozen=True, slots=True)
class Answering:
    """Begins the courses of answers; lives as long as the process and owns nothing."""

    ports: Ports

    def begin(
        self,
        question: Question,
        owner: Identity,
        awaiting: Awaiting | None = None,
        leader: Underway | None = None,
    ) -> Course:
        """The course of the question's answer, not yet under way.

        `awaiting` hears the caller's tools on Converse; with a `leader`, which answers an equal question, it tells what
        that one tells.
        """
        return Course(self.ports, _following(leader) if leader else STEPS, question, owner, awaiting)


def _following(leader: Underway) -> Mapping[State, Step]:
    return {**STEPS, State.CACHE: partial(follow, leader, STEPS[State.CACHE])}
