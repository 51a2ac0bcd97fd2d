"""One embedder with two encoders: each collection is searched by its own."""

import json
from collections.abc import Sequence
from pathlib import Path

from embedder_svc.app import open_app
from embedder_svc.settings import Settings
from meshkit.identity import Identity
from meshkit.testing import connect, serve
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from ragmesh.retriever.v1 import index_pb2
from tests.embedder_svc.tiny_models import random_encoder
from tests.retriever_svc.serving import Caller, calling, head, part, serve_retriever

TEXTS = ["cats sleep all day", "dogs bark at night", "the harbour opens at six"]
WIDTHS = {"wide": 32, "narrow": 24}


def two_encoders(folder: Path) -> Settings:
    """An embedder of two random models, by the names of their widths."""
    folders = {"wide": random_encoder(folder / "wide"), "narrow": random_encoder(folder / "narrow", dense=24)}
    models = [{"model": str(path), "name": name} for name, path in folders.items()]
    # On torch, so that neither is converted first.
    given = {"device": "cpu", "backend": "torch", "models": models}
    return Settings.model_validate_json(json.dumps(given))


async def fill(caller: Caller, collection: str, encoded: embedder_pb2.EmbedResponse) -> None:
    """A collection of the encoder, with the texts as one document."""
    await caller.put(collection, encoder=encoded.model, dimension=encoded.vectors.dimension)
    messages: list[index_pb2.UpsertDocumentRequest] = [head("texts", collection)]
    width = len(encoded.vectors.data) // len(TEXTS)
    for place, text in enumerate(TEXTS):
        message = part(text, place)
        vectors = message.part.vectors
        vectors.CopyFrom(encoded.vectors)
        vectors.data, vectors.count = encoded.vectors.data[place * width : (place + 1) * width], 1
        messages.append(message)
    await caller.index.UpsertDocument(iter(messages))


async def best(caller: Caller, collection: str, queries: Sequence[str]) -> list[tuple[str, bool]]:
    """The first hit of each query by dense search, and whether it is as near as a text is to itself."""
    found = [await caller.search(query, collection, mode="SEARCH_MODE_DENSE", top_k=1) for query in queries]
    return [(answer.hits[0].chunk.text, answer.hits[0].score > 0.99) for answer in found]


async def test_each_collection_is_searched_by_its_own_encoder(tmp_path: Path) -> None:
    """Collections of two encoders, of other weights and dimensions, behind one embedder."""
    async with open_app(two_encoders(tmp_path)) as app, serve(app) as address:
        async with connect(address, Identity("acme", "alice")) as channel:
            stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
            encoded = {name: await stub.Embed(embedder_pb2.EmbedRequest(texts=TEXTS, model=name)) for name in WIDTHS}
        assert {name: answer.vectors.dimension for name, answer in encoded.items()} == WIDTHS
        async with serve_retriever(tmp_path / "index", address) as retriever, calling(retriever) as caller:
            for name, answer in encoded.items():
                await fill(caller, name, answer)
            for name in WIDTHS:
                assert await best(caller, name, TEXTS) == [(text, True) for text in TEXTS]
