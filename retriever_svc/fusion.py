"""One order from two: by reciprocal ranks, or by a weighted sum of scores."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_Place = TypeVar("_Place", bound=Hashable)
_Place_co = TypeVar("_Place_co", bound=Hashable, covariant=True)


class Found(Protocol[_Place_co]):
    """A find of one half."""

    @property
    def place(self) -> _Place_co: ...

    @property
    def score(self) -> float: ...


@dataclass(frozen=True, slots=True)
class ReciprocalRank:
    """The sum of 1 / (k + rank), ranks from 1 (Cormack, Clarke and Büttcher, SIGIR 2009)."""

    k: int = 60


@dataclass(frozen=True, slots=True)
class Weighted:
    """`dense` parts of the dense half and the rest of the sparse one; what a half did not find has 0 there.

    A cosine counts by how far it is above the least one found, a BM25 score by its share of the greatest. So a dense
    half whose scores hardly differ, as those of an encoder that does not know the language, hardly counts: stretched
    to 0..1 its noise would weigh as much as another's knowledge. docs/quality.md has the measurements.
    """

    dense: float = 0.5


Fusion = ReciprocalRank | Weighted


@dataclass(frozen=True, slots=True)
class Ranked:
    """Where one half put a find: rank from 1, and score."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Fused(Generic[_Place]):
    """A find after fusion, with what each half made of it."""

    place: _Place
    score: float
    dense: Ranked | None = None
    sparse: Ranked | None = None


def fuse(method: Fusion, dense: Sequence[Found[_Place]], sparse: Sequence[Found[_Place]]) -> list[Fused[_Place]]:
    """Both halves, each best first, as one list, best first; among equals the better rank in a half goes first."""
    by_dense, by_sparse = _ranked(dense), _ranked(sparse)
    shares_dense, shares_sparse = _shares(method, by_dense, by_sparse)
    finds = [
        Fused(
            place,
            shares_dense.get(place, 0.0) + shares_sparse.get(place, 0.0),
            by_dense.get(place),
            by_sparse.get(place),
        )
        for place in by_dense | by_sparse
    ]
    return sorted(finds, key=_best_first)


def alone(dense: Sequence[Found[_Place]] = (), sparse: Sequence[Found[_Place]] = ()) -> list[Fused[_Place]]:
    """One half as it is, in the form that fusion gives."""
    finds = [Fused(place, ranked.score, dense=ranked) for place, ranked in _ranked(dense).items()]
    return finds + [Fused(place, ranked.score, sparse=ranked) for place, ranked in _ranked(sparse).items()]


def _ranked(half: Sequence[Found[_Place]]) -> dict[_Place, Ranked]:
    return {found.place: Ranked(rank, found.score) for rank, found in enumerate(half, start=1)}


def _shares(
    method: Fusion, dense: dict[_Place, Ranked], sparse: dict[_Place, Ranked]
) -> tuple[dict[_Place, float], dict[_Place, float]]:
    """What each half adds to the score of its finds."""
    if isinstance(method, ReciprocalRank):
        return _reciprocal(method, dense), _reciprocal(method, sparse)
    return _above_least(method.dense, dense), _of_greatest(1.0 - method.dense, sparse)


def _reciprocal(method: ReciprocalRank, half: dict[_Place, Ranked]) -> dict[_Place, float]:
    return {place: 1.0 / (method.k + ranked.rank) for place, ranked in half.items()}


def _above_least(weight: float, half: dict[_Place, Ranked]) -> dict[_Place, float]:
    least = min((ranked.score for ranked in half.values()), default=0.0)
    return {place: weight * (ranked.score - least) for place, ranked in half.items()}


def _of_greatest(weight: float, half: dict[_Place, Ranked]) -> dict[_Place, float]:
    greatest = max((ranked.score for ranked in half.values()), default=0.0)
    return {place: weight * ranked.score / greatest if greatest > 0 else 0.0 for place, ranked in half.items()}


def _best_first(found: Fused[_Place]) -> tuple[float, int]:
    ranks = [half.rank for half in (found.dense, found.sparse) if half is not None]
    return -found.score, min(ranks)
