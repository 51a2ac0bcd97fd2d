"""The `ragmesh` commands about what goes in."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.clients.answering import TOKEN
from tests.clients.small_mesh import SmallMesh
from tests.clients.test_cli import COMMAND, ragmesh


async def test_an_address_is_taken_in_by_a_job(mesh: SmallMesh) -> None:
    """The mesh reads it; its end is told with each failure's reason, and one failure is exit code 1."""
    finished = await ragmesh(
        mesh,
        *("ingest", "s3://team/handbook", "-c", "handbook", "--include", "**/*.pdf", "--delete-missing"),
        *("--strategy", "recursive", "-p", "max_tokens=120"),
    )
    assert finished.code == 1
    lines = finished.out.splitlines()
    assert lines[0] == "jobs/j2 takes in s3://team/handbook"
    assert lines[1] == "jobs/j2 succeeded: 1 ready, 0 unchanged, 1 failed, 2 without text; 7 chunks"
    assert " ".join(lines[-2].split()) == "broken.pdf UNREADABLE_DOCUMENT the PDF is broken"
    (started,) = mesh.jobs.started
    assert (started.source_uri, list(started.include), started.delete_missing) == (
        "s3://team/handbook",
        ["**/*.pdf"],
        True,
    )
    assert started.chunking.parameters["max_tokens"] == 120


