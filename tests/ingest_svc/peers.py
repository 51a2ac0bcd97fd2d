"""An embedder and an index for tests: small, real, in memory, served over a loopback channel."""

import asyncio
import hashlib
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from meshkit.errors import FailedPrecondition, Internal, Unavailable, not_found
from meshkit.identity import current, require_scope
from meshkit.server import App, Registration
from meshkit.settings import ServerSettings
from meshkit.testing import serve
from ragmesh.common.v1 import vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc
from tests.ingest_svc.words import token_ends

DIMENSION = 8


@dataclass
class Behaviour:
    """How the doubles behave now; tests change it."""

    away: bool = False
    # Closed, nothing is encoded.
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    embed_pause_s: float = 0.0
    revision: str = "1"
    others: tuple[str, ...] = ()
    dies_switching: bool = False
    faults: int = 0


class Embedder(embedder_pb2_grpc.EmbedderServiceServicer):
    """Hashes words into vectors; its tokens are words and CJK characters."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.behaviour.gate.set()
        self.texts: list[str] = []

    async def GetInfo(self, request: Any, context: Any) -> Any:
        self._check_model(request.model)
        info = embedder_pb2.EncoderInfo(
            model=request.model or "words",
            revision=self.behaviour.revision,
            kind=embedder_pb2.EncoderInfo.KIND_ENCODER,
            dimension=DIMENSION,
            max_tokens=256,
        )
        return embedder_pb2.GetInfoResponse(models=[info])

    async def Tokenize(self, request: Any, context: Any) -> Any:
        self._check()
        ends = [embedder_pb2.TokenEnds(ends=token_ends(text)) for text in request.texts]
        return embedder_pb2.TokenizeResponse(texts=ends)

    async def EmbedStream(self, requests: Any, context: Any) -> Any:
        async for request in requests:
            self._check()
            self._check_model(request.batch.model)
            await self.behaviour.gate.wait()
            await asyncio.sleep(self.behaviour.embed_pause_s)
            self.texts.extend(request.batch.texts)
            packed = vector_pb2.PackedVectors(
                data=b"".join(map(vector, request.batch.texts)),
                dtype=vector_pb2.DATA_TYPE_FLOAT32,
                dimension=DIMENSION,
                count=len(request.batch.texts),
            )
            name = f"{request.batch.model or 'words'}@{self.behaviour.revision}"
            answer = embedder_pb2.EmbedResponse(vectors=packed, model=name)
            yield embedder_pb2.EmbedStreamResponse(batch=answer)

    def _check(self) -> None:
        if self.behaviour.away:
            raise Unavailable("PEER_UNAVAILABLE", "away for the test")

    def _check_model(self, model: str) -> None:
        if model not in ("", "words", *self.behaviour.others):
            raise not_found("model", model, "MODEL_NOT_FOUND")


def vector(text: str) -> bytes:
    """A hashed vector of the text, packed."""
    digest = hashlib.sha256(text.encode()).digest()[:DIMENSION]
    return struct.pack(f"<{DIMENSION}f", *(byte / 255 for byte in digest))


@dataclass
class Held:
    """What the index holds of a tenant's collection: its settings, the chunks of each document, who has no vectors."""

    spec: Any
    documents: dict[str, list[Any]] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    version: int = 0


