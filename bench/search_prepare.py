"""Fills every subject's index with the same chunks, once; what the same sources filled before is taken again."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench import search_faiss, search_lance, search_milvus
from bench.search_data import Block, Query, blocks, queries

DATA = Path("build/bench-data")
MILVUS_SIZE = 100_000
"""The biggest size that Milvus Lite is measured at: it takes some 1.5 thousand rows a second."""
_STAMP = "filled.json"
_LANCE_SOURCES = [f"retriever_svc/lance_{part}.py" for part in ("options", "rows", "table")]


class Builder(Protocol):
    """Fills one index."""

    async def add(self, block: Block) -> None:
        """Write the chunks."""
        ...

    async def close(self) -> None:
        """Have all of them indexed, and let go of the index."""
        ...


Open = Callable[[Path], Awaitable[Builder]]
_BUILDERS: dict[str, tuple[Open, list[str]]] = {
    "lance": (search_lance.open_builder, ["bench/search_lance.py", *_LANCE_SOURCES]),
    "faiss": (search_faiss.open_builder, ["bench/search_faiss.py"]),
    "milvus": (search_milvus.open_builder, ["bench/search_milvus.py"]),
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """Where the indexes of a size are, how long each took to fill, and the queries with their exact answers."""

    folders: dict[str, Path]
    filled_s: dict[str, float]
    queries: list[Query]
    exact: dict[bool, list[list[int]]]
    """The chunks nearest to each query's vector, by whether it was filtered."""


async def prepare(size: int, queries_asked: int) -> Prepared:
    """Fill what is not filled yet; of 1 million chunks that takes some minutes."""
    folders = {name: DATA / str(size) / name for name in _BUILDERS if name != "milvus" or size <= MILVUS_SIZE}
    await _fill({name: folder for name, folder in folders.items() if _filled(name, folder) is None}, size)
    asked = queries(size, queries_asked)
    exact = {filtered: search_faiss.exact(folders["faiss"], asked, filtered=filtered) for filtered in (False, True)}
    filled_s = {name: _filled(name, folder) or 0.0 for name, folder in folders.items()}
    return Prepared(folders, filled_s, asked, {filtered: found.tolist() for filtered, found in exact.items()})


async def _fill(folders: dict[str, Path], size: int) -> None:
    """Fill the indexes in one pass through the chunks."""
    took_s = dict.fromkeys(folders, 0.0)
    builders = {}
    for name, folder in folders.items():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        builders[name] = await _BUILDERS[name][0](folder)
    for block in blocks(size) if builders else ():
        for name, builder in builders.items():
            took_s[name] += await _timed(builder.add(block))
    for name, builder in builders.items():
        took_s[name] += await _timed(builder.close())
        (folders[name] / _STAMP).write_text(json.dumps({"sources": _sources(name), "filled_s": took_s[name]}))


async def _timed(work: Awaitable[None]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def _filled(name: str, folder: Path) -> float | None:
    """How long the index took to fill, or None where it is not filled or other sources filled it."""
    stamp = folder / _STAMP
    if not stamp.exists():
        return None
    noted = json.loads(stamp.read_text())
    return float(noted["filled_s"]) if noted["sources"] == _sources(name) else None


def _sources(name: str) -> str:
    """A hash of all that makes an index what it is."""
    patterns = ["bench/search_data.py", *_BUILDERS[name][1]]
    files = sorted(path for pattern in patterns for path in Path().glob(pattern))
    return hashlib.blake2b(b"".join(path.read_bytes() for path in files), digest_size=16).hexdigest()
