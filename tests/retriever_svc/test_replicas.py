"""A retriever over several embedders: calls are shared, slow ones tried twice, dead ones passed over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from meshkit.errors import FailedPrecondition
from retriever_svc.hedging import Hedging, Policy
from retriever_svc.metrics import HedgingCollector
from retriever_svc.settings import HedgingSettings
from tests.retriever_svc.doubles import SmallEmbedder
from tests.retriever_svc.serving import NOWHERE, Caller, calling, serve_embedder, serve_retriever

# Every call has a second attempt, and at once.
ALWAYS = HedgingSettings(budget=1, floor_s=0, ceiling_s=0)
NEVER = HedgingSettings(budget=0)


@asynccontextmanager
async def caller_of(folder: Path, *embedders: SmallEmbedder, away: int = 0, **settings: Any) -> AsyncIterator[Caller]:
    """A caller of a retriever over the embedders and so many addresses that nobody listens on."""
    async with AsyncExitStack() as stack:
        targets = [await stack.enter_async_context(serve_embedder(embedder)) for embedder in embedders]
        # Different names of one address that nobody has.
        targets += [NOWHERE, "localhost:1"][:away]
        address = await stack.enter_async_context(serve_retriever(folder, ",".join(targets), **settings))
        caller = await stack.enter_async_context(calling(address))
        await caller.put()
        await caller.write("animals", ["cats sleep all day", "dogs bark at night"])
        yield caller


async def searches(caller: Caller, count: int) -> None:
    """So many dense searches, one after another, each answered."""
    for _ in range(count):
        found = await caller.found("when do dogs bark", mode="SEARCH_MODE_DENSE", top_k=1)
        assert found == ["dogs bark at night"]


async def test_calls_are_shared(tmp_path: Path) -> None:
    """Each replica has its turn."""
    embedders = [SmallEmbedder(), SmallEmbedder()]
    async with caller_of(tmp_path, *embedders, hedging=NEVER) as caller:
        await searches(caller, 12)
    assert all(len(embedder.asked) >= 4 for embedder in embedders)


async def test_one_of_another_revision_is_refused(tmp_path: Path) -> None:
    """Its vectors are never searched with: a dense search fails with the reason, hybrid goes on by words."""
    own, other = SmallEmbedder(), SmallEmbedder(model="words@r2")
    async with caller_of(tmp_path, own, other, hedging=NEVER) as caller:
        dense = [caller.found("when do dogs bark", mode="SEARCH_MODE_DENSE", top_k=1) for _ in range(8)]
        found = await asyncio.gather(*dense, return_exceptions=True)
        refused = len(other.asked)
        left_out = [(await caller.search("dogs bark")).degradations for _ in range(8)]
    errors = [answer for answer in found if isinstance(answer, FailedPrecondition)]
    assert [answer for answer in found if answer not in errors] == [["dogs bark at night"]] * (8 - refused)
    assert [error.reason for error in errors] == ["ENCODER_MISMATCH"] * refused
    assert 0 < refused < 8
    assert {left.reason for degradations in left_out for left in degradations} == {"ENCODER_MISMATCH"}


async def test_one_that_hangs_costs_nothing_but_the_delay(tmp_path: Path) -> None:
    """The other answers, and the one that hangs is told that nobody waits."""
    hung, well = SmallEmbedder(), SmallEmbedder()
    hung.answers.clear()
    async with caller_of(tmp_path, hung, well, hedging=ALWAYS) as caller:
        await searches(caller, 8)
    assert hung.asked
    assert hung.left == len(hung.asked)


async def test_without_a_budget_one_that_hangs_is_left_alone(tmp_path: Path) -> None:
    """A call that it held until its time was up is degraded and says so; those after it go to the other."""
    hung, well = SmallEmbedder(), SmallEmbedder()
    hung.answers.clear()
    async with caller_of(tmp_path, hung, well, hedging=NEVER, embed_timeout_s=0.2) as caller:
        left_out = [(await caller.search("dogs bark")).degradations for _ in range(8)]
    assert [left.reason for degradations in left_out for left in degradations] in ([], ["PEER_UNAVAILABLE"])
    assert len(hung.asked) <= 1


async def test_one_that_hangs_is_not_waited_for_again_and_again(tmp_path: Path) -> None:
    """It is left alone for a while, all alone as it may be, and then it is asked again."""
    hung = SmallEmbedder()
    hung.answers.clear()
    async with caller_of(tmp_path, hung, embed_timeout_s=0.1, embedder_cooldown_s=0.3) as caller:
        for _ in range(3):
            left_out = (await caller.search("dogs bark")).degradations
            assert [left.reason for left in left_out] == ["PEER_UNAVAILABLE"]
        assert len(hung.asked) == 1
        hung.answers.set()
        async with asyncio.timeout(5):
            while (await caller.search("dogs bark")).degradations:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("away", [1, 2])
async def test_one_that_is_away_is_passed_over(away: int, tmp_path: Path) -> None:
    """Every search is answered in full."""
    well = SmallEmbedder()
    async with caller_of(tmp_path, well, away=away, hedging=NEVER) as caller:
        await searches(caller, 6)
    assert len(well.asked) == 6


async def test_reranking_passes_over_too(tmp_path: Path) -> None:
    """As encoding does."""
    async with caller_of(tmp_path, SmallEmbedder(reranker=True), away=1) as caller:
        for _ in range(3):
            assert not (await caller.search("dogs bark", rerank=True)).degradations


async def test_second_attempts_are_counted() -> None:
    """By what became of them."""
    hedging = Hedging(Policy(ceiling_s=0.5))
    hedging.totals.calls, hedging.totals.hedged, hedging.totals.won, hedging.totals.denied = 9, 3, 2, 1
    registry = CollectorRegistry()
    registry.register(HedgingCollector(hedging))
    text = generate_latest(registry).decode()
    assert "ragmesh_retriever_embed_calls_total 9.0" in text
    for outcome, number in {"won": 2, "lost": 1, "denied": 1}.items():
        assert f'ragmesh_retriever_embed_hedges_total{{outcome="{outcome}"}} {number}.0' in text
    assert "ragmesh_retriever_embed_hedge_delay_seconds 0.5" in text
