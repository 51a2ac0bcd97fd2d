"""A collection is reindexed on the running mesh while it is searched and changed, by client and by REST."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import httpx
import pytest

from deploy.local.mesh import Mesh
from ragmesh.ingest.v1 import documents_pb2, jobs_pb2
from ragmesh.retriever.v1 import retriever_pb2
from ragmesh_client import Client
from tests.mesh.conftest import client

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]
PAGES = 30


async def upload(caller: Client, collection: str, id: str, text: str) -> None:
    """Upload a page and wait until it can be found."""
    states = [step.state async for step in caller.upload(text.encode(), collection, document_id=id)]
    assert states[-1] == documents_pb2.Document.STATE_READY


async def search_until(mesh: Mesh, collection: str, stop: asyncio.Event) -> int:
    """Search again and again: every search finds every page that was there before, whole; count the searches."""
    count = 0
    async with client(mesh) as caller:
        while not stop.is_set():
            for mode in (retriever_pb2.SEARCH_MODE_HYBRID, retriever_pb2.SEARCH_MODE_SPARSE):
                found = await caller.search("badgers", collection, mode=mode, top_k=100)
                assert not found.degradations
                documents = {hit.chunk.document.rpartition("/")[2] for hit in found.hits}
                assert {f"page{number}" for number in range(1, PAGES)} <= documents
                count += 1
    return count


async def test_a_collection_is_reindexed_while_it_is_searched_and_changed(mesh: Mesh) -> None:
    """No search fails or misses a page; what is uploaded, replaced and deleted meanwhile is so afterwards."""
    collection = "burrows"
    async with client(mesh) as caller:
        await caller.create_collection(collection)
        pages = (upload(caller, collection, f"page{number}", f"Badgers of den {number}.") for number in range(PAGES))
        await asyncio.gather(*pages)
        before = await caller.get_collection(collection)
        stop = asyncio.Event()
        searching = asyncio.create_task(search_until(mesh, collection, stop))
        jobs = caller.reindex(collection, language="english")
        assert (await anext(jobs)).reindexing.encoder == before.encoder
        await upload(caller, collection, "late", "Badgers that came late.")
        await upload(caller, collection, "page7", "Badgers of den seven moved.")
        await caller.delete_document(f"collections/{collection}/documents/page0")
        ended = [job async for job in jobs][-1]
        stop.set()
        assert await searching > 0
        assert ended.state == jobs_pb2.Job.STATE_SUCCEEDED
        after = await caller.get_collection(collection)
        assert (after.language, after.document_count) == ("english", PAGES)
        assert after.version > before.version
        found = await caller.search("badgers", collection, top_k=100)
        texts = {hit.chunk.document.rpartition("/")[2]: hit.chunk.text for hit in found.hits}
    expected = {f"page{number}": f"Badgers of den {number}." for number in range(1, PAGES)}
    assert texts == expected | {"late": "Badgers that came late.", "page7": "Badgers of den seven moved."}


async def ended(mesh: Mesh, job: str) -> str:
    """The state in which the job ended, read over REST."""
    headers = {"authorization": f"Bearer {mesh.token()}"}
    async with httpx.AsyncClient(base_url=f"http://{mesh.edge}", timeout=30, headers=headers) as web:
        while True:
            state = str((await web.get(f"/v1/{job}")).json()["job"]["state"])
            if state not in ("STATE_PENDING", "STATE_RUNNING"):
                return state
            await asyncio.sleep(0.1)


async def test_a_reindexing_is_started_over_rest(mesh: Mesh) -> None:
    """As a job in JSON; for what is so already it ends at once; another tenant has no such collection."""
    async with client(mesh) as caller:
        await caller.create_collection("setts")
    async with httpx.AsyncClient(base_url=f"http://{mesh.edge}", timeout=30) as web:
        theirs = {"authorization": f"Bearer {mesh.token('other')}"}
        refused = await web.post("/v1/collections/setts:reindex", json={}, headers=theirs)
        assert refused.status_code == 404
        ours = {"authorization": f"Bearer {mesh.token()}"}
        started = await web.post("/v1/collections/setts:reindex", json={"request_id": "r1"}, headers=ours)
        assert started.status_code == 200
        job = started.json()["job"]
    assert job["reindexing"]["language"] == "standard"
    assert await asyncio.wait_for(ended(mesh, job["name"]), 20) == "STATE_SUCCEEDED"


async def test_a_reindexing_outlives_the_index(mesh: Mesh) -> None:
    """The retriever is killed in its middle: the job goes on when it is back, and every page is found once."""
    async with client(mesh) as caller:
        await caller.create_collection("dens")
        pages = (upload(caller, "dens", f"page{number}", f"Badgers of den {number}.") for number in range(PAGES))
        await asyncio.gather(*pages)
        async with aclosing(caller.reindex("dens", language="english")) as jobs:
            async for job in jobs:
                if job.counts.ready >= PAGES // 3:
                    break
        mesh.processes["retriever"].kill()
        assert await asyncio.wait_for(ended(mesh, job.name), 90) == "STATE_SUCCEEDED"
        found = await caller.search("badgers", "dens", top_k=100)
    assert sorted(hit.chunk.text for hit in found.hits) == sorted(
        f"Badgers of den {number}." for number in range(PAGES)
    )
