"""Two tenants search without pause while what their searches need is killed or hangs, through Envoy."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from functools import partial

import pytest
import pytest_asyncio

from deploy.local.mesh import Mesh
from deploy.local.supervisor import Process
from ragmesh.ingest.v1 import documents_pb2
from ragmesh.retriever.v1 import retriever_pb2
from ragmesh_client import Client
from tests.mesh.conftest import client
from tests.search_load import DEGRADED, MODES, QUERY, WHOLE, Load, pages

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]
COLLECTION = "faults"
AWAY = "UNAVAILABLE PEER_UNAVAILABLE"
# Twice the retriever's own limit for encoding a query, for those who try again, and as much for a busy machine.
MOST_S = 8.0

Fault = Callable[[Process, Load, Collection[str]], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenants(mesh: Mesh) -> AsyncIterator[dict[str, Client]]:
    """Clients of two tenants, each with the pages in a collection of the same name."""
    async with AsyncExitStack() as stack:
        clients: dict[str, Client] = {}
        for tenant in ("acme", "bolt"):
            clients[tenant] = caller = await stack.enter_async_context(client(mesh, tenant, timeout_s=15))
            await caller.create_collection(COLLECTION)
            for name, text in pages(tenant).items():
                steps = [step async for step in caller.upload(text.encode(), COLLECTION, uri=f"{name}.txt")]
                assert steps[-1].state == documents_pb2.Document.STATE_READY
        yield clients


async def killed(process: Process, load: Load, failing: Collection[str]) -> None:
    """Kill the process; those modes fail or are degraded before it is back."""
    process.kill()
    await load.until_not_whole(failing)
    await process.serving()


async def hangs(process: Process, load: Load, failing: Collection[str]) -> None:
    """Stop the process, its connections open, until each of those modes has failed or been degraded."""
    process.kill(signal.SIGSTOP)
    try:
        await load.until_not_whole(failing)
    finally:
        process.kill(signal.SIGCONT)


@pytest.mark.parametrize(
    ("fault", "name", "may_end"),
    [
        (killed, "embedder", {"dense": AWAY, "hybrid": DEGRADED}),
        (hangs, "embedder", {"dense": AWAY, "hybrid": DEGRADED}),
        (killed, "retriever", dict.fromkeys(MODES, AWAY)),
        (killed, "redis", {}),
    ],
)
async def test_searching_under_a_fault(
    fault: Fault, name: str, may_end: dict[str, str], mesh: Mesh, tenants: dict[str, Client]
) -> None:
    """Every search ends whole or as is published for the fault, none wrong or another tenant's; all heals unaided."""
    load = Load({tenant: partial(_search, caller) for tenant, caller in tenants.items()})
    await load.learn()
    async with load.running():
        began = time.perf_counter()
        await fault(mesh.processes[name], load, may_end)
        await load.until_whole()
        healed_s = time.perf_counter() - began
    load.report(f"{name} {fault.__name__}", healed_s)
    assert not load.wrong
    for mode, ends in load.ends.items():
        assert ends.keys() <= {WHOLE, may_end.get(mode, WHOLE)}, mode
    assert load.slowest_s < MOST_S


async def _search(caller: Client, mode: retriever_pb2.SearchMode.ValueType) -> retriever_pb2.SearchResponse:
    return await caller.search(QUERY, COLLECTION, mode=mode)
