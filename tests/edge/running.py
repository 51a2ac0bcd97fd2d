"""Envoy with the project's configuration, and callers for each of its surfaces."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from deploy.local import envoy, services
from deploy.local.keys import Keys, open_keys
from deploy.local.settings import LocalSettings, Ports
from deploy.local.supervisor import Process, keep_running
from ragmesh.gateway.v1 import answers_pb2, answers_pb2_grpc
from tests.edge import doubles, grpc_web
from tests.edge.doubles import Seen

ASK = answers_pb2.AskRequest(question="who am I?", collection="collections/handbook")
ASK_PATH = "/ragmesh.gateway.v1.AnswerService/Ask"
SURFACES = ("rest", "sse", "openai", "grpc", "grpc-web")


@dataclass(frozen=True)
class Refusal:
    """A failure as one surface tells it. `code` is gRPC's, 0 where the surface has none."""

    http_status: int
    code: int
    reason: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Edge:
    """The edge, what it passed on, and how to call it."""

    address: str
    envoy: Process
    keys: Keys
    seen: Seen
    data: Path
    http: httpx.AsyncClient
    channel: grpc.aio.Channel

    @property
    def bearer(self) -> dict[str, str]:
        """Headers of a caller with a good token."""
        return {"authorization": f"Bearer {self.keys.sign('acme', 'ann')}"}

    @property
    def answers(self) -> answers_pb2_grpc.AnswerServiceStub:
        """The stub for native gRPC."""
        return answers_pb2_grpc.AnswerServiceStub(self.channel)

    async def refusal(self, surface: str, headers: Mapping[str, str], question: str = "who am I?") -> Refusal:
        """Ask on the surface and return how that failed."""
        ask = answers_pb2.AskRequest(question=question, collection=ASK.collection)
        if surface == "grpc":
            return await self._refused_grpc(ask, headers)
        if surface == "grpc-web":
            return _from_web(await grpc_web.call(self.http, ASK_PATH, ask, dict(headers)))
        if surface == "openai":
            model = "none" if question == "missing" else "m"
            chat = {"model": model, "messages": [{"role": "user", "content": "?"}]}
            return from_openai(await self.http.post("/v1/chat/completions", json=chat, headers=headers))
        path = {"rest": "/v1/answers", "sse": "/v1/answers:sse"}[surface]
        ask_json = MessageToDict(ask, preserving_proto_field_name=True)
        return from_json(await self.http.post(path, json=ask_json, headers=headers))

    async def _refused_grpc(self, ask: answers_pb2.AskRequest, headers: Mapping[str, str]) -> Refusal:
        try:
            call = self.answers.Ask(ask, metadata=list(headers.items()), timeout=10)
            said = [response async for response in call]
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)
        raise AssertionError(f"not refused: {said}")


def from_rpc_error(error: grpc.aio.AioRpcError) -> Refusal:
    """A failed native call."""
    status = rpc_status.from_call(cast("grpc.Call", error)) or status_pb2.Status(
        code=error.code().value[0], message=error.details()
    )
    assert status.message == error.details()
    return _refusal(200, status)


def _from_web(reply: grpc_web.Reply) -> Refusal:
    assert reply.details.code == reply.status, f"the details say {reply.details}, the status {reply.status}"
    assert reply.details.message == reply.message
    return _refusal(reply.http_status, reply.details)


def _refusal(http_status: int, status: status_pb2.Status) -> Refusal:
    details = {detail.TypeName().rpartition(".")[2]: detail for detail in status.details}
    info = error_details_pb2.ErrorInfo()
    details["ErrorInfo"].Unpack(info)
    assert info.domain == "ragmesh"
    return Refusal(http_status, status.code, info.reason, status.message, details)


def from_json(response: httpx.Response) -> Refusal:
    """A failed REST call: google.rpc.Status as JSON."""
    assert response.headers["content-type"] == "application/json", response.text
    body = response.json()
    details = {detail["@type"].rpartition(".")[2]: detail for detail in body["details"]}
    assert details["ErrorInfo"]["domain"] == "ragmesh"
    return Refusal(response.status_code, body["code"], details["ErrorInfo"]["reason"], body["message"], details)


def from_openai(response: httpx.Response) -> Refusal:
    """A failed call of the OpenAI API."""
    assert response.headers["content-type"] == "application/json", response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, json.dumps(error)
    return Refusal(response.status_code, 0, error["code"], error["message"], error)


@asynccontextmanager
async def open_envoy(
    data: Path, ports: Ports, replaced: Mapping[str, str] | None = None, drain_timeout_s: float = 0.1
) -> AsyncIterator[tuple[Process, Keys]]:
    """Envoy on the ports, with keys in the folder `data`; its clusters may be away."""
    settings = LocalSettings(data_dir=data, start_timeout_s=20, stop_timeout_s=5)
    keys = open_keys(data, envoy.DEFAULTS["JWT_ISSUER"], envoy.DEFAULTS["JWT_AUDIENCE"])
    program = envoy.program(data / "envoy.yaml", ports, keys, replaced or {}, drain_timeout_s)
    async with keep_running(program, data / "envoy.log", settings) as process:
        await process.serving()
        yield process, keys


@asynccontextmanager
async def open_edge(
    data: Path, replaced: Mapping[str, str] | None = None, drain_timeout_s: float = 0.1
) -> AsyncIterator[Edge]:
    """The edge in front of the doubles; `replaced` are values in the place of defaults.env's."""
    ports, seen = Ports.free().chosen(), Seen()
    async with AsyncExitStack() as stack:
        for name, app in doubles.apps(seen).items():
            await stack.enter_async_context(doubles.serve(app, getattr(ports, name)))
        process, keys = await stack.enter_async_context(open_envoy(data, ports, replaced, drain_timeout_s))
        address = services.address("edge", ports)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{address}", timeout=10))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        yield Edge(address, process, keys, seen, data, http, channel)
