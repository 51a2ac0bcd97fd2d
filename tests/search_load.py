"""Callers of two tenants who search without pause in every mode, while something is done to what answers them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from meshkit.errors import MeshError
from ragmesh.retriever.v1 import retriever_pb2
from ragmesh_client import RagmeshError

MODES = {
    "dense": retriever_pb2.SEARCH_MODE_DENSE,
    "sparse": retriever_pb2.SEARCH_MODE_SPARSE,
    "hybrid": retriever_pb2.SEARCH_MODE_HYBRID,
}
WHOLE, DEGRADED = "whole", "by words alone: PEER_UNAVAILABLE"
QUERY = "how many days of leave are there"
RECOVERY_S = 60.0

Search = Callable[[retriever_pb2.SearchMode.ValueType], Awaitable[retriever_pb2.SearchResponse]]
Found = list[tuple[str, str]]


def pages(tenant: str) -> dict[str, str]:
    """Pages that say the same for every tenant, but for its name in each sentence."""
    return {
        "leave": f"At {tenant} there are thirty days of leave a year.",
        "travel": f"At {tenant} train journeys are booked in second class, six days before.",
        "badges": f"At {tenant} lost badges are reported at the front desk.",
    }


@dataclass
class Load:
    """Searches of tenants by name; `ends` counts how each mode's ended, `slowest_s` is the longest that one took.

    `wrong` has every answer that was neither what the tenant finds in that mode, nor, where it said that it was
    degraded, what the tenant finds by words.
    """

    searches: Mapping[str, Search]
    ends: dict[str, Counter[str]] = field(default_factory=lambda: {mode: Counter() for mode in MODES})
    wrong: list[Found] = field(default_factory=list)
    slowest_s: float = 0.0
    expected: dict[tuple[str, str], Found] = field(default_factory=dict)

    async def learn(self) -> None:
        """Find what there is to find while nothing is wrong."""
        for tenant, search in self.searches.items():
            for mode, number in MODES.items():
                response = await search(number)
                found = _found(response)
                assert found
                assert not response.degradations
                assert all(tenant in text for _, text in found), found
                self.expected[tenant, mode] = found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Search in every mode for every tenant while the body runs."""
        stop = asyncio.Event()
        searchers = [
            asyncio.create_task(self._search_until(stop, tenant, mode)) for tenant in self.searches for mode in MODES
        ]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*searchers)

    async def _search_until(self, stop: asyncio.Event, tenant: str, mode: str) -> None:
        while not stop.is_set():
            began = time.perf_counter()
            end = await self._end(tenant, mode)
            self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
            self.ends[mode][end] += 1
            await asyncio.sleep(0.02)

    async def _end(self, tenant: str, mode: str) -> str:
        try:
            response = await self.searches[tenant](MODES[mode])
        except (MeshError, RagmeshError) as error:
            code = error.code if isinstance(error.code, str) else error.code.name
            return f"{code} {error.reason}"
        left_out = [f"{left.stage} {left.reason}" for left in response.degradations]
        found = _found(response)
        if found != self.expected[tenant, "sparse" if left_out else mode]:
            self.wrong.append(found)
        if left_out == ["dense PEER_UNAVAILABLE"]:
            return DEGRADED
        return ", ".join(left_out) or WHOLE

    async def until_not_whole(self, modes: Collection[str]) -> None:
        """Return when a search of each of the modes was not whole."""
        async with asyncio.timeout(RECOVERY_S):
            while not all(self.ends[mode].keys() - {WHOLE} for mode in modes):
                await asyncio.sleep(0.02)

    async def until_whole(self) -> float:
        """Seconds until every tenant finds all in every mode."""
        began = time.perf_counter()
        async with asyncio.timeout(RECOVERY_S):
            for tenant in self.searches:
                for mode in MODES:
                    while await self._end(tenant, mode) != WHOLE:
                        await asyncio.sleep(0.05)
        return time.perf_counter() - began

    def report(self, what: str, healed_s: float) -> None:
        """Print what became of the searches."""
        ends = {mode: dict(counted) for mode, counted in self.ends.items()}
        print(f"\n{what}: {ends}; the longest took {self.slowest_s:.2f} s; whole again after {healed_s:.1f} s")


def _found(response: retriever_pb2.SearchResponse) -> Found:
    return [(hit.chunk.name, hit.chunk.text) for hit in response.hits]
