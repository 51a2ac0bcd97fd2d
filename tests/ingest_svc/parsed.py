"""What a parser makes of bytes, in the form in which tests compare it."""

import zipfile
from collections.abc import Callable
from io import BytesIO

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


def changed(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """The package with each part as `change` makes it of the part's name and bytes."""
    file = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as package, zipfile.ZipFile(file, "w") as target:
        for name in package.namelist():
            target.writestr(name, change(name, package.read(name)))
    return file.getvalue()
