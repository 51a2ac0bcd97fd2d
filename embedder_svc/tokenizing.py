"""Counting tokens without holding up the event loop."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Counted = TypeVar("Counted")

# Texts that are counted sooner than a thread takes them over: a query, not a document.
_SHORT_CHARS = 512


class Tokenizing:
    """So many threads that count tokens beside a model; `open_tokenizing` makes and closes it."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def run(self, count: Callable[[], Counted], chars: int) -> Counted:
        """What `count` gives, which counts the tokens of so many characters."""
        if chars <= _SHORT_CHARS:
            return count()
        return await asyncio.get_running_loop().run_in_executor(self._threads, count)


@contextmanager
def open_tokenizing(threads: int) -> Iterator[Tokenizing]:
    """Threads that count tokens."""
    with ThreadPoolExecutor(threads, thread_name_prefix="tokenize") as pool:
        yield Tokenizing(pool)
