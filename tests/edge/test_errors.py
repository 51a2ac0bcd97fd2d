"""A failure has the same code and reason on every surface, whoever failed."""

import asyncio
import json
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2

from ragmesh.common.v1 import server_pb2, server_pb2_grpc
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from ragmesh.ingest.v1 import documents_pb2, documents_pb2_grpc
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc
from tests.edge import grpc_web
from tests.edge.running import ASK, SURFACES, Edge, from_json, from_openai, from_rpc_error, open_edge

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("surface", SURFACES)
async def test_an_error_of_a_service_keeps_its_reason_on_every_surface(edge: Edge, surface: str) -> None:
    """NOT_FOUND of the gateway arrives as such, with its details, or in OpenAI's form."""
    refusal = await edge.refusal(surface, edge.bearer, "missing")
    assert refusal.reason == "COLLECTION_NOT_FOUND"
    assert refusal.message == "collection collections/none not found"
    assert refusal.code in {0, 5}
    assert refusal.http_status == (200 if "grpc" in surface else 404)


@pytest.mark.parametrize("surface", [surface for surface in SURFACES if surface != "openai"])
async def test_a_peer_that_is_away_is_not_taken_for_the_edge_s_own_failure(edge: Edge, surface: str) -> None:
    """UNAVAILABLE sent by the gateway is tried again, and its details are not replaced."""
    calls = edge.seen.calls
    refusal = await edge.refusal(surface, edge.bearer, "away")
    assert (refusal.code, refusal.reason) == (14, "PEER_UNAVAILABLE")
    assert refusal.message == "a service does not answer"
    assert edge.seen.calls == calls + 3


async def test_the_words_of_an_error_survive_openai_s_form(edge: Edge) -> None:
    """Quotes in a message, and the parameter at fault, arrive as they were."""
    body = {"model": "m", "messages": []}
    response = await edge.http.post("/v1/chat/completions", json=body, headers=edge.bearer)
    refusal = from_openai(response)
    assert (refusal.http_status, refusal.reason) == (400, "INVALID_BODY")
    assert refusal.message == 'messages: "at least one"'
    assert refusal.details["param"] == "messages"
    assert refusal.details["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "http_status", "reason"),
    [
        ("POST", "/v1/answers:sse", b"{", 3, 400, "MALFORMED_MESSAGE"),
        ("POST", "/v1/answers:sse", b'{"question": 7, "top"', 3, 400, "MALFORMED_MESSAGE"),
        ("POST", "/v1/answers:sse", b'{"cache": "NO_SUCH_POLICY"}', 3, 400, "MALFORMED_MESSAGE"),
        ("POST", "/v1/answers:sse", b'{"question": "\xff\xfe"}', 3, 400, "MALFORMED_MESSAGE"),
        ("POST", "/v1/answers:sse", b"{}", 3, 400, "INVALID_FIELD"),
        ("GET", "/v1/sessions/s?unknown=1", b"", 3, 400, "MALFORMED_MESSAGE"),
        ("POST", "/v1/collections/c:search", b'{"collection": "collections/d"}', 3, 400, "MALFORMED_MESSAGE"),
        ("GET", "/v1/sessions/..%2Fadmin", b"", 12, 404, "METHOD_NOT_FOUND"),
        ("GET", "/v1/nothing", b"", 12, 404, "METHOD_NOT_FOUND"),
        ("GET", "/", b"", 12, 404, "METHOD_NOT_FOUND"),
        ("PUT", "/v1/sessions/s", b"", 12, 404, "METHOD_NOT_FOUND"),
        ("POST", "/ragmesh.gateway.v1.AnswerService/Ask", b"{}", 12, 404, "METHOD_NOT_FOUND"),
        ("GET", "/v1/mesh", b"", 12, 501, "NOT_IMPLEMENTED"),
    ],
)
async def test_bad_rest_requests_have_a_reason(
    edge: Edge, method: str, path: str, body: bytes, code: int, http_status: int, reason: str
) -> None:
    """What is wrong with a request is said in google.rpc.Status, by whoever notices."""
    headers = edge.bearer | ({"content-type": "application/json"} if body else {})
    refusal = from_json(await edge.http.request(method, path, content=body, headers=headers))
    assert (refusal.code, refusal.http_status, refusal.reason) == (code, http_status, reason)
    assert refusal.message


