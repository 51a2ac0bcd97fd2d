"""kill -9 of each process while people ask and documents come in: clear ends, unaided recovery, nothing lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy.local.mesh import Mesh
from ragmesh.ingest.v1 import documents_pb2
from ragmesh.retriever.v1 import retriever_pb2
from ragmesh_client import Client, Final, RagmeshError, Token, UnavailableError
from tests.mesh.conftest import COLLECTION, PAGES, client

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]
QUESTION = "How many days of paid leave does an employee have?"
PROCESSES = ["redis", "embedder", "generator", "retriever", "ingest", "gateway", "envoy"]
MOST_S = 10.0
RECOVERY_S = 60.0


async def ask_until(mesh: Mesh, stop: asyncio.Event, ends: Counter[str]) -> None:
    """Ask again and again, and count how the answers ended; each ends in time."""
    async with client(mesh, timeout_s=MOST_S) as caller:
        while not stop.is_set():
            async with asyncio.timeout(MOST_S + 1):
                try:
                    async for event in caller.ask(QUESTION, COLLECTION, timeout_s=MOST_S):
                        if isinstance(event, Final):
                            ends["final"] += 1
                except RagmeshError as error:
                    ends[f"{type(error).__name__} {error.reason}"] += 1
                    await asyncio.sleep(0.02)


async def until_well(mesh: Mesh) -> float:
    """Seconds until a question is answered and a search made in full, and documents can be listed."""
    began = time.perf_counter()
    while True:
        try:
            async with client(mesh, timeout_s=5) as caller:
                answer = await caller.ask_once(QUESTION, COLLECTION)
                found = await caller.search(QUESTION, COLLECTION)
                listed = [document async for document in caller.list_documents(COLLECTION)]
                left_out = [*answer.degradations, *found.degradations]
                if answer.citations and found.hits and not left_out and len(listed) >= len(PAGES):
                    return time.perf_counter() - began
        except RagmeshError:
            await asyncio.sleep(0.1)
        assert time.perf_counter() - began < RECOVERY_S


@pytest.mark.parametrize("name", PROCESSES)
async def test_killing_a_process_while_people_ask(mesh: Mesh, name: str) -> None:
    """Every answer ends in `final` or in UNAVAILABLE with a reason, within its deadline; the mesh heals unaided."""
    ends: Counter[str] = Counter()
    stop = asyncio.Event()
    askers = [asyncio.create_task(ask_until(mesh, stop, ends)) for _ in range(3)]
    try:
        await asyncio.sleep(0.5)
        mesh.processes[name].kill()
        await asyncio.sleep(1.0)
        healed_s = await until_well(mesh)
    finally:
        stop.set()
        await asyncio.gather(*askers)
    print(f"\n{name} killed: {dict(ends)}, whole again after {healed_s:.1f} s")
    assert ends["final"] > 0
    failures = {end for end in ends if end != "final"}
    assert all(end.startswith("UnavailableError ") and not end.endswith(" ") for end in failures), failures
    async with client(mesh) as caller:
        titles = {hit.chunk.title for query in ("leave", "train", "badge") for hit in await _hits(caller, query)}
    assert titles == {"Leave", "Travel", "Security"}


async def test_killing_the_engine_in_mid_answer(llm_mesh: Mesh) -> None:
    """An answer whose engine dies under it ends at once in UNAVAILABLE with a reason, and its beginning is kept."""
    async with client(llm_mesh, timeout_s=30) as caller:
        session, began = "killed", 0.0
        with pytest.raises(UnavailableError) as raised:
            async for event in caller.ask("What is said of leave?", COLLECTION, session=session):
                if isinstance(event, Token) and not began:
                    llm_mesh.processes["generator"].kill()
                    began = time.perf_counter()
        ended_s = time.perf_counter() - began
        print(f"\nengine killed: {raised.value.reason} after {ended_s:.2f} s")
        assert raised.value.reason in {"PEER_UNAVAILABLE", "ENGINE_UNAVAILABLE"}
        assert ended_s < 2
        kept = await caller.get_session(session)
        await llm_mesh.processes["generator"].serving()
    assert [turn.question for turn in kept.turns] == ["What is said of leave?"]
    assert kept.turns[0].text


async def test_no_stored_document_is_lost(mesh: Mesh, tmp_path: Path) -> None:
    """What was acknowledged as stored is found in the end, though ingest, retriever, embedder and Redis are killed."""
    stored: set[str] = set()
    for number in range(12):
        (tmp_path / f"note-{number:02}.md").write_text(f"# Note {number}\n\nThe colour of box {number} is teal.\n")

    async def upload(path: Path) -> None:
        try:
            async with client(mesh) as caller:
                async for step in caller.upload(path, "notes", document_id=path.stem):
                    if step.state >= documents_pb2.Document.STATE_STORED:
                        stored.add(path.stem)
        except UnavailableError:
            return

    async with client(mesh) as caller:
        await caller.create_collection("notes")
    uploads = [asyncio.create_task(upload(path)) for path in sorted(tmp_path.iterdir())]
    for name in ("ingest", "embedder", "retriever", "redis"):
        await asyncio.sleep(0.4)
        mesh.processes[name].kill()
    await asyncio.gather(*uploads)
    await until_well(mesh)
    assert stored
    async with asyncio.timeout(RECOVERY_S):
        while not stored <= await _ready(mesh, "notes"):
            await asyncio.sleep(0.5)
    async with client(mesh) as caller:
        response = await caller.search("the colour of the box", "notes", top_k=100)
    found = Counter(hit.chunk.document.rsplit("/", 1)[1] for hit in response.hits)
    print(f"\n{len(stored)} of 12 were acknowledged as stored; {len(found)} documents are found")
    assert stored <= set(found)
    assert set(found.values()) == {1}


async def _ready(mesh: Mesh, collection: str) -> set[str]:
    async with client(mesh) as caller:
        documents = [document async for document in caller.list_documents(collection)]
    ready = documents_pb2.Document.STATE_READY
    return {document.name.rsplit("/", 1)[1] for document in documents if document.state == ready}


async def _hits(caller: Client, query: str) -> Sequence[retriever_pb2.Hit]:
    return (await caller.search(query, COLLECTION)).hits
