"""Collections over a real channel."""

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from ragmesh.ingest.v1 import chunking_pb2, collections_pb2, documents_pb2
from ragmesh.retriever.v1 import index_pb2, retriever_pb2
from tests.ingest_svc.conftest import HANDBOOK, World
from tests.ingest_svc.failures import failure_of


async def get(world: World, name: str = HANDBOOK) -> Any:
    """A collection as its service shows it."""
    found = await world.alice.collections.GetCollection(collections_pb2.GetCollectionRequest(name=name))
    return found.collection


async def update(world: World, *paths: str, **settings: Any) -> Any:
    """Change the settings that the paths name."""
    collection = collections_pb2.Collection(**{"name": HANDBOOK} | settings)
    request = collections_pb2.UpdateCollectionRequest(collection=collection, update_mask=FieldMask(paths=paths))
    return (await world.alice.collections.UpdateCollection(request)).collection


async def test_a_collection_has_an_index_and_all_its_settings(world: World) -> None:
    """A new collection gets defaults filled in, an index of its encoder, and counts from that index."""
    fusion = retriever_pb2.Fusion(weighted=retriever_pb2.Fusion.Weighted(dense=0.5))
    made = await world.alice.create_collection(display_name="Handbook", fusion=fusion, language="english")
    assert (made.name, made.encoder, made.etag) == (HANDBOOK, "words@1", "1")
    assert made.chunking.strategy == "auto"
    assert made.chunking.parameters["use_case"] == ""
    spec = world.peers.index.held["acme", HANDBOOK].spec
    assert (spec.encoder, spec.dimension, spec.language) == ("words@1", 8, "english")
    assert spec.fusion == fusion
    document = await world.alice.create("Some text.")
    found = await get(world)
    assert (found.document_count, found.chunk_count, found.version) == (1, document.chunk_count, 1)


async def test_creating_again_is_refused_unless_it_is_the_same_request(world: World) -> None:
    """A name is given once; the same request_id is answered alike, and refused for another request."""
    collection = collections_pb2.Collection(display_name="Handbook")
    request = collections_pb2.CreateCollectionRequest(collection_id="handbook", collection=collection, request_id="r1")
    create = world.alice.collections.CreateCollection
    assert await create(request) == await create(request)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await world.alice.create_collection()
    assert failure_of(failed.value)[:2] == ("ALREADY_EXISTS", "COLLECTION_EXISTS")
    request.collection.display_name = "Other"
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await create(request)
    assert failure_of(failed.value)[1] == "REQUEST_ID_REUSED"


KIND = index_pb2.FilterableField
BAD_SETTINGS = [
    ({"encoder": "none"}, "MODEL_NOT_FOUND"),
    ({"encoder": "words@9"}, "MODEL_NOT_FOUND"),
    ({"language": "klingon"}, "INVALID_FIELD"),
    ({"chunking": chunking_pb2.Chunking(strategy="agentic")}, "STRATEGY_NOT_FOUND"),
    (
        {"filterable_fields": [KIND(field="a", type=KIND.TYPE_STRING), KIND(field="a", type=KIND.TYPE_BOOL)]},
        "INVALID_FIELD",
    ),
    ({"filterable_fields": [KIND(field="a")]}, "INVALID_FIELD"),
]


@pytest.mark.parametrize(("settings", "reason"), BAD_SETTINGS)
async def test_bad_settings_are_refused(world: World, settings: dict[str, Any], reason: str) -> None:
    """A setting that is none is refused with its reason, and no collection is made."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await world.alice.create_collection(**settings)
    assert failure_of(failed.value)[1] == reason
    listed = await world.alice.collections.ListCollections(collections_pb2.ListCollectionsRequest())
    assert not listed.collections


async def test_a_field_without_a_type_is_told_what_it_may_be(world: World) -> None:
    """In the words of the contract."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await world.alice.create_collection(filterable_fields=[KIND(field="year")])
    assert failure_of(failed.value)[2] == ["collection.filterable_fields[0].type"]
    assert "must be TYPE_STRING, TYPE_NUMBER, TYPE_BOOL or TYPE_STRING_LIST" in str(failed.value.details())


async def test_updates_change_what_they_name(world: World) -> None:
    """Only the settings in the mask change, and the etag with them; an old etag is refused."""
    await world.alice.create_collection(display_name="Handbook", description="Old.")
    changed = await update(world, "description", description="New.", display_name="Ignored", etag="1")
    assert (changed.display_name, changed.description, changed.etag) == ("Handbook", "New.", "2")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await update(world, "description", description="Late.", etag="1")
    assert failure_of(failed.value)[:2] == ("ABORTED", "ETAG_MISMATCH")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await update(world, "document_count")
    assert failure_of(failed.value)[1:] == ("INVALID_FIELD", ["update_mask"])


async def test_the_language_is_fixed_once_there_are_documents(world: World) -> None:
    """A collection with documents refuses another language; an empty one takes it to its index."""
    await world.alice.create_collection()
    await update(world, "language", language="chinese")
    assert world.peers.index.held["acme", HANDBOOK].spec.language == "chinese"
    await world.alice.create("Text.")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await update(world, "language", language="english")
    assert failure_of(failed.value)[:2] == ("FAILED_PRECONDITION", "ENCODER_MISMATCH")


async def test_deleting_needs_force_where_there_are_documents(world: World) -> None:
    """With force the collection goes with its index, documents and bytes."""
    await world.alice.create_collection()
    document = await world.alice.create("Text.")
    request = collections_pb2.DeleteCollectionRequest(name=HANDBOOK)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await world.alice.collections.DeleteCollection(request)
    assert failure_of(failed.value)[:2] == ("FAILED_PRECONDITION", "COLLECTION_NOT_EMPTY")
    request.force = True
    await world.alice.collections.DeleteCollection(request)
    assert world.peers.index.held == {}
    assert list((world.settings.object_folder / "objects" / "acme").iterdir()) == []
    for call in (get(world), world.alice.get(document.name), world.alice.create("Text.")):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        assert failure_of(failed.value)[:2] == ("NOT_FOUND", "COLLECTION_NOT_FOUND")
    await world.alice.create_collection()
    listed = await world.alice.documents.ListDocuments(documents_pb2.ListDocumentsRequest(parent=HANDBOOK))
    assert not listed.documents


async def test_collections_are_listed_by_page(world: World) -> None:
    """The tenant's own collections, by name."""
    for id in ("b", "a", "c"):
        await world.alice.create_collection(id)
    await world.others["bob"].create_collection("d")
    request = collections_pb2.ListCollectionsRequest(page_size=2)
    page = await world.alice.collections.ListCollections(request)
    request.page_token = page.next_page_token
    rest = await world.alice.collections.ListCollections(request)
    names = [each.name for each in (*page.collections, *rest.collections)]
    assert names == ["collections/a", "collections/b", "collections/c"]


async def test_an_index_away_is_said_so(world: World) -> None:
    """A collection whose counts cannot be had is not shown with wrong ones."""
    await world.alice.create_collection()
    world.peers.index.behaviour.away = True
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await get(world)
    assert failure_of(failed.value)[:2] == ("UNAVAILABLE", "INDEX_UNAVAILABLE")
