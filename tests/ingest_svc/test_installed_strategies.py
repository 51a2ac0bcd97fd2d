"""Strategies that installed packages bring along, by real distributions on the path."""

from pathlib import Path

import pytest

from ingest_svc.app import open_app
from ingest_svc.chunking import Chunking, Encoded
from ingest_svc.extract import BlockKind
from ingest_svc.settings import Settings
from ingest_svc.strategies.loading import BUILT_IN, GROUP, StrategyError, load_strategies
from tests.ingest_svc.extracts import extract_of, vectors
from tests.ingest_svc.words import token_ends

WHOLE = '''
from ingest_svc.chunking import Parameters, Strategy
from ingest_svc.strategies.measured_text import MeasuredText


class Whole(Strategy):
    """One chunk a block."""

    name = "{name}"
    description = "A chunk a block."
    parameters = Parameters

    def cut(self, extract, encoded, parameters):
        text = MeasuredText(extract.text, encoded.token_ends)
        return [text.chunk(place, block.start, block.end, block) for place, block in enumerate(extract.blocks)]
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Install":
    """Puts a distribution with a strategy on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    return Install(tmp_path)


class Install:
    """Writes a distribution as pip leaves one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, module: str, source: str, attribute: str = "Whole") -> None:
        """A distribution of one module, whose entry point names the attribute."""
        (self._folder / f"{module}.py").write_text(source)
        info = self._folder / f"{module}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\nown = {module}:{attribute}\n")


def test_a_strategy_of_a_package_is_listed_and_cuts(install: Install) -> None:
    """Beside the built-in ones, behind them."""
    install("acme_whole", WHOLE.format(name="whole"))
    strategies = load_strategies()
    assert [each.name for each in strategies] == ["auto", *(each.name for each in BUILT_IN), "whole"]
    extract = extract_of([(BlockKind.PARAGRAPH, "One.", 1), (BlockKind.PARAGRAPH, "Two.", 1)])
    encoded = Encoded(token_ends(extract.text), vectors([]))
    found = strategies.cut(Chunking(strategy="whole", parameters={}), extract, encoded)
    assert [chunk.text for chunk in found] == ["One.", "Two."]


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("acme_broken", "import nothing_of_that_name", "nothing_of_that_name"),
        ("acme_taken", WHOLE.format(name="recursive"), "another strategy is named recursive"),
        ("acme_nameless", WHOLE.format(name=""), "must be texts"),
        ("acme_other", "class Whole: ...", "no attribute 'name'"),
    ],
)
async def test_a_broken_strategy_stops_the_start(install: Install, module: str, source: str, words: str) -> None:
    """It is named, with its package, and what is wrong with it."""
    install(module, source)
    with pytest.raises(StrategyError, match=rf"the chunking strategy own \({module}:Whole\) of {module}.*{words}"):
        load_strategies()
    with pytest.raises(StrategyError, match=module):
        async with open_app(Settings(redis_url="redis://127.0.0.1:1/0", metrics_listen="")):
            pass
