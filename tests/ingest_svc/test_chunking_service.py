"""Strategies as callers see them: listed, recommended, chosen for their documents, and told of."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from ragmesh.ingest.v1 import chunking_pb2, collections_pb2, documents_pb2, jobs_pb2
from tests.ingest_svc.conftest import HANDBOOK, World

PAGE = b"# Harbour\n\nIt opens at six.\n\n## Boats\n\nThey leave at seven.\n"
PROGRAM = b"def area(side: int) -> int:\n    return side * side\n\n\ndef edge(side: int) -> int:\n    return side * 4\n"


async def test_strategies_are_listed_with_their_parameters(world: World) -> None:
    """The default first; each parameter has a description and a default that the server itself takes."""
    listed = await world.alice.chunking.ListChunkingStrategies(chunking_pb2.ListChunkingStrategiesRequest())
    names = ["auto", "recursive", "token", "semantic", "character", "code", "format"]
    assert [each.strategy for each in listed.strategies] == names
    for each in listed.strategies:
        schema = MessageToDict(each.parameters_schema)
        assert each.description
        assert all(parameter.keys() >= {"default", "description"} for parameter in schema["properties"].values())
        given = chunking_pb2.Chunking(strategy=each.strategy)
        given.parameters.update({name: value["default"] for name, value in schema["properties"].items()})
        await world.alice.create_collection(f"by-{each.strategy}", chunking=given)


async def test_a_recommendation_is_one_that_the_server_takes(world: World) -> None:
    """With its reason."""
    faq = chunking_pb2.RecommendChunkingStrategyRequest(media_type="text/markdown", use_case="a support FAQ")
    pdf = chunking_pb2.RecommendChunkingStrategyRequest(media_type="application/pdf")
    for request, most in ((faq, 120), (pdf, 180)):
        answer = await world.alice.chunking.RecommendChunkingStrategy(request)
        assert answer.chunking.parameters["max_tokens"] == most
        assert answer.rationale
        await world.alice.create_collection(f"c{most}", chunking=answer.chunking)


@pytest.mark.parametrize(
    ("content", "uri", "strategy"),
    [(PAGE, "file:///page.md", "format"), (PROGRAM, "file:///area.py", "code"), (b"It opens.", "", "recursive")],
)
async def test_a_document_is_cut_by_what_it_is(world: World, content: bytes, uri: str, strategy: str) -> None:
    """Its record says by which strategy, and why; given again, it is left as it is."""
    await world.alice.create_collection()
    document = await world.alice.create(content, uri=uri)
    assert document.chunking.strategy == strategy
    assert document.chunking_rationale
    again = await world.alice.create(content, uri=uri)
    assert (again.update_time, again.chunking) == (document.update_time, document.chunking)


async def test_a_job_cuts_each_file_by_what_it_is(world: World, tmp_path: Path) -> None:
    """Where it names no strategy, though its collection has one; a second job leaves all files as they are."""
    folder = tmp_path / "source" / "mixed"
    folder.mkdir(parents=True)
    for name, content in {"page.md": PAGE, "area.py": PROGRAM, "note.txt": b"It opens."}.items():
        (folder / name).write_bytes(content)
    await world.alice.create_collection(chunking=chunking_pb2.Chunking(strategy="token"))
    start = jobs_pb2.StartJobRequest(
        collection=HANDBOOK, source_uri=folder.as_uri(), chunking=chunking_pb2.Chunking(strategy="")
    )
    for unchanged in (0, 3):
        job = (await world.alice.jobs.StartJob(start)).job
        watching = world.alice.jobs.WatchJob(jobs_pb2.WatchJobRequest(name=job.name))
        assert [told async for told in watching][-1].job.counts.unchanged == unchanged
    listed = await world.alice.documents.ListDocuments(documents_pb2.ListDocumentsRequest(parent=HANDBOOK))
    chosen = {document.uri.rpartition("/")[2]: document.chunking.strategy for document in listed.documents}
    assert chosen == {"page.md": "format", "area.py": "code", "note.txt": "recursive"}


async def test_the_history_says_how_a_document_was_cut(world: World) -> None:
    """And what was asked for by name has no reason of ours."""
    await world.alice.create_collection()
    await world.alice.create(PAGE, document_id="page", uri="file:///page.md")
    other = await world.alice.create(PAGE, document_id="page", chunking=chunking_pb2.Chunking(strategy="token"))
    assert (other.chunking.strategy, other.chunking_rationale) == ("token", "")
    assert [revision.chunking.strategy for revision in other.history] == ["format"]


async def test_semantic_chunks_cost_a_vector_for_each_sentence(world: World) -> None:
    """They are encoded by the collection's encoder before the chunks are."""
    semantic: dict[str, Any] = {"chunking": chunking_pb2.Chunking(strategy="semantic")}
    await world.alice.create_collection(**semantic)
    sentences = [f"The harbour number {number} opens at six every day." for number in range(40)]
    document = await world.alice.create(" ".join(sentences))
    assert document.chunk_count > 1
    encoded = world.peers.embedder.texts
    assert len(encoded) == len(sentences) + document.chunk_count
    assert encoded[0] == " ".join(sentences[:2])
    assert "".join(chunk.text for chunk in world.peers.index.chunks(document.name)).count("harbour") == len(sentences)


async def test_the_strategy_of_a_collection_can_be_changed(world: World) -> None:
    """The documents that come after it are cut so."""
    await world.alice.create_collection()
    change = collections_pb2.UpdateCollectionRequest(
        collection=collections_pb2.Collection(name=HANDBOOK, chunking=chunking_pb2.Chunking(strategy="character"))
    )
    change.update_mask.paths.append("chunking")
    await world.alice.collections.UpdateCollection(change)
    assert (await world.alice.create("It opens at six.")).chunking.strategy == "character"
