"""The `ragmesh` command as a user runs it: in a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.clients.answering import TOKEN
from tests.clients.small_mesh import SmallMesh

COMMAND = (sys.executable, "-c", "from ragmesh_client.cli import main; main()")


@dataclass
class Finished:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, object]]:
        """The JSON objects printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


async def ragmesh(mesh: SmallMesh, *arguments: str, target: str = "", token: str = TOKEN) -> Finished:
    """Runs the command against a mesh to its end."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--target",
        target or mesh.address,
        "--token",
        token,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return Finished(process.returncode or 0, out.decode(), err.decode())


async def test_ask_prints_the_answer_and_its_sources(mesh: SmallMesh) -> None:
    """The text comes first, then each source once with its place; nothing is coloured in a pipe."""
    finished = await ragmesh(mesh, "ask", "How long?", "-c", "handbook")
    assert finished.code == 0
    assert finished.out.startswith("Thirty days. [1]\n")
    assert "[1] Leave > Parents > page 2  leave.md" in finished.out
    assert "\x1b" not in finished.out


async def test_ask_as_json_prints_one_event_a_line(mesh: SmallMesh) -> None:
    """Every event is one JSON object with the contract's field names."""
    finished = await ragmesh(mesh, "ask", "How long?", "-c", "handbook", "--json")
    assert [event["sequence"] for event in finished.objects] == [1, 2, 3, 4, 5, 6]
    assert finished.objects[-1]["final"]["text"] == "Thirty days. [1]"  # type: ignore[index]


async def test_abstention_is_said_plainly(mesh: SmallMesh) -> None:
    """An answer that was not given says why, what was left out, and by which name it is explained."""
    finished = await ragmesh(mesh, "ask", "abstain please", "-c", "handbook")
    assert finished.out.splitlines() == [
        "No answer: nothing in the collection speaks of this.",
        "answers/a1",
        "without rerank: DEADLINE_EXCEEDED",
    ]


async def test_an_answer_that_was_broken_off_says_so(mesh: SmallMesh) -> None:
    """Text that ends too early is not taken for the whole of an answer."""
    shown = await ragmesh(mesh, "ask", "short please", "-c", "handbook")
    assert shown.out.startswith("Thirty days. [1]\nCut short: the tokens or the time allowed did not suffice.\n")


async def test_an_error_in_mid_answer_has_a_line_of_its_own(mesh: SmallMesh) -> None:
    """What was said ends its line; a mesh that says what failed is not taken for one that is away."""
    failed = await ragmesh(mesh, "ask", "fail please", "-c", "handbook")
    assert (failed.code, failed.out, failed.err) == (1, "Thirty \n", "error ENGINE_UNAVAILABLE: the engine died\n")


async def test_an_error_is_one_line_with_its_reason_and_a_hint(mesh: SmallMesh) -> None:
    """A failing command exits with 1 and says what, why and what to do, without a traceback."""
    missing = await ragmesh(mesh, "ask", "How long?", "-c", "nowhere")
    assert missing.code == 1
    assert missing.err.splitlines()[0] == "error COLLECTION_NOT_FOUND: no collection collections/nowhere"
    forged = await ragmesh(mesh, "status", token="forged")
    assert forged.code == 1
    assert "RAGMESH_TOKEN" in forged.err
    away = await ragmesh(mesh, "status", target="127.0.0.1:9")
    assert away.code == 1
    assert "Is the mesh up?" in away.err
    assert "Traceback" not in missing.err + forged.err + away.err


async def test_wrong_usage_exits_with_two(mesh: SmallMesh) -> None:
    """A missing argument, an unknown option and a file that is not there are wrong usage."""
    for arguments in (
        ["ask"],
        ["ask", "x", "--nonsense"],
        ["ingest", "no/such/file"],
        ["search", "x", "--mode", "odd"],
    ):
        assert (await ragmesh(mesh, *arguments)).code == 2, arguments


async def test_ctrl_c_leaves_an_answer_cleanly(mesh: SmallMesh) -> None:
    """SIGINT cancels the answer in the mesh and exits with 130 and no traceback."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("--target", mesh.address, "--token", TOKEN, "ask", "slow please", "-c", "handbook"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.read(6) == b"Thirty"
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        await mesh.answers.left.wait()
    assert process.returncode == 130
    assert b"Traceback" not in err


async def test_ingest_makes_the_collection_and_sums_up(mesh: SmallMesh, tmp_path: Path) -> None:
    """The first run is ready, the second unchanged, and a bad file makes exit code 1 with its reason."""
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "b.md").write_text("b")
    first = await ragmesh(mesh, "ingest", str(tmp_path), "-c", "handbook")
    again = await ragmesh(mesh, "ingest", str(tmp_path), "-c", "handbook")
    assert mesh.collections.names == ["collections/handbook"]
    assert (first.code, first.out) == (0, "2 ready, 0 unchanged, 0 failed\n")
    assert (again.code, again.out) == (0, "0 ready, 2 unchanged, 0 failed\n")
    (tmp_path / "c.txt").write_bytes(b"\xff\xff")
    bad = await ragmesh(mesh, "ingest", str(tmp_path), "-c", "handbook")
    assert bad.code == 1
    assert "1 failed" in bad.out
    assert "UNREADABLE_DOCUMENT" in bad.out
    lines = (await ragmesh(mesh, "ingest", str(tmp_path), "-c", "handbook", "--json")).objects
    assert {str(line["path"]).rsplit("/", 1)[1] for line in lines} == {"a.md", "b.md", "c.txt"}


async def test_status_tells_who_does_not_serve(mesh: SmallMesh) -> None:
    """All serving exits with 0; a server that does not serve is shown and exits with 1."""
    well = await ragmesh(mesh, "status")
    mesh.mesh.broken = True
    ill = await ragmesh(mesh, "status")
    assert (well.code, ill.code) == (0, 1)
    assert "not serving" not in well.out
    assert "not serving" in ill.out
    assert [server["name"] for server in (await ragmesh(mesh, "status", "--json")).objects] == [
        "gateway",
        "generator_svc",
    ]


async def test_search_models_and_collections_print(mesh: SmallMesh) -> None:
    """The other readers print a table, or objects with --json."""
    search = await ragmesh(mesh, "search", "leave", "-c", "handbook")
    assert "1. Leave" in search.out
    assert "Thirty days." in search.out
    assert (await ragmesh(mesh, "models", "--json")).objects[0]["kind"] == "ENGINE_KIND_EXTRACTIVE"
    assert (await ragmesh(mesh, "collections", "create", "notes")).out == "made collections/notes\n"
    assert (await ragmesh(mesh, "collections", "list", "--json")).objects == [{"name": "collections/notes"}]


async def test_reindexing_tells_how_it_ends(mesh: SmallMesh) -> None:
    """The job's end with its encoder; a failure names its documents and ends with code 1."""
    finished = await ragmesh(mesh, "collections", "reindex", "handbook")
    assert (finished.code, finished.out) == (0, "jobs/j1 succeeded: 2 documents with default@1\n")
    failed = await ragmesh(mesh, "collections", "reindex", "handbook", "--encoder", "broken")
    assert failed.code == 1
    assert failed.out.splitlines()[1] == "collections/handbook/documents/one: the document's bytes are gone"
    started = await ragmesh(mesh, "collections", "reindex", "handbook", "--no-wait", "--json")
    assert [each["state"] for each in started.objects] == ["STATE_PENDING"]
