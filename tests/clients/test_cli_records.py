"""The `ragmesh` commands about what was asked: answers, conversations, feedback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.small_mesh import SmallMesh
from tests.clients.test_cli import ragmesh

CHUNK = "collections/handbook/documents/leave/chunks/3"


async def test_an_answer_is_shown_explained_resumed_and_replayed(mesh: SmallMesh) -> None:
    """By its name or its id: as it was given, how it came about, from an event on, and anew."""
    shown = await ragmesh(mesh, "answers", "show", "a1")
    assert shown.out.splitlines() == ["Thirty days. [1]", "  [1] Leave > Parents > page 2  leave.md", "answers/a1"]
    explained = await ragmesh(mesh, "answers", "explain", "answers/a1")
    assert "prompt  How long?" in explained.out
    resumed = await ragmesh(mesh, "answers", "resume", "a1", "--after", "4", "--json")
    assert [event["sequence"] for event in resumed.objects] == [5, 6]
    replayed = await ragmesh(mesh, "answers", "replay", "a1")
    assert replayed.out.startswith("Thirty days. [1]\n")
    missing = await ragmesh(mesh, "answers", "resume", "a2")
    assert (missing.code, missing.err.splitlines()[0]) == (1, "error ANSWER_NOT_FOUND: no such answer")


async def test_conversations_are_listed_shown_and_deleted(mesh: SmallMesh) -> None:
    """All pages, the turns of one with its answers' names, and none that is not there."""
    assert [each["name"] for each in (await ragmesh(mesh, "sessions", "list", "--json")).objects] == [
        "sessions/s1",
        "sessions/s2",
    ]
    shown = await ragmesh(mesh, "sessions", "show", "s1")
    assert shown.out == "> How long?\nThirty days. [1]\nanswers/a1\n\n"
    assert (await ragmesh(mesh, "sessions", "show", "s3")).code == 1
    assert (await ragmesh(mesh, "sessions", "delete", "s1")).out == "deleted s1\n"
    assert mesh.sessions.deleted == ["sessions/s1"]


async def test_feedback_is_given_listed_and_exported(mesh: SmallMesh, tmp_path: Path) -> None:
    """The export is a queries.jsonl, oldest first, with a qrels.tsv of the corrections where a file is named."""
    await ragmesh(mesh, "feedback", "give", "a1", "--up")
    down = await ragmesh(mesh, "feedback", "give", "answers/a1", "--down", "--comment", "the other", "--cite", CHUNK)
    assert down.out == "thank you: answers/a1/feedback/f1\n"
    listed = (await ragmesh(mesh, "feedback", "list", "--json")).objects
    assert [each.get("comment", "") for each in listed] == ["the other", ""]
    qrels = tmp_path / "qrels.tsv"
    up, corrected = (await ragmesh(mesh, "feedback", "export", "--qrels", str(qrels))).objects
    assert (up["id"], up["text"], up["answers"], up["rating"]) == ("f0", "How long?", ["Thirty days."], "up")
    assert (corrected["answers"], corrected["rating"], corrected["comment"]) == ([], "down", "the other")
    assert corrected["citations"] == [{"chunk": CHUNK, "document": "collections/handbook/documents/leave"}]
    assert qrels.read_text().splitlines()[1:] == ["f1\tcollections/handbook/documents/leave\t1"]
    late = await ragmesh(mesh, "feedback", "export", "--since", "1970-01-01T00:00:01")
    assert [each["id"] for each in late.objects] == ["f1"]


@pytest.mark.parametrize("arguments", [["a1"], ["a1", "--up", "--cite", "page 3"]])
async def test_feedback_that_says_nothing_is_wrong_usage(mesh: SmallMesh, arguments: list[str]) -> None:
    """Neither a thumb, nor words, nor a correction; or a correction that names nothing."""
    assert (await ragmesh(mesh, "feedback", "give", *arguments)).code == 2
    assert not mesh.feedback.given


async def test_a_target_with_a_scheme_is_wrong_usage(mesh: SmallMesh) -> None:
    """A URL is no target, and what would be one is said."""
    finished = await ragmesh(mesh, "status", target=f"http://{mesh.address}")
    assert finished.code == 2
    assert f"must be host:port, {mesh.address}" in " ".join(finished.err.replace("│", " ").split())
