"""Turns and locks: who waits for whom, and what happens to the work of who leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from retriever_svc.locking import ReadersWriterLock
from retriever_svc.turns import Turns, open_turns


class Work:
    """Work that runs until it is let go, and keeps a record of when it ran."""

    def __init__(self, log: list[str], name: str) -> None:
        self._log = log
        self._name = name
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        self._log.append(f"{self._name} begins")
        self.begun.set()
        await self.go.wait()
        self._log.append(f"{self._name} ends")
        return self._name


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_writes_of_one_key_take_turns() -> None:
    """The second begins when the first has ended; that of another key does not wait."""
    log: list[str] = []
    first, second, other = (Work(log, name) for name in ("first", "second", "other"))
    async with open_turns() as turns:
        tasks = [
            asyncio.create_task(turns.take(key, work)) for key, work in [("a", first), ("a", second), ("b", other)]
        ]
        await settle()
        assert log == ["first begins", "other begins"]
        for work in (first, second, other):
            work.go.set()
        assert await asyncio.gather(*tasks) == ["first", "second", "other"]
    assert log.index("first ends") < log.index("second begins")


async def test_a_write_that_has_begun_ends_without_its_caller() -> None:
    """The next in turn still waits for it, and so does closing."""
    log: list[str] = []
    left, following = Work(log, "left"), Work(log, "following")
    async with open_turns() as turns:
        caller = asyncio.create_task(turns.take("a", left))
        await left.begun.wait()
        await cancelled(caller)
        task = asyncio.create_task(turns.take("a", following))
        await settle()
        assert log == ["left begins"]
        left.go.set()
        following.go.set()
        await task
    assert log == ["left begins", "left ends", "following begins", "following ends"]


async def test_a_write_whose_caller_left_before_its_turn_is_not_done() -> None:
    """It is taken out of the queue."""
    log: list[str] = []
    first, left = Work(log, "first"), Work(log, "left")
    async with open_turns() as turns:
        task = asyncio.create_task(turns.take("a", first))
        await first.begun.wait()
        waiting = asyncio.create_task(turns.take("a", left))
        await settle()
        await cancelled(waiting)
        first.go.set()
        await task
    assert log == ["first begins", "first ends"]


async def test_a_failing_write_tells_its_caller_and_lets_the_next_begin() -> None:
    """The lock is free again."""

    async def fail() -> None:
        raise KeyError("failed")

    turns = Turns()
    with pytest.raises(KeyError):
        await turns.take("a", fail)
    done = Work([], "done")
    done.go.set()
    assert await turns.take("a", done) == "done"


async def test_readers_share_and_a_writer_excludes() -> None:
    """A writer waits for the readers there are and goes before those who come later."""
    lock = ReadersWriterLock()
    log: list[str] = []
    one, two, writer, late = (Work(log, name) for name in ("one", "two", "writer", "late"))
    tasks = [asyncio.create_task(within(lock.reading, work)) for work in (one, two)]
    await settle()
    tasks.append(asyncio.create_task(within(lock.writing, writer)))
    await settle()
    tasks.append(asyncio.create_task(within(lock.reading, late)))
    await settle()
    assert log == ["one begins", "two begins"]
    for work in (one, two, writer, late):
        work.go.set()
    await asyncio.gather(*tasks)
    assert log[-4:] == ["writer begins", "writer ends", "late begins", "late ends"]


async def test_a_writer_who_gives_up_lets_readers_in() -> None:
    """They do not wait for one that is gone."""
    lock = ReadersWriterLock()
    log: list[str] = []
    reader, writer, late = (Work(log, name) for name in ("reader", "writer", "late"))
    first = asyncio.create_task(within(lock.reading, reader))
    await settle()
    waiting = asyncio.create_task(within(lock.writing, writer))
    await settle()
    second = asyncio.create_task(within(lock.reading, late))
    await settle()
    await cancelled(waiting)
    await settle()
    assert log == ["reader begins", "late begins"]
    reader.go.set()
    late.go.set()
    await asyncio.gather(first, second)


async def within(lock: Callable[[], Any], work: Callable[[], Awaitable[str]]) -> None:
    """Do the work with the lock held."""
    async with lock():
        await work()


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel the task and see that it ends so."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
