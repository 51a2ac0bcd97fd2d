"""Small services behind the edge, on meshkit's own server: they answer with what reached them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.api import httpbody_pb2
from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict

from meshkit import deadline, identity
from meshkit.errors import InvalidArgument, Unavailable, not_found
from meshkit.server import App, Registration, open_server
from meshkit.settings import ServerSettings
from ragmesh.common.v1 import chunk_pb2
from ragmesh.gateway.v1 import (
    answers_pb2,
    answers_pb2_grpc,
    events_pb2,
    openai_pb2,
    openai_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from ragmesh.ingest.v1 import (
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
)
from ragmesh.retriever.v1 import retriever_pb2, retriever_pb2_grpc

TOKENS = 5
TOKEN_GAP_S = 0.06


@dataclass
class Seen:
    """What reached the services: metadata of the last call, the deadline it had, and how streams ended."""

    metadata: list[tuple[str, str]] = field(default_factory=list)
    remaining_s: float = 0.0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0

    def note(self, context: Any) -> None:
        """Keep what the call brought."""
        self.metadata = list(context.invocation_metadata())
        left = deadline.current()
        self.remaining_s = left.remaining_s() if left else 0.0
        self.calls += 1


def _token(sequence: int, text: str) -> events_pb2.AnswerEvent:
    return events_pb2.AnswerEvent(sequence=sequence, token=events_pb2.TokenDelta(text=text, token_count=1))


class Answers(answers_pb2_grpc.AnswerServiceServicer):
    """Says who asks; `slow` gives a token now and then, `missing` is not there, `away` lacks a peer."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def Ask(self, request: answers_pb2.AskRequest, context: Any) -> AsyncIterator[answers_pb2.AskResponse]:
        """TOKENS tokens, TOKEN_GAP_S apart; for ever when asked `forever`."""
        self._seen.note(context)
        self._refuse(request.question)
        try:
            sequence = 0
            while sequence < TOKENS or request.question == "forever":
                sequence += 1
                yield answers_pb2.AskResponse(event=_token(sequence, f"t{sequence} "))
                await asyncio.sleep(TOKEN_GAP_S)
            if request.question == "broken":
                error = Unavailable("ENGINE_UNAVAILABLE", "the engine died")
                raise error
            who = identity.current()
            text = f"{who.tenant}/{who.subject}/{' '.join(sorted(who.scopes))}"
            final = events_pb2.AnswerEvent(sequence=sequence + 1, final=events_pb2.Answer(text=text))
            yield answers_pb2.AskResponse(event=final)
        except (asyncio.CancelledError, GeneratorExit):
            self._seen.cancelled.set()
            raise

    async def AskOnce(self, request: answers_pb2.AskOnceRequest, context: Any) -> answers_pb2.AskOnceResponse:
        """Echoes the question, and waits for ever when asked `forever`."""
        self._seen.note(context)
        self._refuse(request.ask.question)
        if request.ask.question == "forever":
            await asyncio.Event().wait()
        return answers_pb2.AskOnceResponse(answer=events_pb2.Answer(question=request.ask.question))

    @staticmethod
    def _refuse(question: str) -> None:
        if question == "missing":
            raise not_found("collection", "collections/none", "COLLECTION_NOT_FOUND")
        if question == "away":
            raise Unavailable("PEER_UNAVAILABLE", "a service does not answer", metadata={"peer": "retriever"})


