"""Documents over a real channel: taken in, refused, replaced, deleted."""

import asyncio

import grpc
import pytest
import redis

from ragmesh.ingest.v1 import collections_pb2, documents_pb2
from ragmesh.retriever.v1 import index_pb2
from tests.ingest_svc.conftest import HANDBOOK, World
from tests.ingest_svc.failures import failure_of, reason_of
from tests.ingest_svc.test_parsing import pdf
from tests.ingest_svc.uploads import FAILED, PAGE, READY, begin, part, upload


async def test_a_page_becomes_chunks(world: World) -> None:
    """A document is parsed, cut, encoded and indexed, and its chunks carry where they stand."""
    await world.alice.create_collection()
    document = await world.alice.create(PAGE, uri="docs/pods.md", metadata={"team": "core"})
    assert (document.state, document.title, document.media_type) == (READY, "Pod Lifecycle", "text/markdown")
    assert [timing.stage for timing in document.timings.timings] == ["parse", "chunk", "embed", "index"]
    chunks = world.peers.index.chunks(document.name)
    assert len(chunks) == document.chunk_count > 3
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert chunks[0].text == "Pods\n\nA Pod has a phase. Phases are few."
    assert list(chunks[1].heading_path) == ["Pods", "Probes"]
    assert {chunk.metadata["team"] for chunk in chunks} == {"core"}
    assert all(chunk.source.end - chunk.source.start == len(chunk.text.encode()) for chunk in chunks)
    assert all(0 < chunk.token_count <= 180 for chunk in chunks)
    assert {chunk.content_hash for chunk in chunks} == {document.content_hash}
    assert world.peers.embedder.texts[0].startswith("Pod Lifecycle\n")


async def test_declared_front_matter_is_metadata(world: World) -> None:
    """Of a page's front matter, what the collection declares filterable, of its type, is the chunks' metadata."""
    kind = index_pb2.FilterableField
    await world.alice.create_collection(
        filterable_fields=[
            kind(field="weight", type=kind.TYPE_NUMBER),
            kind(field="audience", type=kind.TYPE_STRING_LIST),
            kind(field="title", type=kind.TYPE_BOOL),
        ]
    )
    document = await world.alice.create(PAGE, uri="pods.md")
    metadata = world.peers.index.chunks(document.name)[0].metadata
    assert dict(metadata) == {"weight": 30, "audience": metadata["audience"]}
    assert list(metadata["audience"]) == ["dev", "ops"]
    assert not document.metadata.fields


async def test_the_same_bytes_are_not_indexed_again(world: World) -> None:
    """The same bytes under the same name are answered as unchanged; other metadata or bytes are indexed."""
    await world.alice.create_collection()
    first = await world.alice.create(PAGE, document_id="pods")
    again = await upload(world.alice, begin(document_id="pods"), part(PAGE.encode()))
    assert [progress.unchanged for progress in again] == [False, False, True]
    assert world.peers.index.writes[first.name] == 1
    await world.alice.create(PAGE, document_id="pods", metadata={"team": "core"})
    assert world.peers.index.writes[first.name] == 2
    changed = await world.alice.create("# Other\n\nText.", document_id="pods")
    assert world.peers.index.writes[first.name] == 3
    assert [revision.content_hash for revision in changed.history] == [first.content_hash] * 2
    assert changed.create_time == first.create_time
    assert len(list(world.settings.object_folder.glob("objects/*/*/*/*"))) == 1


async def test_ids_come_from_uri_or_content(world: World) -> None:
    """Without an id the URI's path makes one, readable; without an URI the content does."""
    await world.alice.create_collection()
    named = await world.alice.create("One two.", uri="https://example.com/guide/Über%20uns.md?x=1")
    assert named.name.rpartition("/")[2].startswith("guide-Uber-uns.md-")
    bare = await world.alice.create("One two.")
    assert bare.name.rpartition("/")[2] == bare.content_hash[:32]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "UNSUPPORTED_FORMAT"),
        (b"%PDF-1.7\nnothing of the kind", "UNREADABLE_DOCUMENT"),
        (b"   \n  ", "NO_TEXT"),
    ],
)
async def test_a_bad_document_fails_as_data(world: World, data: bytes, reason: str) -> None:
    """A document that cannot be read ends as failed, with its reason, and the call succeeds."""
    await world.alice.create_collection()
    document = await world.alice.create(data)
    assert document.state == FAILED
    assert reason_of(document.error) == reason
    assert world.peers.index.chunks(document.name) == []


async def test_a_deleted_document_is_gone(world: World) -> None:
    """Deleting takes the chunks, the record and the bytes; deleting again finds nothing."""
    await world.alice.create_collection()
    document = await world.alice.create(PAGE)
    request = documents_pb2.DeleteDocumentRequest(name=document.name)
    assert (await world.alice.documents.DeleteDocument(request)).deleted_chunks == document.chunk_count
    assert world.peers.index.chunks(document.name) == []
    assert list(world.settings.object_folder.glob("objects/acme/handbook/*")) == []
    for call in (world.alice.get(document.name), world.alice.documents.DeleteDocument(request)):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        assert failure_of(failed.value)[:2] == ("NOT_FOUND", "DOCUMENT_NOT_FOUND")


