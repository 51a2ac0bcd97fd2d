"""Answers given again by the whole mesh."""

from __future__ import annotations

import pytest

from deploy.local.mesh import Mesh
from ragmesh.ingest.v1 import documents_pb2
from ragmesh_client import Client
from tests.mesh.conftest import client

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]
QUESTION = "How long is the tunnel?"


async def write(caller: Client, length: str) -> None:
    """Write the one document of the collection, findable when this returns."""
    text = f"# The tunnel\n\nThe tunnel is {length} kilometres long. It was opened in spring.\n"
    uploading = caller.upload(text.encode(), "tunnels", document_id="tunnel", uri="tunnel.md")
    *_, last = [step async for step in uploading]
    assert last.state == documents_pb2.Document.STATE_READY


async def test_answers_are_given_again_until_the_collection_changes(mesh: Mesh) -> None:
    """An equal question at once; never after a document was written, and the new answer again from then on."""
    async with client(mesh) as caller:
        await caller.create_collection("tunnels")
        for length in ("seven", "nine"):
            await write(caller, length)
            first = await caller.ask_once(QUESTION, "tunnels")
            again = await caller.ask_once(f"{QUESTION.lower()} ", "tunnels")
            assert (first.cached, again.cached) == (False, True)
            assert f"{length} kilometres" in first.text
            assert (again.text, again.citations) == (first.text, first.citations)