class OpenAI(openai_pb2_grpc.OpenAIServiceServicer):
    """Answers chat completions in both ways, with a body of its own."""

    async def ChatCompletions(
        self, request: httpbody_pb2.HttpBody, context: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """Streams where asked to; an unknown model is refused, and so is a body without messages."""
        body = json.loads(request.data)
        if body["model"] == "none":
            raise not_found("collection", "collections/none", "COLLECTION_NOT_FOUND")
        if not body["messages"]:
            raise InvalidArgument("INVALID_BODY", 'messages: "at least one"', metadata={"param": "messages"})
        if not body.get("stream"):
            yield httpbody_pb2.HttpBody(content_type="application/json", data=_completion("hello"))
            return
        for text in ("hel", "lo"):
            yield httpbody_pb2.HttpBody(content_type="text/event-stream", data=_chunk(text))
            await asyncio.sleep(TOKEN_GAP_S)
        yield httpbody_pb2.HttpBody(content_type="text/event-stream", data=b"data: [DONE]\n\n")

    async def ListModels(self, request: empty_pb2.Empty, context: Any) -> httpbody_pb2.HttpBody:
        """One model."""
        models = {"object": "list", "data": [{"id": "handbook", "object": "model", "created": 0, "owned_by": "us"}]}
        return httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(models).encode())

    async def GetModel(self, request: openai_pb2.GetModelRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Any model."""
        model = {"id": request.model, "object": "model", "created": 0, "owned_by": "us"}
        return httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(model).encode())


def _completion(text: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return json.dumps(whole).encode()


def _chunk(text: str) -> bytes:
    choice = {"index": 0, "finish_reason": None, "delta": {"content": text}}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Sessions(sessions_pb2_grpc.SessionServiceServicer):
    """Echoes the name of what is read."""

    async def GetSession(
        self, request: sessions_pb2.GetSessionRequest, context: Any
    ) -> sessions_pb2.GetSessionResponse:
        """The session asked for."""
        return sessions_pb2.GetSessionResponse(session=sessions_pb2.Session(name=request.name))


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Finds one chunk: the query."""

    async def Search(self, request: retriever_pb2.SearchRequest, context: Any) -> retriever_pb2.SearchResponse:
        """The query as a chunk of the collection."""
        chunk = chunk_pb2.Chunk(name=f"{request.collection}/documents/d/chunks/0", text=request.query)
        return retriever_pb2.SearchResponse(hits=[retriever_pb2.Hit(chunk=chunk, score=1)])


class Collections(collections_pb2_grpc.CollectionServiceServicer):
    """Echoes the collection."""

    async def GetCollection(
        self, request: collections_pb2.GetCollectionRequest, context: Any
    ) -> collections_pb2.GetCollectionResponse:
        """The collection asked for."""
        return collections_pb2.GetCollectionResponse(collection=collections_pb2.Collection(name=request.name))


class Documents(documents_pb2_grpc.DocumentServiceServicer):
    """Counts the bytes of what is uploaded, and echoes the name of what is deleted."""

    async def UploadDocument(
        self, request_iterator: AsyncIterator[documents_pb2.UploadDocumentRequest], context: Any
    ) -> AsyncIterator[documents_pb2.UploadDocumentResponse]:
        """Progress after each message."""
        received = 0
        async for message in request_iterator:
            received += len(message.part.data)
            progress = documents_pb2.DocumentProgress(bytes_received=received)
            yield documents_pb2.UploadDocumentResponse(progress=progress)

    async def CreateDocument(
        self, request: documents_pb2.CreateDocumentRequest, context: Any
    ) -> documents_pb2.CreateDocumentResponse:
        """The size of the document."""
        document = documents_pb2.Document(size_bytes=len(request.data or request.text))
        return documents_pb2.CreateDocumentResponse(document=document)


class Jobs(jobs_pb2_grpc.JobServiceServicer):
    """Says what it was told of objects."""

    async def ReceiveObjectEvents(
        self, request: jobs_pb2.ReceiveObjectEventsRequest, context: Any
    ) -> jobs_pb2.ReceiveObjectEventsResponse:
        """A job whose source is the notification, as JSON."""
        told = json.dumps(MessageToDict(request.notification))
        return jobs_pb2.ReceiveObjectEventsResponse(jobs=[jobs_pb2.Job(collection=request.collection, source_uri=told)])


def _registered(module: Any, stubs: Any, name: str, servicer: object) -> Registration:
    full_name = module.DESCRIPTOR.services_by_name[name].full_name
    return Registration(full_name, getattr(stubs, f"add_{name}Servicer_to_server"), servicer)


def apps(seen: Seen) -> dict[str, App]:
    """The app of each service by its name."""
    return {
        "gateway": App(
            [
                _registered(answers_pb2, answers_pb2_grpc, "AnswerService", Answers(seen)),
                _registered(openai_pb2, openai_pb2_grpc, "OpenAIService", OpenAI()),
                _registered(sessions_pb2, sessions_pb2_grpc, "SessionService", Sessions()),
            ]
        ),
        "retriever": App([_registered(retriever_pb2, retriever_pb2_grpc, "RetrieverService", Retriever())]),
        "ingest": App(
            [
                _registered(collections_pb2, collections_pb2_grpc, "CollectionService", Collections()),
                _registered(documents_pb2, documents_pb2_grpc, "DocumentService", Documents()),
                _registered(jobs_pb2, jobs_pb2_grpc, "JobService", Jobs()),
            ]
        ),
    }


@asynccontextmanager
async def serve(app: App, port: int) -> AsyncIterator[None]:
    """Serve the app on the port."""
    settings = ServerSettings(listen=f"127.0.0.1:{port}", metrics_listen="", drain_grace_s=0.2)
    async with open_server(settings, app):
        yield


class Recorder(grpc.GenericRpcHandler):
    """Takes any call, keeps its method, and refuses it."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """A handler that refuses, for all methods but health's."""
        method = handler_call_details.method or ""
        if method.startswith("/grpc.health."):
            return None
        self.methods.append(method)
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    @staticmethod
    async def _refuse(_requests: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.ABORTED, "recorded")


@asynccontextmanager
async def record(ports: dict[str, int]) -> AsyncIterator[dict[str, Recorder]]:
    """A recorder on each port, by name; each says that it serves."""
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    recorders = {name: Recorder() for name in ports}
    async with AsyncExitStack() as stack:
        for name, port in ports.items():
            server = grpc.aio.server()
            server.add_generic_rpc_handlers((recorders[name],))
            servicer = health.aio.HealthServicer()
            for service in ("AnswerService", "RetrieverService", "DocumentService"):
                for package in ("gateway", "retriever", "ingest"):
                    full_name = f"ragmesh.{package}.v1.{service}"
                    await servicer.set(full_name, health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
            server.add_insecure_port(f"127.0.0.1:{port}")
            await server.start()
            stack.push_async_callback(server.stop, 0)
        yield recorders
