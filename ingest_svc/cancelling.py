"""Work that ends when its job is cancelled."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from ingest_svc.jobs import Ended, JobState, JobStore
from meshkit.errors import MeshError

_Result = TypeVar("_Result")


class Cancelling:
    """Watches the jobs that are worked on here; lives as long as its process, nothing to close.

    `_watched` has the task that looks at each of them, `_works` how many wait for it: the last one ends it.
    """

    def __init__(self, jobs: JobStore, poll_s: float) -> None:
        self._jobs = jobs
        self._poll_s = poll_s
        self._watched: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._works: Counter[tuple[str, str]] = Counter()

    async def guard(self, tenant: str, job: str, work: Coroutine[Any, Any, _Result]) -> _Result:
        """The result of the work, which is cancelled with the job ("" for none); raises Ended then."""
        if not job:
            return await work
        watched, working = self._watch((tenant, job)), asyncio.create_task(work)
        try:
            await asyncio.wait({watched, working}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Ended
            return await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            self._leave((tenant, job))

    def _watch(self, key: tuple[str, str]) -> asyncio.Task[None]:
        self._works[key] += 1
        if key not in self._watched:
            self._watched[key] = asyncio.create_task(self._until_cancelled(*key))
        return self._watched[key]

    def _leave(self, key: tuple[str, str]) -> None:
        self._works[key] -= 1
        if not self._works[key]:
            del self._works[key]
            self._watched.pop(key).cancel()

    async def _until_cancelled(self, tenant: str, job: str) -> None:
        while True:
            # Where the store is away, the work finds out by itself.
            with suppress(MeshError):
                if await self._jobs.state(tenant, job) is JobState.CANCELLED:
                    return
            await asyncio.sleep(self._poll_s)
