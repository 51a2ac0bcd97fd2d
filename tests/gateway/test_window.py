"""Events are held back from a caller who says what it has read, and from no other."""

import asyncio

import pytest

from gateway.window import Window


async def _admitted(window: Window, last: int) -> int:
    """How many events of so many pass at once."""
    for sequence in range(1, last + 1):
        passing = asyncio.ensure_future(window.admit(sequence))
        await asyncio.sleep(0)
        if not passing.done():
            passing.cancel()
            return sequence - 1
    return last


async def test_who_never_acknowledges_is_never_waited_for() -> None:
    """Its stream has HTTP/2's own flow control."""
    window = Window(4)
    window.begin()
    assert await _admitted(window, 100) == 100


@pytest.mark.parametrize(("acknowledged", "passing"), [([0], 4), ([3], 4), ([0, 2], 4)])
async def test_window_lies_beyond_the_last_acknowledged(acknowledged: list[int], passing: int) -> None:
    """What was not sent cannot have been read."""
    window = Window(4)
    for sequence in acknowledged:
        window.acknowledge(sequence)
    window.begin()
    assert await _admitted(window, 100) == passing


async def test_window_moves_with_what_is_acknowledged() -> None:
    """Numbers never go back, nor beyond what was sent; another answer begins at its own first event."""
    window = Window(4)
    window.acknowledge(0)
    window.begin()
    assert await _admitted(window, 100) == 4
    window.acknowledge(3)
    window.acknowledge(1)
    assert await _admitted(window, 100) == 7
    window.acknowledge(99)
    assert await _admitted(window, 100) == 11
    window.begin()
    assert await _admitted(window, 100) == 4


async def test_lifting_lets_the_rest_of_the_answer_pass() -> None:
    """And wakes what waits."""
    window = Window(2)
    window.acknowledge(0)
    window.begin()
    assert await _admitted(window, 2) == 2
    passing = asyncio.ensure_future(window.admit(3))
    await asyncio.sleep(0)
    window.lift()
    async with asyncio.timeout(1):
        await passing
    assert await _admitted(window, 100) == 100
    window.begin()
    assert await _admitted(window, 100) == 2