async def test_ctrl_c_leaves_a_job_running_and_says_so(mesh: SmallMesh) -> None:
    """Exit code 130, the job's name, and no traceback."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("--target", mesh.address, "--token", TOKEN, "ingest", "s3://[team]/endless"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"jobs/j2 takes in s3://[team]/endless\n"
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert out.startswith(b"jobs/j2 goes on")


async def test_a_job_may_be_left_alone(mesh: SmallMesh) -> None:
    """Without waiting its name is all; `jobs` shows, watches and cancels it."""
    assert (await ragmesh(mesh, "ingest", "s3://team/handbook", "--no-wait")).out == "jobs/j2\n"
    listed = await ragmesh(mesh, "jobs", "list", "--json")
    assert [each["name"] for each in listed.objects] == ["jobs/j2", "jobs/j1"]
    shown = await ragmesh(mesh, "jobs", "show", "j2")
    assert "s3://team/handbook" in shown.out
    assert (await ragmesh(mesh, "jobs", "watch", "j2")).code == 1
    assert (await ragmesh(mesh, "jobs", "cancel", "jobs/j2")).out == "jobs/j2 cancelled\n"
    assert "JOB_NOT_FOUND" in (await ragmesh(mesh, "jobs", "show", "other")).err


async def test_wrong_sources_and_options_are_wrong_usage(mesh: SmallMesh, tmp_path: Path) -> None:
    """An address beside a path, options that would do nothing, an unknown type: exit code 2, and nothing is made."""
    for arguments in (
        ["ingest", "s3://a", str(tmp_path)],
        ["ingest", "s3://a", "--metadata", "team=hr"],
        ["ingest", "s3://a", "--password", "x"],
        ["ingest", str(tmp_path), "--include", "*.md"],
        ["ingest", str(tmp_path), "--delete-missing"],
        ["ingest", str(tmp_path), "-p", "max_tokens"],
        ["search", "x", "--top-k", "0"],
        ["ingest", str(tmp_path), "--metadata", "=x"],
        ["collections", "create", "notes", "--field", "year:date"],
        ["collections", "update", "notes"],
        ["strategies", "recommend", "no/such/file"],
    ):
        assert (await ragmesh(mesh, *arguments)).code == 2, arguments
    assert mesh.collections.names == []


async def test_metadata_goes_with_every_file(mesh: SmallMesh, tmp_path: Path) -> None:
    """Numbers and truths are read as such, other words as text."""
    (tmp_path / "a.md").write_text("a")
    await ragmesh(mesh, "ingest", str(tmp_path), "--metadata", "year=2026", "--metadata", "team=hr")
    (head,) = mesh.documents.heads
    assert dict(head.metadata) == {"year": 2026, "team": "hr"}


async def test_a_collection_that_is_not_there_is_said_once(mesh: SmallMesh, tmp_path: Path) -> None:
    """With --no-create nothing is uploaded."""
    (tmp_path / "a.md").write_text("a")
    finished = await ragmesh(mesh, "ingest", str(tmp_path), "-c", "nowhere", "--no-create")
    assert (finished.code, finished.out) == (1, "")
    assert "COLLECTION_NOT_FOUND" in finished.err
    assert mesh.documents.heads == []


async def test_a_file_that_cannot_be_read_is_told_and_stops_no_other(mesh: SmallMesh, tmp_path: Path) -> None:
    """Its reading fails in the middle of the call; whatever is behind it is still taken in."""
    (tmp_path / "a.md").write_text("a")
    finished = await ragmesh(mesh, "ingest", "/proc/self/mem", str(tmp_path), "--concurrency", "1")
    assert finished.code == 1
    assert finished.out.splitlines()[0] == "1 ready, 0 unchanged, 1 failed"
    assert "/proc/self/mem" in finished.out
    assert "Traceback" not in finished.err


async def test_a_file_without_text_is_no_failure(mesh: SmallMesh, tmp_path: Path) -> None:
    """It is told with its reason, and the exit code is 0: nothing is missing."""
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "empty.md").write_text("\n")
    finished = await ragmesh(mesh, "ingest", str(tmp_path))
    assert finished.code == 0
    assert finished.out.splitlines()[0] == "1 ready, 0 unchanged, 0 failed, 1 without text"
    assert "NO_TEXT" in finished.out


async def test_names_are_shown_whole(mesh: SmallMesh, tmp_path: Path) -> None:
    """A long name goes on in the next line, so that it can be copied."""
    name = "-".join(["a-long-name"] * 8)
    (tmp_path / name).write_bytes(b"\xff")
    finished = await ragmesh(mesh, "ingest", str(tmp_path))
    assert name in "".join(line.split("UNREADABLE")[0].strip() for line in finished.out.splitlines())


async def test_a_collection_is_made_and_changed_as_asked(mesh: SmallMesh) -> None:
    """The options make its settings; an update names only what is given, with the state that it read."""
    made = await ragmesh(
        mesh,
        *("collections", "create", "notes", "--title", "Notes", "--strategy", "recursive", "-p", "max_tokens=99"),
        *("--language", "english", "--field", "year:number", "--field", "team"),
    )
    assert made.out == "made collections/notes\n"
    kept = mesh.collections.made["collections/notes"]
    assert (kept.display_name, kept.language, kept.chunking.parameters["max_tokens"]) == ("Notes", "english", 99)
    assert [(each.field, each.type) for each in kept.filterable_fields] == [("year", 2), ("team", 1)]
    changed = await ragmesh(mesh, "collections", "update", "notes", "--title", "All notes")
    assert changed.out == "changed collections/notes: display_name\n"
    assert mesh.collections.changed[0][1] == ["display_name"]
    assert "english" in (await ragmesh(mesh, "collections", "show", "notes")).out


async def test_a_document_shows_its_history(mesh: SmallMesh) -> None:
    """What came before stands in the record."""
    shown = await ragmesh(mesh, "documents", "show", "collections/handbook/documents/leave")
    assert "markdown-it-py 4" in shown.out
    by_id = await ragmesh(mesh, "documents", "show", "leave", "-c", "handbook")
    assert by_id.out == shown.out


async def test_strategies_are_listed_and_recommended(mesh: SmallMesh, tmp_path: Path) -> None:
    """Parameters stand with their defaults; a recommendation can be pasted into the next command."""
    listed = await ragmesh(mesh, "strategies", "list")
    assert "max_tokens = 180" in listed.out
    page = tmp_path / "page.md"
    page.write_text("# Leave")
    advice = await ragmesh(mesh, "strategies", "recommend", str(page), "--use-case", "facts")
    assert advice.out.splitlines() == ["--strategy recursive -p max_tokens=120", "text/markdown: # Leave, facts"]
