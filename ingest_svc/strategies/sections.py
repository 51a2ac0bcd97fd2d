"""The sections of a text: what stands under the same headings, small ones joined."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile

from pydantic import Field

from ingest_svc.extract import Block, BlockKind
from ingest_svc.strategies.measured_text import MeasuredText
from ingest_svc.strategies.packing import SizeParameters, Span


class SectionParameters(SizeParameters):
    """Bounds in tokens of the collection's encoder; a section is repeated only where it is parted."""

    min_tokens: int = Field(
        60, ge=0, le=4096, description="Sections with fewer tokens are joined with the ones beside them."
    )


def sections(blocks: Iterable[Block], place: Callable[[Block], object]) -> Iterator[list[Block]]:
    """Runs of blocks in the same place; headings without text open the section that follows."""
    section: list[Block] = []
    for block in blocks:
        opens = bool(section) and place(block) != place(section[-1])
        if opens and any(member.kind is not BlockKind.HEADING for member in section):
            yield section
            section = []
        section.append(block)
    if section:
        yield section


def joined(parts: Iterable[list[Block]], text: MeasuredText, parameters: SectionParameters) -> Iterator[list[Block]]:
    """The sections, small ones joined with the one before or after on the same page, none of which stands above."""
    pending: list[Block] = []
    for part in parts:
        small = min(_tokens(text, pending), _tokens(text, part)) < parameters.min_tokens
        fits = bool(pending) and text.count(pending[0].start, part[-1].end) <= parameters.max_tokens
        if small and fits and _beside(pending[-1], part[-1]):
            pending = [*pending, *part]
            continue
        if pending:
            yield pending
        pending = part
    if pending:
        yield pending


def whole(section: Sequence[Block]) -> Span:
    """The section as one chunk, under the headings that all of its text has above it."""
    told = [block for block in section if block.kind is not BlockKind.HEADING] or section
    path = _shared(*(block.heading_path for block in told))
    return Span(section[0].start, section[-1].end, told[0].model_copy(update={"heading_path": path}))


def _tokens(text: MeasuredText, section: Sequence[Block]) -> int:
    return text.count(section[0].start, section[-1].end) if section else 0


def _beside(block: Block, following: Block) -> bool:
    """Whether the second stands on the same page, no higher than the first, and below the same heading."""
    above, below = block.heading_path, following.heading_path
    shared = len(_shared(above, below))
    return block.page == following.page and len(below) >= len(above) and shared >= len(above) - 1


def _shared(*paths: tuple[str, ...]) -> tuple[str, ...]:
    """The headings that all the paths begin with."""
    levels = zip(*paths, strict=False)
    return tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
