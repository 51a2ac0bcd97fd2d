"""The main job on real input: pages of the Kubernetes documentation, ingested and asked about through Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.mesh import Mesh
from tests.mesh import surfaces
from tests.mesh.conftest import client

PAGES = Path(__file__).parents[3] / "shared" / "data" / "k8s-docs" / "pages" / "en" / "tasks" / "job"
COLLECTION = "kubernetes"

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(240),
    pytest.mark.skipif(not PAGES.exists(), reason="the pages are not part of the project"),
]


async def test_pages_are_ingested_once_and_answer_with_citations(mesh: Mesh) -> None:
    """Each page can be found, a second run changes nothing, and a question streams an answer that cites its page."""
    pages = sorted(PAGES.rglob("*.md"))
    async with client(mesh, timeout_s=60) as caller:
        await caller.create_collection(COLLECTION)
        first = [step async for step in caller.ingest([PAGES], COLLECTION) if step.ended]
        again = [step async for step in caller.ingest([PAGES], COLLECTION) if step.ended]
        collection = await caller.get_collection(COLLECTION)
    failed = {step.path.name: step.error.reason for step in first if step.error}
    unchanged = [step for step in again if step.progress and step.progress.unchanged]
    assert len(first) == len(pages)
    assert set(failed.values()) <= {"NO_TEXT"}  # index pages that hold a title only
    assert len(unchanged) == len(pages) - len(failed)
    assert collection.document_count == len(pages) - len(failed)
    question = "How do I run an automated task every minute with a CronJob?"
    heard = await surfaces.sse(mesh.edge, mesh.token(), COLLECTION, question)
    assert heard.ended
    assert any("cron" in chunk for _, chunk, *_ in heard.citations), heard