async def test_a_document_of_the_largest_size_passes(edge: Edge) -> None:
    """3 MiB of text, which the contract allows, are no more than the edge takes."""
    path = "/v1/collections/c/documents"
    answer = await edge.http.post(path, json={"text": "x" * 3_145_728}, headers=edge.bearer)
    assert answer.json()["document"]["size_bytes"] == "3145728"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(edge: Edge, *, chunked: bool) -> None:
    """A body larger than the edge takes is TOO_LARGE in each form, whether its length was announced or not."""
    refusal = from_json(await _post_large(edge, "/v1/collections/c/documents", chunked=chunked))
    assert (refusal.code, refusal.http_status, refusal.reason) == (3, 413, "TOO_LARGE")
    refusal = from_openai(await _post_large(edge, "/v1/chat/completions", chunked=chunked))
    assert (refusal.http_status, refusal.reason) == (413, "TOO_LARGE")


async def _post_large(edge: Edge, path: str, *, chunked: bool) -> httpx.Response:
    """Post 6 MiB and read at the same time: whom the edge refuses early it does not read to the end.

    httpx would send first and find the connection gone.
    """
    host, _, port = edge.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    size = 6 * 1024 * 1024
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
    lines = [f"POST {path} HTTP/1.1", f"host: {edge.address}", "content-type: application/json", framing]
    lines.append(f"authorization: {edge.bearer['authorization']}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    writer.write((b"%x\r\n" % size if chunked else b"") + b'{"text": "'.ljust(size, b"x"))
    try:
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers["content-length"]))
    finally:
        writer.transport.abort()
    return httpx.Response(int(head[0].split()[1]), headers=headers, content=body)


async def test_an_upload_by_grpc_is_not_bounded_by_the_edge(edge: Edge) -> None:
    """A stream of messages passes however long it is: 12 MiB here."""
    part = documents_pb2.UploadDocumentRequest.Part(data=b"x" * 1024 * 1024)
    messages = (documents_pb2.UploadDocumentRequest(part=part) for _ in range(12))
    call = documents_pb2_grpc.DocumentServiceStub(edge.channel).UploadDocument(
        messages, metadata=list(edge.bearer.items()), timeout=20
    )
    received = [response.progress.bytes_received async for response in call]
    assert received[-1] == 12 * 1024 * 1024


async def test_services_for_the_mesh_alone_are_not_to_be_reached(edge: Edge) -> None:
    """Index, embedder, generator and server info are METHOD_NOT_FOUND from outside, by gRPC and by gRPC-web."""
    inside: dict[str, tuple[Any, Any]] = {
        "/ragmesh.retriever.v1.IndexService/GetIndex": (
            index_pb2_grpc.IndexServiceStub(edge.channel).GetIndex,
            index_pb2.GetIndexRequest(collection="collections/c"),
        ),
        "/ragmesh.embedder.v1.EmbedderService/GetInfo": (
            embedder_pb2_grpc.EmbedderServiceStub(edge.channel).GetInfo,
            embedder_pb2.GetInfoRequest(),
        ),
        "/ragmesh.generator.v1.GeneratorService/ListModels": (
            generator_pb2_grpc.GeneratorServiceStub(edge.channel).ListModels,
            generator_pb2.ListModelsRequest(),
        ),
        "/ragmesh.common.v1.ServerService/GetServerInfo": (
            server_pb2_grpc.ServerServiceStub(edge.channel).GetServerInfo,
            server_pb2.GetServerInfoRequest(),
        ),
    }
    for path, (call, request) in inside.items():
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(request, metadata=list(edge.bearer.items()), timeout=10)
        refusal = from_rpc_error(raised.value)
        assert (refusal.code, refusal.reason) == (12, "METHOD_NOT_FOUND")
        reply = await grpc_web.call(edge.http, path, request, edge.bearer)
        assert reply.status == 12
        assert not reply.messages


