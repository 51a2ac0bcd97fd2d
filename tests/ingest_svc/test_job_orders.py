"""What a job over a folder refuses, and what is no failure of one."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from ragmesh.ingest.v1 import jobs_pb2
from tests.ingest_svc.conftest import HANDBOOK, World
from tests.ingest_svc.failures import failure_of


@pytest.fixture
async def source(world: World, tmp_path: Path) -> Path:
    """A folder with a space in its name, and a collection."""
    await world.alice.create_collection()
    folder = tmp_path / "source" / "my pages"
    folder.mkdir()
    return folder


async def started(world: World, **order: Any) -> Any:
    """Start a job."""
    request = jobs_pb2.StartJobRequest(**{"collection": HANDBOOK} | order)
    return (await world.alice.jobs.StartJob(request)).job


async def ended(world: World, **order: Any) -> Any:
    """Start a job, and return it at its end."""
    request = jobs_pb2.WatchJobRequest(name=(await started(world, **order)).name)
    return [response.job async for response in world.alice.jobs.WatchJob(request)][-1]


@pytest.mark.parametrize("pattern", ["[", "docs/[a-", "[]", "a[!]b", ""])
@pytest.mark.parametrize("field", ["include", "exclude"])
async def test_patterns_that_match_nothing_are_refused(world: World, source: Path, field: str, pattern: str) -> None:
    """A class of characters that is not closed, or no pattern at all, is told by its place."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await started(world, source_uri=source.as_uri(), **{field: ["*.md", pattern]})
    assert failure_of(failed.value) == ("INVALID_ARGUMENT", "INVALID_FIELD", [f"{field}[1]"])


async def test_patterns_may_have_classes(world: World, source: Path) -> None:
    """One of some characters, one of others, one of a bracket itself."""
    for name in ("a1.md", "b1.md", "c].md", "d[.md"):
        (source / name).write_text("Some text.")
    for pattern, found in (("[ab]?.md", 2), ("[!a-c]*", 1), ("c[]].md", 1), ("d[[].md", 1)):
        assert (await ended(world, source_uri=source.as_uri(), include=[pattern])).counts.found == found


@pytest.mark.parametrize("more", ["?x=1", "#part", "/a.md?x"])
async def test_a_folder_has_no_query(world: World, source: Path, more: str) -> None:
    """What would be left out in silence is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await started(world, source_uri=f"{source.as_uri()}{more}")
    assert failure_of(failed.value) == ("INVALID_ARGUMENT", "INVALID_FIELD", ["source_uri"])


async def test_escapes_in_a_folder_are_read(world: World, source: Path) -> None:
    """As RFC 8089 has them, also of what parts a URI."""
    (source / "why?.md").write_text("Some text.")
    assert "%20" in source.as_uri()
    assert (await ended(world, source_uri=source.as_uri())).counts.ready == 1
    assert (await ended(world, source_uri=f"{source.as_uri()}/why%3F.md")).counts.ready == 1


async def test_what_has_no_text_is_told_apart(world: World, source: Path) -> None:
    """It fails with its reason, and is counted once more among those that lack nothing."""
    (source / "_index.md").write_text("---\ntitle: Pages\n---\n")
    (source / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing more")
    (source / "page.md").write_text("Some text.")
    counts = (await ended(world, source_uri=source.as_uri())).counts
    assert (counts.ready, counts.failed, counts.without_text) == (1, 2, 1)
