"""Bad input to every RPC of the mesh: a clear status and a published reason, never INTERNAL or UNKNOWN."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

import ragmesh
from deploy.local.mesh import Mesh
from ragmesh.common.v1 import error_reason_pb2
from ragmesh.gateway.v1 import answers_pb2
from ragmesh.ingest.v1 import collections_pb2, documents_pb2
from ragmesh.retriever.v1 import retriever_pb2
from tests.mesh.bad_requests import BAD, CODES, NAME, Ask, Embed, Search

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]
REASONS = {name.removeprefix("ERROR_REASON_") for name in list(error_reason_pb2.ErrorReason.keys())}
OURS = {"INTERNAL", "UNKNOWN"}
# By package: who answers it, past the edge.
SERVERS = {"gateway": "gateway", "retriever": "retriever", "generator": "generator"}
SERVERS |= {"embedder": "embedder", "ingest": "ingest"}
INSIDE = {"IndexService", "EmbedderService", "GeneratorService"}


@dataclass(frozen=True)
class Ended:
    """How a call ended."""

    code: str
    reason: str
    fields: tuple[str, ...]
    message: str


def methods() -> Iterator[MethodDescriptor]:
    """Every method of the contract."""
    for root in map(Path, ragmesh.__path__):
        for file in sorted(root.glob("*/v1/*_pb2.py")):
            module = f"ragmesh.{file.parts[-3]}.v1.{file.stem}"
            for service in importlib.import_module(module).DESCRIPTOR.services_by_name.values():
                if service.file.package != "ragmesh.common.v1":  # asked by operators, who have no tenant
                    yield from service.methods


METHODS = {f"{method.containing_service.name}.{method.name}": method for method in methods()}


async def call(address: str, method: MethodDescriptor, payload: bytes, metadata: tuple[tuple[str, str], ...]) -> Ended:
    """Send one message, as it stands, and read to the end."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    async with grpc.aio.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        # On the wire a single answer is a stream of one, so two kinds of call do for all four.
        kind: Any = channel.stream_stream if method.client_streaming else channel.unary_stream
        request = _patiently(payload) if method.client_streaming else payload
        try:
            async for _ in kind(path)(request, timeout=20, metadata=metadata):
                pass
        except grpc.aio.AioRpcError as error:
            return _ended(error)
    return Ended("OK", "", (), "")


async def _patiently(payload: bytes) -> AsyncIterator[bytes]:
    """The message, a moment late: grpc.aio says INTERNAL of its own where a call is refused while it writes."""
    await asyncio.sleep(0.05)
    yield payload


def _ended(error: grpc.aio.AioRpcError) -> Ended:
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad)
    fields = tuple(violation.field for violation in bad.field_violations)
    return Ended(error.code().name, info.reason, fields, error.details() or "")


def bearer(mesh: Mesh, token: str = "") -> tuple[tuple[str, str], ...]:
    """The header of a caller at the edge."""
    return (("authorization", f"Bearer {token or mesh.token('nobody')}"),)


def identity(tenant: str = "nobody") -> tuple[tuple[str, str], ...]:
    """The headers that Envoy sets, for who goes around it."""
    return (
        ("x-ragmesh-tenant", tenant),
        ("x-ragmesh-subject", "somebody"),
        ("x-ragmesh-scopes", "ask search ingest admin"),
    )


def server_of(mesh: Mesh, method: MethodDescriptor) -> str:
    """The address of the service that has the method, past the edge."""
    return mesh.addresses[SERVERS[method.containing_service.file.package.split(".")[1]]]


