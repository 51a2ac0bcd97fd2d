"""The embedded indexes, opened alike."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from retriever_svc.index import Index
from retriever_svc.opening import open_index
from retriever_svc.settings import LanceSettings, Settings

# By the scheme of their URI, what GetIndex calls them.
ENGINES = {"lance": "lance", "milvus": "milvus-lite"}


def uri_of(kind: str, folder: Path) -> str:
    """The URI of an index of the kind in the folder."""
    return f"{kind}:{folder / kind}"


def opened(kind: str, folder: Path, **lance: Any) -> AbstractAsyncContextManager[Index]:
    """An index of the kind in the folder; `lance` are LanceDB's own knobs."""
    settings = Settings(flush_interval_s=0.05, lance=LanceSettings(**{"upkeep_interval_s": 0.05, **lance}))
    return open_index(uri_of(kind, folder), settings)
