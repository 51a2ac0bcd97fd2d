"""What a package, a ZIP file as Office's formats and EPUB are, may unpack to."""

import zipfile
from io import BytesIO

from meshkit.errors import InvalidArgument, ResourceExhausted

_MAX_UNPACKED_BYTES = 128 * 1024 * 1024
_MAX_PARTS = 20_000


def check(data: bytes, media_type: str) -> None:
    """Raises PARSER_LIMIT where a package would unpack to too much, UNREADABLE_DOCUMENT where it is broken."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as package:
            parts = package.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise broken(media_type) from error
    if sum(part.file_size for part in parts) > _MAX_UNPACKED_BYTES or len(parts) > _MAX_PARTS:
        message = "the document would unpack to too many bytes"
        raise ResourceExhausted("PARSER_LIMIT", message, metadata={"limit": "unpacked_bytes"})


def broken(media_type: str) -> InvalidArgument:
    """The error of a document that cannot be read."""
    return InvalidArgument("UNREADABLE_DOCUMENT", "the document is broken", metadata={"media_type": media_type})
