"""What the mesh keeps of its work, by the Python client: answers, feedback, conversations, documents."""

from __future__ import annotations

import json

import httpx
import pytest
from google.protobuf.json_format import ParseDict

from deploy.local.mesh import Mesh
from ragmesh.gateway.v1 import feedback_pb2
from ragmesh_client import Final, NotFoundError
from tests.mesh.conftest import COLLECTION, client

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]
QUESTION = "How many days of paid leave does an employee have?"


async def test_an_answer_is_kept_and_takes_feedback(mesh: Mesh) -> None:
    """An answer can be read again as it was given, and a thumb on it names it."""
    async with client(mesh) as caller:
        given = await caller.ask_once(QUESTION, COLLECTION)
        kept = await caller.get_answer(given.name)
        feedback = await caller.give_feedback(given.name, up=True, comment="right")
    assert (kept.text, list(kept.citations)) == (given.text, list(given.citations))
    assert feedback.name.startswith(f"{given.name}/feedback/")
    assert (feedback.rating, feedback.comment) == (feedback_pb2.Feedback.RATING_UP, "right")


async def test_an_answer_is_explained_resumed_and_replayed(mesh: Mesh) -> None:
    """By its name: how it came about, its events again to the same end, and the same question asked anew."""
    async with client(mesh) as caller:
        given = await caller.ask_once(QUESTION, COLLECTION)
        explained = await caller.explain_answer(given.name)
        resumed = [event async for event in caller.resume_answer(given.name)]
        replayed = [event async for event in caller.replay_answer(given.name)]
    assert explained.answer.text == given.text
    assert explained.retrieved
    last, anew = resumed[-1], replayed[-1]
    assert isinstance(last, Final)
    assert isinstance(anew, Final)
    assert (last.answer.name, last.answer.text) == (given.name, given.text)
    assert (anew.answer.name != given.name, anew.answer.text) == (True, given.text)


async def test_feedback_leaves_the_edge_a_line_each(mesh: Mesh) -> None:
    """Over REST the export is a JSON object a line, as it is over gRPC, from a time on where one is given."""
    async with client(mesh) as caller:
        given = await caller.ask_once(QUESTION, COLLECTION)
        made = [await caller.give_feedback(given.name, up=up, citations=given.citations) for up in (True, False)]
        exported = [found async for found in caller.export_feedback()]
    bearer = {"authorization": f"Bearer {mesh.token()}"}
    async with httpx.AsyncClient(base_url=f"http://{mesh.edge}/v1", headers=bearer, timeout=30) as http:
        lines = (await http.get("/feedback:export")).text.splitlines()
        late = await http.get("/feedback:export", params={"since": "2100-01-01T00:00:00Z"})
    read = [ParseDict(json.loads(line), feedback_pb2.ExportFeedbackResponse()).feedback for line in lines]
    assert read == exported
    assert read[-2:] == made
    assert (late.status_code, late.text) == (200, "")


async def test_a_conversation_is_kept_until_it_is_deleted(mesh: Mesh) -> None:
    """Two questions of one session are its turns, in order; once deleted it is gone."""
    async with client(mesh) as caller:
        for question in (QUESTION, "May parents take unpaid leave?"):
            await caller.ask_once(question, COLLECTION, session="kept")
        session = await caller.get_session("kept")
        listed = [found.name async for found in caller.list_sessions()]
        await caller.delete_session("kept")
        with pytest.raises(NotFoundError) as gone:
            await caller.get_session("kept")
    assert [turn.question for turn in session.turns] == [QUESTION, "May parents take unpaid leave?"]
    assert session.name in listed
    assert gone.value.reason == "SESSION_NOT_FOUND"


async def test_a_deleted_document_is_not_found_again(mesh: Mesh) -> None:
    """A document can be read by its name, and once deleted neither its record nor its words are found."""
    async with client(mesh) as caller:
        await caller.create_collection("records")
        page = b"# Lantern\n\nThe lantern hangs by the gate.\n"
        steps = [step async for step in caller.upload(page, "records", uri="lantern.md")]
        name = steps[-1].document
        document = await caller.get_document(name)
        deleted = await caller.delete_document(name)
        with pytest.raises(NotFoundError):
            await caller.get_document(name)
        hits = (await caller.search("lantern", "records")).hits
        await caller.delete_collection("records")
    assert (document.title, document.chunk_count) == ("Lantern", deleted)
    assert list(hits) == []
