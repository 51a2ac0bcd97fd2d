"""Which index: LanceDB or Milvus, by its URI."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from retriever_svc.index import Index
from retriever_svc.settings import Settings

logger = logging.getLogger(__name__)

LANCE = "lance:"
MILVUS_LITE = "milvus:"
_HINT = (
    "Milvus Lite is slow; with the retriever stopped, `python -m retriever_svc.move --from {uri} --to lance:{folder}`"
)


@asynccontextmanager
async def open_index(uri: str, settings: Settings) -> AsyncIterator[Index]:
    """The index at the URI, with the knobs of the settings; only its own driver is loaded.

    `lance:FOLDER` is LanceDB, `http(s)://HOST:PORT` a Milvus server, and `milvus:FOLDER`, or a folder alone, Milvus
    Lite. Raises Unavailable where a server does not answer, OSError where a folder cannot be had.
    """
    if uri.startswith(LANCE):
        from retriever_svc.lance_index import open_lance_index
        from retriever_svc.lance_options import LanceOptions

        folder = Path(_path(uri, LANCE))
        lance_options = LanceOptions(folder, read_timeout_s=settings.index_timeout_s, **settings.lance.model_dump())
        async with open_lance_index(lance_options) as lance:
            yield lance
        return

    from retriever_svc.milvus_index import MilvusOptions, open_milvus_index

    options = MilvusOptions(
        uri=_path(uri, MILVUS_LITE),
        token=settings.milvus_token.get_secret_value(),
        consistency=settings.milvus_consistency,
        read_timeout_s=settings.index_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        flush_interval_s=settings.flush_interval_s,
        max_write_bytes=settings.max_write_bytes,
    )
    async with open_milvus_index(options) as milvus:
        if options.embedded:
            logger.info(_HINT.format(uri=uri, folder=Path(options.uri).with_name("index")))
        yield milvus


def folder_of(uri: str) -> Path | None:
    """The folder of an embedded index; None for a server."""
    if uri.startswith(LANCE):
        return Path(_path(uri, LANCE))
    return Path(_path(uri, MILVUS_LITE)) if uri.startswith(MILVUS_LITE) or "://" not in uri else None


def _path(uri: str, scheme: str) -> str:
    """What follows the scheme; `lance:folder`, `lance:/folder` and `lance:///folder` are all read."""
    return uri.removeprefix(scheme).removeprefix("//") if uri.startswith(scheme) else uri