async def test_a_service_that_is_away_is_unavailable_on_every_surface(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With nothing behind the edge, calls end at once with UNAVAILABLE and PEER_UNAVAILABLE."""
    async with open_edge(tmp_path_factory.mktemp("alone"), {"GATEWAY_PORT": "1"}) as alone:
        for surface in SURFACES:
            refusal = await alone.refusal(surface, alone.bearer)
            assert refusal.reason == "PEER_UNAVAILABLE", surface
            assert refusal.code in {0, 14}
            assert refusal.http_status == (200 if "grpc" in surface else 503)


async def test_the_edge_s_refusals_of_a_quota_say_when_to_come_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Over its rate a caller gets RESOURCE_EXHAUSTED with RetryInfo on each surface; others are not held up."""
    limits = {"ASK_BURST": "1", "ASK_PER_SECOND": "1", "OTHER_BURST": "2", "OTHER_PER_SECOND": "2"}
    async with open_edge(tmp_path_factory.mktemp("limited"), limits) as limited:
        for surface in SURFACES:
            caller = {"authorization": f"Bearer {limited.keys.sign('acme', f'of-{surface}')}"}
            refusal = None
            for _ in range(3):
                try:
                    refusal = await limited.refusal(surface, caller, "missing")
                except AssertionError:
                    continue
                if refusal.reason == "QUOTA_EXHAUSTED":
                    break
            assert refusal is not None
            assert refusal.reason == "QUOTA_EXHAUSTED", surface
            assert refusal.code in {0, 8}
            assert refusal.http_status == (200 if "grpc" in surface else 429)
            _assert_says_when(surface, refusal.details)
        stranger = {"authorization": f"Bearer {limited.keys.sign('other', 'of-rest')}"}
        assert (await limited.refusal("rest", stranger, "missing")).reason == "COLLECTION_NOT_FOUND"
        other = {"authorization": f"Bearer {limited.keys.sign('acme', 'of-rest')}"}
        assert (await limited.http.get("/v1/sessions/s", headers=other)).status_code == 200


def _assert_says_when(surface: str, details: dict[str, Any]) -> None:
    if surface in {"rest", "sse"}:
        assert json.loads(json.dumps(details["RetryInfo"]))["retryDelay"] == "1s"
    elif surface != "openai":
        retry = error_details_pb2.RetryInfo()
        details["RetryInfo"].Unpack(retry)
        assert retry.retry_delay.seconds == 1


async def test_the_query_does_not_reach_the_access_log(edge: Edge) -> None:
    """The edge's log names the path and the caller, not what was asked and no token."""
    await edge.http.get("/v1/sessions/s?access_token=hush-hush", headers=edge.bearer)
    await edge.http.post("/v1/answers", content=ASK.SerializeToString(), headers=edge.bearer)
    log = (edge.data / "envoy.log").read_text()
    assert "hush-hush" not in log
    assert edge.bearer["authorization"].removeprefix("Bearer ") not in log
    entry = json.loads(next(line for line in log.splitlines() if '"subject":"ann"' in line))
    assert entry["tenant"] == "acme"


async def test_browsers_of_this_machine_may_call(edge: Edge) -> None:
    """A preflight passes without a token for a local origin and for no other."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed: list[httpx.Response] = []
    for origin in ("http://localhost:5173", "https://evil.example"):
        allowed.append(await edge.http.options("/v1/answers:sse", headers=asked | {"origin": origin}))
    assert allowed[0].headers["access-control-allow-origin"] == "http://localhost:5173"
    assert {"authorization", "x-stainless-lang"} <= set(allowed[0].headers["access-control-allow-headers"].split(", "))
    assert "access-control-allow-origin" not in allowed[1].headers
