"""Work that goes on to its end though its caller is cancelled."""

import asyncio
import gc
import threading
from typing import Any

from ingest_svc.threads import in_thread


async def test_work_that_fails_after_its_caller_left_is_no_news() -> None:
    """The caller is cancelled when the work has ended, and nothing is logged of an error that nobody waits for."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    begun, gate = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait()
        raise FileNotFoundError("gone")

    caller = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait)
    caller.cancel()
    asyncio.get_running_loop().call_soon(gate.set)
    await asyncio.wait([caller])
    assert caller.cancelled()
    # asyncio tells of an error that nobody has seen when its task is let go.
    del caller
    await asyncio.sleep(0)
    gc.collect()
    assert told == []
