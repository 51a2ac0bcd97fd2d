"""The sections of a text: what stands under the same headings, small ones joined."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile

from pydantic import Field

from ingest_svc.chunking import Chunk, Encoded
from ingest_svc.extract import Block, BlockKind, Extract
from ingest_svc.strategies.measured_text import MeasuredText
from ingest_svc.strategies.packing import Packer, SizeParameters, Span, to_chunks


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


def joined(parts: Iterable[list[Block]], text: MeasuredText, parameters: SectionParameters) -> list[list[Block]]:
    """The sections, each small one joined with those after it until it is no more, else with the one before.

    Only those are joined that are on one page, none of which stands above the one before it.
    """

    def small(section: Sequence[Block]) -> bool:
        return text.count(section[0].start, section[-1].end) < parameters.min_tokens

    def fit(before: Sequence[Block], section: Sequence[Block]) -> bool:
        size = text.count(before[0].start, section[-1].end)
        return size <= parameters.max_tokens and _beside(before[-1], section[-1])

    ahead = _runs(parts, lambda before, section: small(before) and fit(before, section))
    return _runs(ahead, lambda before, section: small(section) and fit(before, section))


def _runs(sections: Iterable[list[Block]], belong: Callable[[list[Block], list[Block]], bool]) -> list[list[Block]]:
    """The sections, each in one list with the one before where they belong together."""
    found: list[list[Block]] = []
    for section in sections:
        if found and belong(found[-1], section):
            found[-1] = [*found[-1], *section]
        else:
            found.append(section)
    return found


def whole(section: Sequence[Block]) -> Span:
    """The section as one chunk, under the headings that all of its text has above it."""
    told = [block for block in section if block.kind is not BlockKind.HEADING] or section
    path = _shared(*(block.heading_path for block in told))
    return Span(section[0].start, section[-1].end, told[0].model_copy(update={"heading_path": path}))


def _beside(block: Block, following: Block) -> bool:
    """Whether the second stands on the same page, no higher than the first, and below the same heading."""
    above, below = block.heading_path, following.heading_path
    shared = len(_shared(above, below))
    return block.page == following.page and len(below) >= len(above) and shared >= len(above) - 1


def _shared(*paths: tuple[str, ...]) -> tuple[str, ...]:
    """The headings that all the paths begin with."""
    levels = zip(*paths, strict=False)
    return tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def cut_sections(
    extract: Extract,
    encoded: Encoded,
    parameters: SectionParameters,
    place: Callable[[Block], object],
    spans: Callable[[Sequence[Block], Packer, int], Iterator[Span]],
) -> list[Chunk]:
    """The chunks of a text by its sections: runs of blocks with one `place`, small ones joined, each cut by `spans`."""
    text = MeasuredText(extract.text, encoded.token_ends)
    packer = Packer(text, parameters)
    found = joined(sections(extract.blocks, place), text, parameters)
    return to_chunks(text, (span for section in found for span in spans(section, packer, parameters.max_tokens)))
