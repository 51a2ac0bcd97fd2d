"""The cached questions nearest to a question, in memory: every one compared, so that none is missed."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FIRST_ID = "0-0"


@dataclass(frozen=True, slots=True)
class CachedQuestion:
    """A question whose answer is kept under `key`; `id` orders those of a collection, `vector` is 16-bit floats."""

    id: str
    key: str
    kind: str
    edition: str
    text: str
    vector: bytes


class Known:
    """The last `max_questions` cached questions of one collection; lives as long as `Nearest` has use for it.

    They stand in a ring: the next one takes the place of the oldest, in the rows, the groups and the list alike.
    `encoder` is the collection's as it was when one was last compared with them.
    """

    def __init__(self, max_questions: int) -> None:
        self.encoder = ""
        self.last_id = _FIRST_ID
        self._max_questions = max_questions
        self._added = 0
        self._questions: list[CachedQuestion] = []
        self._rows: NDArray[np.float32] = np.empty((max_questions, 0), np.float32)
        # What may be answered alike, as a number; 0 is none.
        self._groups: NDArray[np.int64] = np.zeros(max_questions, np.int64)

    def __len__(self) -> int:
        return len(self._questions)

    def add(self, questions: Sequence[CachedQuestion]) -> None:
        """Know these too, but for those known already: tasks that ask at once are told the same."""
        for question in questions:
            if _moment(question.id) > _moment(self.last_id):
                self.last_id = question.id
                self._add(question)

    def any(self, kind: str, edition: str) -> bool:
        """Whether a question of that kind and edition is among them."""
        return bool((self._groups == _group(kind, edition)).any())

    def nearest(self, kind: str, edition: str, vector: bytes, limit: int) -> list[tuple[CachedQuestion, float]]:
        """The nearest of that kind and edition with their cosines, best first; `vector` is 32-bit floats."""
        query = _unit(np.frombuffer(vector, "<f4"))
        if query.shape != self._rows.shape[1:]:
            return []
        # All of them: to pick out rows first would copy them.
        cosines = self._rows[: len(self)] @ query
        cosines[self._groups[: len(self)] != _group(kind, edition)] = -np.inf
        found = [(self._questions[place], float(cosines[place])) for place in np.argsort(-cosines)[:limit]]
        return [each for each in found if (each[0].kind, each[0].edition) == (kind, edition)]

    def _add(self, question: CachedQuestion) -> None:
        row = _unit(np.frombuffer(question.vector, "<f2").astype(np.float32))
        if row.shape != self._rows.shape[1:]:
            # Another encoder: what was encoded by the one before is of no more use.
            self._rows = np.empty((self._max_questions, len(row)), np.float32)
            self._groups[:] = 0
            self._questions.clear()
            self._added = 0
        place = self._added % self._max_questions
        self._questions[place : place + 1] = [question]
        self._rows[place] = row
        self._groups[place] = _group(question.kind, question.edition)
        self._added += 1


class Nearest:
    """What is known of each collection's cached questions, of the collections asked of late."""

    def __init__(self, max_collections: int, max_questions: int) -> None:
        self._max_collections = max_collections
        self._max_questions = max_questions
        self._known: OrderedDict[tuple[str, str], Known] = OrderedDict()

    def known(self, tenant: str, collection: str) -> Known:
        """What is known of the tenant's collection; read from the beginning where it was forgotten."""
        known = self._known.setdefault((tenant, collection), Known(self._max_questions))
        self._known.move_to_end((tenant, collection))
        if len(self._known) > self._max_collections:
            self._known.popitem(last=False)
        return known


def _group(kind: str, edition: str) -> int:
    """The same in this process for the same; that others have it too is ruled out by who compares."""
    return hash((kind, edition))


def _moment(id: str) -> tuple[int, int]:
    """The id as what orders it: milliseconds and a number."""
    moment, _, number = id.partition("-")
    return int(moment), int(number)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
