"""The strategies of a server: its own, and those that installed packages bring along."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ingest_svc.chunking import Parameters, Strategies, Strategy
from ingest_svc.strategies.auto import AutoChooser
from ingest_svc.strategies.character import CharacterStrategy
from ingest_svc.strategies.code import CodeStrategy
from ingest_svc.strategies.format import FormatStrategy
from ingest_svc.strategies.recursive import RecursiveStrategy
from ingest_svc.strategies.semantic import SemanticStrategy
from ingest_svc.strategies.token import TokenStrategy

GROUP = "ragmesh.chunking_strategies"
"""The entry points' group: each names a class whose instances, made without arguments, are strategies."""

BUILT_IN: tuple[Strategy, ...] = (
    RecursiveStrategy(),
    TokenStrategy(),
    SemanticStrategy(),
    CharacterStrategy(),
    CodeStrategy(),
    FormatStrategy(),
)


class StrategyError(Exception):
    """An installed strategy cannot be used; the words say which one, and why."""


def load_strategies() -> Strategies:
    """The built-in strategies and the installed ones; raises StrategyError."""
    chooser = AutoChooser()
    taken = {chooser.name, *(strategy.name for strategy in BUILT_IN)}
    installed: list[Strategy] = []
    for point in entry_points(group=GROUP):
        strategy = _loaded(point)
        if strategy.name in taken:
            raise StrategyError(f"{_named(point)}: another strategy is named {strategy.name}")
        taken.add(strategy.name)
        installed.append(strategy)
    return Strategies(chooser, *BUILT_IN, *installed)


def _loaded(point: EntryPoint) -> Strategy:
    try:
        found = point.load()()
        _check(found)
    except Exception as error:
        # Whatever the package raises.
        raise StrategyError(f"{_named(point)} cannot be used: {error!r}") from error
    strategy: Strategy = found
    return strategy


def _check(found: Any) -> None:
    """Raise where it is no Strategy."""
    if not (isinstance(found.name, str) and found.name and isinstance(found.description, str)):
        raise TypeError("name and description must be texts")
    if not issubclass(found.parameters, Parameters):
        raise TypeError("parameters must be a class of ingest_svc.chunking.Parameters")
    found.parameters().model_json_schema()
    if not (callable(found.probes) and callable(found.cut)):
        raise TypeError("probes and cut must be methods")


def _named(point: EntryPoint) -> str:
    package = f" of {point.dist.name}" if point.dist else ""
    return f"the chunking strategy {point.name} ({point.value}){package}"
