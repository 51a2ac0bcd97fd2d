"""What is to be done about a question."""

from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """How an answer is come by."""

    RETRIEVE = "retrieve"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done next."""

    action: Action = Action.RETRIEVE
