"""What a parser makes of bytes, in the form in which tests compare it."""

from ingest_svc.extract import BlockKind, Extract, Source
from ingest_svc.parsing.reading import read

MAX_TEXT_BYTES = 1_000_000


def extract(data: bytes | str, uri: str = "", password: str = "") -> Extract:
    """The extract, its blocks checked to be in order and to part no character."""
    source = Source(data.encode() if isinstance(data, str) else data, uri, password)
    found = read(source, MAX_TEXT_BYTES)
    text, last = found.text.encode(), 0
    for block in found.blocks:
        assert last <= block.start < block.end
        assert text[block.start : block.end].decode().strip()
        last = block.end
    assert last == len(text)
    return found


def blocks(found: Extract) -> list[tuple[str, str]]:
    """The kind and the text of each block."""
    text = found.text.encode()
    return [(block.kind, text[block.start : block.end].decode()) for block in found.blocks]


def texts(found: Extract, kind: BlockKind) -> list[str]:
    """The texts of the blocks of a kind."""
    return [text for other, text in blocks(found) if other is kind]