async def test_deleting_stops_the_work(world: World) -> None:
    """A document deleted while it is encoded is not found afterwards, and its watcher is told so."""
    await world.alice.create_collection()
    world.peers.embedder.behaviour.embed_pause_s = 0.3
    waiting = asyncio.create_task(upload(world.alice, begin(document_id="pods"), part(PAGE.encode())))
    name = f"{HANDBOOK}/documents/pods"
    async with asyncio.timeout(10):
        while not world.peers.embedder.texts:
            await asyncio.sleep(0.02)
    await world.alice.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(name=name))
    last = (await waiting)[-1]
    assert (last.state, reason_of(last.error)) == (FAILED, "CANCELLED")
    assert world.peers.index.chunks(name) == []


async def test_documents_are_listed_by_page(world: World) -> None:
    """Pages follow each other by name; a token of another list is refused."""
    await world.alice.create_collection()
    for id in ("b", "a", "c"):
        await world.alice.create(f"Text of {id}.", wait=False, document_id=id)
    request = documents_pb2.ListDocumentsRequest(parent=HANDBOOK, page_size=2)
    page = await world.alice.documents.ListDocuments(request)
    assert [each.name[-1] for each in page.documents] == ["a", "b"]
    request.page_token = page.next_page_token
    rest = await world.alice.documents.ListDocuments(request)
    assert [each.name[-1] for each in rest.documents] == ["c"]
    assert rest.next_page_token == ""
    other = collections_pb2.ListCollectionsRequest(page_token=page.next_page_token)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await world.alice.collections.ListCollections(other)
    assert failure_of(failed.value)[1] == "INVALID_PAGE_TOKEN"


async def test_tenants_do_not_meet(world: World) -> None:
    """Another tenant sees neither collection nor document, and has its own under the same names."""
    await world.alice.create_collection()
    document = await world.alice.create(PAGE, document_id="pods")
    bob = world.others["bob"]
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await bob.get(document.name)
    assert failure_of(failed.value)[1] == "COLLECTION_NOT_FOUND"
    await bob.create_collection()
    theirs = await bob.create("Other text.", document_id="pods")
    assert theirs.name == document.name
    assert len(world.peers.index.chunks(document.name)) == document.chunk_count
    await bob.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(name=document.name))
    assert (await world.alice.get(document.name)).state == READY


async def test_reading_needs_no_scope_but_writing_does(world: World) -> None:
    """A caller without the scope `ingest` may look and may not change."""
    await world.alice.create_collection()
    reader = world.others["reader"]
    found = await reader.collections.GetCollection(collections_pb2.GetCollectionRequest(name=HANDBOOK))
    assert found.collection.name == HANDBOOK
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await reader.create("Text.")
    assert failure_of(failed.value)[:2] == ("PERMISSION_DENIED", "SCOPE_MISSING")


async def test_a_peer_away_is_waited_for(world: World) -> None:
    """While the embedder is away the document waits, and is ready when it is back."""
    await world.alice.create_collection()
    world.peers.embedder.behaviour.away = True
    waiting = asyncio.create_task(world.alice.create(PAGE))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    world.peers.embedder.behaviour.away = False
    async with asyncio.timeout(10):
        assert (await waiting).state == READY


async def test_another_encoder_fails_the_document(world: World) -> None:
    """Vectors of another revision than the collection's never reach its index."""
    await world.alice.create_collection()
    world.peers.embedder.behaviour.revision = "2"
    document = await world.alice.create(PAGE)
    assert (document.state, reason_of(document.error)) == (FAILED, "ENCODER_MISMATCH")
    assert world.peers.index.chunks(document.name) == []


async def test_a_document_given_again_while_it_is_deleted_stays(world: World) -> None:
    """The same bytes given again during a deletion are indexed anew, whatever the deletion takes away."""
    await world.alice.create_collection()
    world.peers.embedder.behaviour.embed_pause_s = 0.2
    first = await world.alice.create(PAGE, document_id="pods", wait=False)
    async with asyncio.timeout(10):
        while not world.peers.embedder.texts:
            await asyncio.sleep(0.02)
    request = documents_pb2.DeleteDocumentRequest(name=first.name)
    deleting = asyncio.ensure_future(world.alice.documents.DeleteDocument(request))
    await asyncio.sleep(0.05)
    again = await world.alice.create(PAGE, document_id="pods")
    await deleting
    assert again.state == READY
    assert len(world.peers.index.chunks(first.name)) == again.chunk_count


async def test_a_password_opens_a_document_and_is_not_kept(world: World) -> None:
    """An encrypted PDF is indexed with its password, of which nothing is left in Redis or in the object store."""
    await world.alice.create_collection()
    document = await world.alice.create(pdf("Secret page.", password="sesame-1"), password="sesame-1")
    assert document.state == READY
    assert "Secret page." in world.peers.index.chunks(document.name)[0].text
    files = [path for path in world.settings.object_folder.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not [path for path in files if b"sesame-1" in path.read_bytes()]
    with redis.Redis(port=world.redis.port) as client:
        kept = client.hvals("ragmesh:acme:ingest:documents:handbook")
    assert b"sesame-1" not in b"".join(kept)
    locked = await world.alice.create(pdf("Secret page.", password="sesame-1"), password="wrong", document_id="x")
    assert (locked.state, reason_of(locked.error)) == (FAILED, "PASSWORD_REQUIRED")
