"""Answers pass the edge as they are made, on every surface that streams."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import grpc
import httpx
import openai
import pytest

from ragmesh.gateway.v1 import answers_pb2
from ragmesh.ingest.v1 import documents_pb2, documents_pb2_grpc
from tests.edge import grpc_web
from tests.edge.doubles import TOKEN_GAP_S, TOKENS
from tests.edge.running import ASK, ASK_PATH, Edge, open_edge

pytestmark = pytest.mark.asyncio(loop_scope="session")

BODY = {"question": "who am I?", "collection": "collections/handbook"}


async def _by_grpc(edge: Edge) -> AsyncIterator[str]:
    async for response in edge.answers.Ask(ASK, metadata=list(edge.bearer.items()), timeout=10):
        yield response.event.token.text


async def _by_grpc_web(edge: Edge) -> AsyncIterator[str]:
    async for message in grpc_web.messages(edge.http, ASK_PATH, ASK, edge.bearer):
        yield answers_pb2.AskResponse.FromString(message).event.token.text


async def _by_sse(edge: Edge) -> AsyncIterator[str]:
    async with edge.http.stream("POST", "/v1/answers:sse", json=BODY, headers=edge.bearer) as response:
        assert response.headers["content-type"] == "text/event-stream"
        async for line in response.aiter_lines():
            if line:
                yield json.loads(line.removeprefix("data: "))["event"].get("token", {}).get("text", "")


async def _by_ndjson(edge: Edge) -> AsyncIterator[str]:
    async with edge.http.stream("POST", "/v1/answers:stream", json=BODY, headers=edge.bearer) as response:
        assert response.headers["content-type"] == "application/json"
        async for line in response.aiter_lines():
            yield json.loads(line)["event"].get("token", {}).get("text", "")


@pytest.mark.parametrize("surface", [_by_grpc, _by_grpc_web, _by_sse, _by_ndjson])
async def test_tokens_arrive_one_by_one(edge: Edge, surface: Callable[[Edge], AsyncIterator[str]]) -> None:
    """Each token is there before the next one is made: the gaps between arrivals are those of the making."""
    arrivals: list[float] = []
    texts: list[str] = []
    async for text in surface(edge):
        arrivals.append(time.monotonic())
        texts.append(text)
    assert texts == [f"t{number} " for number in range(1, TOKENS + 1)] + [""]
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert min(gaps) > TOKEN_GAP_S / 3
    assert arrivals[-1] - arrivals[0] > TOKENS * TOKEN_GAP_S * 0.9


async def test_the_openai_client_reads_both_ways(edge: Edge) -> None:
    """The openai package, with a token as its key, reads completions, streams, models and errors, each with an id."""
    key = edge.keys.sign("acme", "ann")
    async with openai.AsyncOpenAI(base_url=f"http://{edge.address}/v1", api_key=key, max_retries=0) as client:
        question: Any = [{"role": "user", "content": "?"}]
        whole = await client.chat.completions.create(model="m", messages=question)
        assert whole.choices[0].message.content == "hello"
        stream: Any = await client.chat.completions.create(model="m", messages=question, stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["hel", "lo"]
        assert [model.id async for model in client.models.list()] == ["handbook"]
        model = await client.models.retrieve("handbook/org/tiny")
        assert model.id == "handbook/org/tiny"
        assert whole._request_id
        assert model._request_id
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(model="none", messages=question)
        assert raised.value.code == "COLLECTION_NOT_FOUND"
        with pytest.raises(openai.NotFoundError) as raised:
            await client.responses.create(model="m", input="?")
        assert (raised.value.code, raised.value.type) == ("METHOD_NOT_FOUND", "invalid_request_error")


async def test_an_upload_and_its_progress_pass_at_the_same_time(edge: Edge) -> None:
    """On a stream in both ways the answer to a message comes before the next is sent."""
    call = documents_pb2_grpc.DocumentServiceStub(edge.channel).UploadDocument(
        metadata=list(edge.bearer.items()), timeout=10
    )
    for number in range(1, 4):
        part = documents_pb2.UploadDocumentRequest.Part(data=b"x" * 100)
        await call.write(documents_pb2.UploadDocumentRequest(part=part))
        answer: Any = await call.read()
        assert answer.progress.bytes_received == number * 100
    await call.done_writing()


async def test_a_caller_that_leaves_frees_the_service(edge: Edge) -> None:
    """A cancelled gRPC call and a closed SSE connection end the servicer's stream within 100 ms."""
    forever = answers_pb2.AskRequest(question="forever", collection=ASK.collection)
    edge.seen.cancelled.clear()
    call = edge.answers.Ask(forever, metadata=list(edge.bearer.items()), timeout=10)
    await call.read()
    call.cancel()
    await asyncio.wait_for(edge.seen.cancelled.wait(), 0.1)
    edge.seen.cancelled.clear()
    async with httpx.AsyncClient(base_url=f"http://{edge.address}", timeout=10) as browser:
        body = BODY | {"question": "forever"}
        async with browser.stream("POST", "/v1/answers:sse", json=body, headers=edge.bearer) as response:
            await anext(response.aiter_lines())
    await asyncio.wait_for(edge.seen.cancelled.wait(), 0.1)


async def test_a_deadline_passes_through(edge: Edge) -> None:
    """The service sees the caller's deadline, less what was spent, and the caller DEADLINE_EXCEEDED after it."""
    forever = answers_pb2.AskRequest(question="forever", collection=ASK.collection)
    metadata = list(edge.bearer.items())
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await edge.answers.AskOnce(answers_pb2.AskOnceRequest(ask=forever), metadata=metadata, timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.2 < edge.seen.remaining_s < 0.31  # gRPC rounds up to whole milliseconds
    assert time.monotonic() - began < 0.6


async def test_a_restart_of_the_edge_lets_answers_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An answer that runs when the edge is told to end is given whole; a plain SIGTERM would cut it."""
    async with open_edge(tmp_path_factory.mktemp("draining"), drain_timeout_s=5) as draining:
        before, answer = draining.envoy.pid, _by_grpc(draining)
        await anext(answer)
        restarting = asyncio.create_task(draining.envoy.restart())
        assert len([text async for text in answer]) == TOKENS
        await restarting
        assert draining.envoy.pid not in {0, before}


async def test_a_failure_in_mid_answer_is_seen(edge: Edge) -> None:
    """What came before it is delivered; gRPC and gRPC-web then tell code and reason in trailers."""
    broken = answers_pb2.AskRequest(question="broken", collection=ASK.collection)
    received = 0
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in edge.answers.Ask(broken, metadata=list(edge.bearer.items()), timeout=10):
            received += 1
    assert (received, raised.value.code()) == (TOKENS, grpc.StatusCode.UNAVAILABLE)
    reply = await grpc_web.call(edge.http, ASK_PATH, broken, edge.bearer)
    assert (len(reply.messages), reply.status, reply.message) == (TOKENS, 14, "the engine died")
    assert b"ENGINE_UNAVAILABLE" in reply.details.SerializeToString()


async def test_a_query_that_contradicts_the_path_is_the_service_s_to_judge(edge: Edge) -> None:
    """A query parameter beats the path's variable, so services authorise on the message; the edge does not split."""
    response = await edge.http.get("/v1/collections/mine?name=collections/other", headers=edge.bearer)
    assert response.json()["collection"]["name"] == "collections/other"
