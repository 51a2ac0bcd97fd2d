"""How a document's text is cut into chunks: what a strategy is, and the strategies there are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from ingest_svc.extract import Extract
from meshkit.errors import FieldViolation, InvalidArgument, NotFound


class Chunking(BaseModel):
    """A strategy by name, and all its parameters."""

    model_config = ConfigDict(frozen=True)

    strategy: str
    parameters: dict[str, Any]


class Parameters(BaseModel):
    """A strategy's parameters; each field has a default and a description."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document's text: `text` stands at the bytes [start, end) of it.

    The heading path and the page are those of its first text that the chunk before does not have.
    """

    ordinal: int
    start: int
    end: int
    text: str
    heading_path: tuple[str, ...]
    page: int
    token_count: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the collection's encoder makes of a text.

    `token_ends` has the byte after each of its tokens, ascending; `vectors` a row for each of the strategy's probes.
    """

    token_ends: Sequence[int]
    vectors: NDArray[np.float32]


class Strategy(Protocol):
    """A way to cut a text; pure and without state."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def parameters(self) -> type[Parameters]:
        """What its parameters are."""

    def probes(self, extract: Extract, parameters: Any) -> Sequence[str]:  # noqa: ARG002 - few need any
        """The texts whose vectors it needs to cut, none of them empty; no texts for most strategies."""
        return ()

    def cut(self, extract: Extract, encoded: Encoded, parameters: Any) -> list[Chunk]:
        """The chunks in order."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a document is to be cut and, where that was not asked for by name, why so."""

    chunking: Chunking
    rationale: str = ""


class Chooser(Protocol):
    """What stands in a strategy's place until a document's kind and content are known; pure and without state."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def parameters(self) -> type[Parameters]:
        """What its parameters are."""

    def choose(self, extract: Extract, parameters: Any) -> Choice:
        """A strategy for the document, with some of its parameters."""


class Strategies:
    """The strategies of a server, the one that chooses among them its default; lives as long as its process."""

    def __init__(self, chooser: Chooser, *strategies: Strategy) -> None:
        self._chooser = chooser
        self._by_name: Mapping[str, Strategy] = {strategy.name: strategy for strategy in strategies}

    def __iter__(self) -> Iterator[Chooser | Strategy]:
        yield self._chooser
        yield from self._by_name.values()

    def resolve(self, name: str, parameters: Mapping[str, Any], field: str = "chunking") -> Chunking:
        """The strategy with every parameter filled in; `field` is the request's field that named it.

        Raises STRATEGY_NOT_FOUND for an unknown strategy or parameter, INVALID_FIELD for a bad value.
        """
        strategy = self._chooser if name in ("", self._chooser.name) else self._named(name)
        unknown = parameters.keys() - strategy.parameters.model_fields.keys()
        if unknown:
            metadata = {"strategy": strategy.name, "parameter": min(unknown)}
            message = f"the strategy {strategy.name} has no parameter {min(unknown)}"
            raise NotFound("STRATEGY_NOT_FOUND", message, metadata=metadata)
        try:
            filled = strategy.parameters.model_validate(parameters)
        except ValidationError as error:
            raise _bad_parameters(error, f"{field}.parameters") from error
        return Chunking(strategy=strategy.name, parameters=filled.model_dump())

    def choose(self, chunking: Chunking, extract: Extract) -> Choice:
        """How to cut the text of a document that is to be cut so: by a strategy that `probes` and `cut` know."""
        if chunking.strategy != self._chooser.name:
            return Choice(chunking)
        chosen = self._chooser.choose(extract, self._chooser.parameters.model_validate(chunking.parameters))
        return Choice(self.resolve(chosen.chunking.strategy, chosen.chunking.parameters), chosen.rationale)

    def probes(self, chunking: Chunking, extract: Extract) -> Sequence[str]:
        """The texts whose vectors `cut` needs."""
        strategy = self._named(chunking.strategy)
        return strategy.probes(extract, strategy.parameters.model_validate(chunking.parameters))

    def cut(self, chunking: Chunking, extract: Extract, encoded: Encoded) -> list[Chunk]:
        """The chunks of a text, cut as `chunking` says."""
        strategy = self._named(chunking.strategy)
        return strategy.cut(extract, encoded, strategy.parameters.model_validate(chunking.parameters))

    def _named(self, name: str) -> Strategy:
        if name not in self._by_name:
            message = f"no chunking strategy is named {name}"
            raise NotFound("STRATEGY_NOT_FOUND", message, metadata={"strategy": name})
        return self._by_name[name]


def _bad_parameters(error: ValidationError, field: str) -> InvalidArgument:
    violations = [
        FieldViolation(
            ".".join([field, *(str(part) for part in found["loc"])]), found["msg"].removeprefix("Value error, ")
        )
        for found in error.errors(include_url=False, include_input=False)
    ]
    first = violations[0]
    return InvalidArgument(
        "INVALID_FIELD",
        f"{first.field}: {first.description}",
        metadata={"field": first.field},
        violations=violations,
    )
