"""Windows over a whole text: what strategies share that look at sizes only."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from ingest_svc.extract import Block
from ingest_svc.strategies.measured_text import MeasuredText
from ingest_svc.strategies.packing import Span


def windows(
    text: MeasuredText, blocks: Sequence[Block], reach: Callable[[int, int], int], back: Callable[[int, int], int]
) -> Iterator[Span]:
    """Windows that ascend and together hold all that is not blank; all places are bytes.

    `reach` tells from a window's start, and the place where the one before ended, where it ends; `back` tells from its
    range where the next one starts. Each stands where its first new text does.
    """
    ends = [block.end for block in blocks]
    start = done = 0
    while done < len(text.bytes):
        end = reach(start, done)
        if end <= done:
            start, end = done, reach(done, done)
        first, _ = text.stripped(done, end)
        if first < end:
            start, stop = text.stripped(start, end)
            yield Span(start, stop, blocks[min(bisect_right(ends, first), len(blocks) - 1)])
            again = back(start, stop)
            start = again if again > start else end
        else:
            start = end if start == done else start
        done = end
