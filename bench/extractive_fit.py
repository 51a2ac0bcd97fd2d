"""Fits the extractive engine's weights; prints the constants of generator_svc/weights.py.

`python -m bench.extractive_fit ENGLISH DENSE...`: folders as bench.extractive_cases reads them, of each the tuning half
alone. The order is a softmax over a question's quotes that is to fall on those that hold the answer. The support is a
logistic regression on the quote that comes out best: whether the passages hold the answer. In it questions with the
answer at hand count as much as all those without, and strangers as much as near passages.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.extractive_cases import Case, Corpus, Given, Vectorizer, halves
from generator_svc.features import Features, measure
from generator_svc.question import Question

_ORDER_PENALTY = 3.0
_SUPPORT_PENALTY = 1.0
_STEPS = 200


@dataclass(frozen=True)
class _Fitted:
    order: torch.Tensor
    support: torch.Tensor
    bias: float

    def __str__(self) -> str:
        return f"Weights(\n    {_written(self.order)},\n    {_written(self.support)},\n    {self.bias:.2f},\n)"


@dataclass(frozen=True)
class _Example:
    """A case: its quotes' features [n, features], and which of them hold the answer."""

    given: Given
    features: torch.Tensor
    holds: torch.Tensor


def main(english: Path, dense: Sequence[Path]) -> None:
    """Fit and print."""
    vectors = Vectorizer()
    words = [_example(case, None) for case in _tuning(english, vectors)]
    meaning = [_example(case, vectors) for case in _tuning(english, vectors)]
    signs = [_example(case, None) for folder in dense for case in _tuning(folder, vectors)]
    for name, examples in {"LEXICAL": words, "ENCODED": meaning, "DENSE": signs}.items():
        print(f"{name} = {_fit([example for example in examples if len(example.features)])}")


def _tuning(folder: Path, vectors: Vectorizer) -> list[Case]:
    corpus = Corpus.read(folder)
    return halves(corpus, corpus.cases(vectors))[0]


def _example(case: Case, vectors: Vectorizer | None) -> _Example:
    found = measure(Question.read(case.question), case.passages)
    features = torch.tensor([each.features for each in found], dtype=torch.float64).reshape(-1, len(Features._fields))
    if vectors and found:
        near = vectors.similarities(case.question, [each.text_in_context for each in found])
        features[:, -1] = torch.tensor(near, dtype=torch.float64).clamp(min=0)
    holds = torch.tensor([case.held_by(each.passage, each.quote.text) for each in found])
    return _Example(case.given, features, holds)


def _fit(examples: Sequence[_Example]) -> _Fitted:
    order = _order([example for example in examples if example.holds.any()])
    best = torch.stack([example.features[(example.features @ order).argmax()] for example in examples])
    support, bias = _support(best, [example.given for example in examples])
    return _Fitted(order, support, bias)


def _order(examples: Sequence[_Example]) -> torch.Tensor:
    """The weights under which the softmax over each question's quotes falls on those that hold the answer."""
    scale = _scale(torch.cat([example.features for example in examples]))

    def loss(weights: torch.Tensor) -> torch.Tensor:
        scores = [example.features @ (weights * scale) for example in examples]
        lost = [
            score.logsumexp(0) - score[example.holds].logsumexp(0)
            for score, example in zip(scores, examples, strict=True)
        ]
        return torch.stack(lost).sum() + _ORDER_PENALTY / 2 * weights.square().sum()

    return _least(loss, len(scale)) * scale


def _support(best: torch.Tensor, given: Sequence[Given]) -> tuple[torch.Tensor, float]:
    """The weights and the bias of the logistic regression."""
    counts = Counter(given)
    missing = len(counts) - 1
    share = {kind: (1 if kind is Given.ANSWER else 1 / missing) / count for kind, count in counts.items()}
    mass = counts[Given.ANSWER] * torch.tensor([share[kind] for kind in given], dtype=torch.float64)
    answered = torch.tensor([float(kind is Given.ANSWER) for kind in given], dtype=torch.float64)
    scale = torch.cat([_scale(best), torch.ones(1, dtype=torch.float64)])
    columns = torch.cat([best, torch.ones(len(best), 1, dtype=torch.float64)], dim=1)

    def loss(weights: torch.Tensor) -> torch.Tensor:
        lost = torch.nn.functional.binary_cross_entropy_with_logits(
            columns @ (weights * scale), answered, weight=mass, reduction="sum"
        )
        return lost + _SUPPORT_PENALTY / 2 * weights[:-1].square().sum()

    *support, bias = (_least(loss, len(scale)) * scale).tolist()
    return torch.tensor(support), bias


def _scale(rows: torch.Tensor) -> torch.Tensor:
    """What brings every column to a deviation of 1; 0 for a column that is constant."""
    deviations = rows.std(dim=0)
    return torch.where(deviations > 0, 1 / deviations, 0.0)


def _least(loss: Callable[[torch.Tensor], torch.Tensor], size: int) -> torch.Tensor:
    """Where the loss is least."""
    weights = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        lost = loss(weights)
        lost.backward()
        return lost

    optimizer.step(step)
    return weights.detach()


def _written(weights: torch.Tensor) -> str:
    fields = zip(Features._fields, weights.tolist(), strict=True)
    return "Features(" + ", ".join(f"{name}={weight:.2f}" for name, weight in fields) + ")"


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