@pytest.mark.parametrize("name", METHODS)
async def test_bytes_that_are_no_message_are_malformed(mesh: Mesh, name: str) -> None:
    """Truncated bytes and strings that are not UTF-8 are INVALID_ARGUMENT MALFORMED_MESSAGE on every RPC."""
    method = METHODS[name]
    address = server_of(mesh, method)
    text = next((f for f in method.input_type.fields if f.type == f.TYPE_STRING and not f.is_repeated), None)
    broken = [b"\x0a\xff"]
    if text is not None:
        broken.append(bytes([text.number << 3 | 2, 2]) + b"\xff\xfe")
    for payload in broken:
        ended = await call(address, method, payload, identity())
        assert (ended.code, ended.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE"), ended


@pytest.mark.parametrize("name", METHODS)
async def test_an_empty_message_is_answered_or_refused_with_its_reason(mesh: Mesh, name: str) -> None:
    """What is missing is named; what needs nothing is answered; nothing is INTERNAL or UNKNOWN."""
    method = METHODS[name]
    ended = await call(server_of(mesh, method), method, b"", identity())
    assert ended.code not in OURS, ended
    if ended.code != "OK":
        assert ended.reason in REASONS, ended
    if ended.reason == "INVALID_FIELD":
        assert ended.fields, ended


@pytest.mark.parametrize("name", [name for name in METHODS if name.split(".")[0] not in INSIDE])
async def test_no_token_and_a_forged_one_are_refused_at_the_edge(mesh: Mesh, name: str) -> None:
    """Every RPC of the edge refuses who has no token, and who has one that was not signed here."""
    method = METHODS[name]
    head, body, signature = mesh.token().split(".")
    forged = f"{head}.{body}.{signature[:-6]}AAAAAA"
    missing = await call(mesh.edge, method, b"", ())
    stranger = await call(mesh.edge, method, b"", bearer(mesh, forged))
    assert (missing.code, missing.reason) == ("UNAUTHENTICATED", "IDENTITY_MISSING")
    assert (stranger.code, stranger.reason) == ("UNAUTHENTICATED", "IDENTITY_INVALID")


@pytest.mark.parametrize("name", METHODS)
async def test_no_identity_is_refused_past_the_edge(mesh: Mesh, name: str) -> None:
    """A service called around the edge without the edge's headers refuses, whatever the message."""
    method = METHODS[name]
    ended = await call(server_of(mesh, method), method, b"", ())
    assert (ended.code, ended.reason) == ("UNAUTHENTICATED", "IDENTITY_MISSING"), ended


@pytest.mark.parametrize("name", [name for name in METHODS if name.split(".")[0] in INSIDE])
async def test_inner_services_cannot_be_reached_from_outside(mesh: Mesh, name: str) -> None:
    """The edge offers no inner service, whoever asks."""
    ended = await call(mesh.edge, METHODS[name], b"", bearer(mesh))
    assert ended.code in {"UNIMPLEMENTED", "NOT_FOUND"}, ended
    assert ended.reason in REASONS, ended


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_has_its_status_reason_and_field(mesh: Mesh, case: str) -> None:
    """Each is refused with the status and reason that the contract publishes, and names the field at fault."""
    name, request, reason, field = BAD[case]
    method = METHODS[name]
    inside = name.split(".")[0] in INSIDE
    address = server_of(mesh, method) if inside else mesh.edge
    metadata = identity("local") if inside else bearer(mesh, mesh.token())
    ended = await call(address, method, request.SerializeToString(), metadata)
    assert (ended.code, ended.reason) == (CODES[reason], reason), ended
    if field:
        assert any(given == field or given.endswith(f".{field}") for given in ended.fields), ended


@pytest.mark.parametrize("name", [Ask, Search, Embed, "DocumentService.CreateDocument"])
async def test_a_message_over_the_limit_is_too_large(mesh: Mesh, name: str) -> None:
    """A message of 17 MiB is refused with the limit that it broke, at the service as at the edge."""
    method = METHODS[name]
    field = next(f for f in method.input_type.fields if f.type == f.TYPE_STRING)
    text = b"x" * (17 << 20)
    payload = bytes([field.number << 3 | 2]) + _varint(len(text)) + text
    ended = await call(server_of(mesh, method), method, payload, identity())
    assert (ended.code, ended.reason) in {("RESOURCE_EXHAUSTED", "TOO_LARGE"), ("INVALID_ARGUMENT", "TOO_LARGE")}, ended
    if name.split(".", maxsplit=1)[0] not in INSIDE:
        at_edge = await call(mesh.edge, method, payload, bearer(mesh))
        assert at_edge.reason == "TOO_LARGE", at_edge


async def test_one_tenant_sees_nothing_of_another(mesh: Mesh) -> None:
    """Another tenant's collection is as good as none: by name, in lists, in searches and in answers."""
    other = bearer(mesh, mesh.token("other"))
    requests = {
        Ask: answers_pb2.AskRequest(question="Why?", collection=NAME),
        Search: retriever_pb2.SearchRequest(collection=NAME, query="leave"),
        "CollectionService.GetCollection": collections_pb2.GetCollectionRequest(name=NAME),
        "DocumentService.ListDocuments": documents_pb2.ListDocumentsRequest(parent=NAME),
    }
    for name, request in requests.items():
        ended = await call(mesh.edge, METHODS[name], request.SerializeToString(), other)
        assert (ended.code, ended.reason) == ("NOT_FOUND", "COLLECTION_NOT_FOUND"), (name, ended)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