class Index(index_pb2_grpc.IndexServiceServicer):
    """Keeps chunks by tenant and document, and counts how often each document was written with its vectors."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.held: dict[tuple[str, str], Held] = {}
        self.writes: defaultdict[str, int] = defaultdict(int)

    def chunks(self, document: str, tenant: str = "acme") -> list[Any]:
        """The chunks of a document; none where it is not there."""
        held = self.held.get((tenant, "/".join(document.split("/")[:2])))
        return held.documents.get(document, []) if held else []

    async def PutIndex(self, request: Any, context: Any) -> Any:
        require_scope("ingest")
        held = self.held.setdefault((current().tenant, request.spec.collection), Held(request.spec))
        held.spec = request.spec
        return index_pb2.PutIndexResponse(index=_info(held))

    async def GetIndex(self, request: Any, context: Any) -> Any:
        require_scope("ingest")
        return index_pb2.GetIndexResponse(index=_info(self._held(request.collection)))

    async def DeleteIndex(self, request: Any, context: Any) -> Any:
        self.held.pop((current().tenant, request.collection), None)
        return index_pb2.DeleteIndexResponse()

    async def UpsertDocument(self, requests: Any, context: Any) -> Any:
        require_scope("ingest")
        document, encoder, chunks, held, encoded = "", "", [], Held(None), True
        async for request in requests:
            if request.HasField("head"):
                document = request.head.document
                held = self._held("/".join(document.split("/")[:2]))
                encoder = request.head.encoder
                continue
            encoded = request.part.HasField("vectors")
            if encoded and request.part.vectors.dimension != held.spec.dimension:
                raise FailedPrecondition("ENCODER_MISMATCH", "another dimension")
            assert not encoded or request.part.vectors.count == len(request.part.chunks)
            chunks.extend(request.part.chunks)
        if self.behaviour.faults:
            self.behaviour.faults -= 1
            raise Internal("INTERNAL_ERROR", "died in mid-stream")
        if not chunks:
            # Cut off by the caller's death, which changes nothing.
            return index_pb2.UpsertDocumentResponse()
        # As it is now: a switch may have come between.
        held = self._held("/".join(document.split("/")[:2]))
        if encoder != held.spec.encoder:
            raise FailedPrecondition("ENCODER_MISMATCH", "another encoder")
        held.documents[document] = chunks
        held.version += 1
        if encoded:
            held.pending.discard(document)
            self.writes[document] += 1
        else:
            held.pending.add(document)
        return index_pb2.UpsertDocumentResponse(written_chunks=len(chunks), collection_version=held.version)

    async def DeleteChunks(self, request: Any, context: Any) -> Any:
        held = self._held(request.collection)
        deleted = len(held.documents.pop(request.document, []))
        held.version += 1
        return index_pb2.DeleteChunksResponse(deleted_chunks=deleted, collection_version=held.version)

    async def SwitchIndex(self, request: Any, context: Any) -> Any:
        require_scope("ingest")
        old, new = self._held(request.collection), self._held(request.target)
        tenant, prefix = current().tenant, f"{request.target}/"
        documents = {
            f"{request.collection}/{name.removeprefix(prefix)}": chunks for name, chunks in new.documents.items()
        }
        version = max(old.version, new.version) + 1
        pending = {f"{request.collection}/{name.removeprefix(prefix)}" for name in new.pending}
        self.held[tenant, request.collection] = Held(new.spec, documents, pending, version)
        del self.held[tenant, request.target]
        if self.behaviour.dies_switching:
            self.behaviour.dies_switching = False
            raise Unavailable("INDEX_UNAVAILABLE", "switched, and died before it said so")
        return index_pb2.SwitchIndexResponse(index=_info(self.held[tenant, request.collection]))

    def _held(self, collection: str) -> Held:
        if self.behaviour.away:
            raise Unavailable("INDEX_UNAVAILABLE", "away for the test")
        held = self.held.get((current().tenant, collection))
        if held is None:
            raise not_found("collection", collection, "COLLECTION_NOT_FOUND")
        return held


def _info(held: Held) -> Any:
    spec = index_pb2.IndexSpec()
    spec.CopyFrom(held.spec)
    spec.language = spec.language or "standard"
    return index_pb2.IndexInfo(
        spec=spec,
        chunk_count=sum(map(len, held.documents.values())),
        document_count=len(held.documents),
        version=held.version,
    )


@dataclass
class Peers:
    """The doubles and where they are served."""

    embedder: Embedder
    index: Index
    embedder_target: str
    retriever_target: str


@asynccontextmanager
async def open_peers() -> AsyncIterator[Peers]:
    """An embedder and an index, each on its own port."""
    embedder, index = Embedder(Behaviour()), Index(Behaviour())
    encoding = Registration(
        "ragmesh.embedder.v1.EmbedderService",
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server,
        embedder,
    )
    indexing = Registration(
        "ragmesh.retriever.v1.IndexService", index_pb2_grpc.add_IndexServiceServicer_to_server, index
    )
    settings = ServerSettings(metrics_listen="", drain_grace_s=0.1)
    async with serve(App([encoding]), settings) as encoder_at, serve(App([indexing]), settings) as index_at:
        yield Peers(embedder, index, encoder_at, index_at)
