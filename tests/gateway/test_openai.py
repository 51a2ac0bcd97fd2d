"""OpenAI's JSON, as its clients send and read it."""

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from google.protobuf import empty_pb2

from gateway.answers import Answer, FinishReason
from gateway.openai_bodies import ChatRequest, parse
from gateway.openai_replies import ChatStream, completion
from gateway.retrieval import Degradation
from meshkit.errors import Unavailable
from ragmesh.gateway.v1 import openai_pb2, sessions_pb2
from ragmesh.generator.v1 import generator_pb2
from tests.gateway.calling import info_of, reason, status_of
from tests.gateway.conftest import Gateway
from tests.gateway.peer_doubles import EXTRACTIVE, TINY, Script

TEXT = "Employees get 25 days of leave. [1]"
DIED = Unavailable("ENGINE_UNAVAILABLE", "the engine died")


def _body(**fields: Any) -> httpbody_pb2.HttpBody:
    asked = {"model": "handbook", "messages": [{"role": "user", "content": "How long is leave?"}], **fields}
    return httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(asked).encode())


async def _whole(gateway: Gateway, **fields: Any) -> Any:
    (body,) = [body async for body in gateway.openai.ChatCompletions(_body(**fields))]
    assert body.content_type == "application/json"
    return json.loads(body.data)


async def _streamed(gateway: Gateway, **fields: Any) -> list[Any]:
    """The chunks of a stream that ends well."""
    frames = [body async for body in gateway.openai.ChatCompletions(_body(stream=True, **fields))]
    assert {body.content_type for body in frames} == {"text/event-stream"}
    assert frames.pop().data == b"data: [DONE]\n\n"
    return [_read(frame.data) for frame in frames]


def _read(frame: bytes) -> Any:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    return json.loads(frame.removeprefix(b"data: "))


async def test_completion_has_openais_form(gateway: Gateway) -> None:
    """One body: the message, why it ended, the usage and the citations as annotations."""
    reply = await _whole(gateway)
    assert (reply["object"], reply["model"]) == ("chat.completion", "handbook")
    assert reply["id"].startswith("chatcmpl-")
    (choice,) = reply["choices"]
    assert (choice["finish_reason"], choice["message"]["role"]) == ("stop", "assistant")
    assert choice["message"]["content"] == TEXT
    assert reply["usage"]["total_tokens"] == 34
    assert reply["usage"]["prompt_tokens_details"] == {"cached_tokens": 10}
    assert reply["system_fingerprint"] == "extractive"
    (annotation,) = choice["message"]["annotations"]
    assert annotation["url_citation"] == {
        "start_index": 0,
        "end_index": 31,
        "title": "Leave",
        "url": "https://example.com/leave",
    }
    assert (annotation["number"], annotation["verbatim"]) == (1, True)
    assert annotation["source"] == {"start": 0, "end": 31}


async def test_indices_count_characters_and_spans_bytes(gateway: Gateway) -> None:
    """OpenAI's indices are of the string, ours of its UTF-8."""
    gateway.peers.generator.script = Script(tokens=["Für Übung gibt es Urlaub [1]."])
    (annotation,) = (await _whole(gateway))["choices"][0]["message"]["annotations"]
    assert annotation["url_citation"]["end_index"] == 24
    assert annotation["answer"] == {"start": 0, "end": 26}


async def test_stream_has_openais_form(gateway: Gateway) -> None:
    """The role first, then the text piece by piece, last why it ended with the annotations."""
    chunks = await _streamed(gateway)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta["content"] for delta in deltas[1:-1]] == ["Employees ", "get 25 days ", "of leave. [", "1]"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["system_fingerprint"] for chunk in chunks} == {"extractive"}
    assert all("usage" not in chunk for chunk in chunks)
    whole = (await _whole(gateway))["choices"][0]["message"]["annotations"]
    assert deltas[-1]["annotations"] == whole


async def test_usage_comes_last_where_it_is_asked_for(gateway: Gateway) -> None:
    """With include_usage the last chunk has no choice and the usage, the others a null."""
    chunks = await _streamed(gateway, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_model_names_collection_and_model(gateway: Gateway) -> None:
    """What stands before the first slash is the collection, the rest the model, slashes and all."""
    slashed = generator_pb2.ModelInfo(model="org/tiny", kind=generator_pb2.ENGINE_KIND_LANGUAGE_MODEL, ready=True)
    gateway.peers.generator.models = [EXTRACTIVE, slashed]
    reply = await _whole(gateway, model="handbook/org/tiny")
    assert reply["model"] == "handbook/org/tiny"
    assert gateway.peers.generator.requests[0].model == "org/tiny"
    assert gateway.peers.retriever.requests[0].collection == "collections/handbook"


async def test_messages_are_the_conversation(gateway: Gateway) -> None:
    """System messages become instructions, earlier ones history, the last user message the question."""
    gateway.peers.generator.models = [TINY]
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "long?"}]},
    ]
    await _whole(gateway, messages=messages)
    said = [message.content for message in gateway.peers.generator.requests[-1].chat.messages]
    assert said[0].startswith("Be kind.")
    assert said[1:3] == ["Hi", "Hello"]
    assert said[3].endswith("Question: How long?")
    assert gateway.peers.retriever.requests[0].query.endswith("How long?")
    assert not (await gateway.sessions.ListSessions(sessions_pb2.ListSessionsRequest())).sessions


async def test_options_reach_the_engine(gateway: Gateway) -> None:
    """Sampling, limits, stops and the form are passed on; what is unknown is ignored."""
    gateway.peers.generator.models = [TINY]
    schema = {"type": "object"}
    await _whole(
        gateway,
        temperature=0,
        top_p=0.5,
        top_k=7,
        seed=3,
        max_tokens=20,
        stop="END",
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        user="someone",
        parallel_tool_calls=True,
        store=False,
        reasoning_effort="low",
        logprobs=False,
        logit_bias={},
    )
    (sent,) = gateway.peers.generator.requests
    assert (sent.sampling.HasField("temperature"), sent.sampling.top_p, sent.sampling.seed) == (True, 0.5, 3)
    assert sent.sampling.top_k == 7
    assert (sent.max_tokens, list(sent.stop)) == (20, ["END"])
    assert json.loads(sent.structured_output.json_schema) == schema


async def test_abstention_is_a_refusal(gateway: Gateway) -> None:
    """Nothing found is an empty message with a refusal and its reason, streamed or not."""
    message = (await _whole(gateway, model="empty"))["choices"][0]["message"]
    assert (message["content"], message["abstention"]) == ("", "NO_RELEVANT_CHUNKS")
    delta = (await _streamed(gateway, model="empty"))[-1]["choices"][0]["delta"]
    assert delta["refusal"] == message["refusal"] != ""


@pytest.mark.parametrize(("cache", "policy"), [(None, "USE"), ("refresh", "REFRESH"), ("bypass", "BYPASS")])
def test_cache_is_the_callers_choice(cache: str | None, policy: str) -> None:
    """A field of ours says whether an earlier answer may be given again."""
    assert parse(ChatRequest, _body(cache=cache).data).question().cache.name == policy


def test_what_openai_has_no_place_for_stands_beside() -> None:
    """An answer that was given before, or whose course left something out, says so; any other has no such field."""
    plain = Answer("a1", "", "collections/handbook", "Why?", "So.", FinishReason.STOP)
    told = replace(plain, cached=True, degradations=(Degradation("hyde", "DEADLINE_EXCEEDED"),))
    body = json.loads(completion(told, "handbook", 0))
    assert (body["cached"], body["degradations"]) == (True, [{"stage": "hyde", "reason": "DEADLINE_EXCEEDED"}])
    *_, last, _done = ChatStream("handbook", 0, include_usage=False).write(told)
    assert _read(last)["degradations"] == body["degradations"]
    assert not {"cached", "degradations"} & json.loads(completion(plain, "handbook", 0)).keys()


async def test_length_is_told(gateway: Gateway) -> None:
    """An answer that was cut off ends with `length`."""
    gateway.peers.generator.script = Script(finish=generator_pb2.FINISH_REASON_LENGTH)
    assert (await _whole(gateway))["choices"][0]["finish_reason"] == "length"


async def test_failure_in_mid_stream_is_a_frame(gateway: Gateway) -> None:
    """Once text was sent the error is the last frame, in OpenAI's shape, and no [DONE] follows."""
    gateway.peers.generator.script = Script(tokens=["25 ", "days"], error=DIED)
    frames: list[bytes] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for body in gateway.openai.ChatCompletions(_body(stream=True)):
            frames.append(body.data)
    assert _read(frames[-1])["error"] == {
        "message": "the engine died",
        "type": "unavailable",
        "param": None,
        "code": "ENGINE_UNAVAILABLE",
    }
    assert [_read(frame)["choices"][0]["delta"].get("content") for frame in frames[:-1]] == ["", "25 ", "days"]
    assert reason(raised.value) == "ENGINE_UNAVAILABLE"


async def test_failure_before_the_first_token_is_a_status(gateway: Gateway) -> None:
    """As long as nothing was sent a failure is only a status, which HTTP clients see as such."""
    gateway.peers.generator.script = Script(tokens=[], error=DIED)
    frames: list[bytes] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for body in gateway.openai.ChatCompletions(_body(stream=True)):
            frames.append(body.data)
    assert frames == []
    assert reason(raised.value) == "ENGINE_UNAVAILABLE"


USER = {"role": "user", "content": "x"}
PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com"}}]}
CLOCK = {"type": "function", "function": {"name": "clock"}}
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "nowhere"}, "COLLECTION_NOT_FOUND", "model"),
    ({"model": "handbook/gpt-9"}, "MODEL_NOT_FOUND", "model"),
    ({"model": "No Such"}, "INVALID_BODY", "model"),
    ({"model": None}, "INVALID_BODY", "model"),
    ({"messages": []}, "INVALID_BODY", "messages"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "INVALID_BODY", "messages"),
    ({"messages": [{"role": "user", "content": ""}]}, "INVALID_BODY", "messages"),
    ({"messages": [{"role": "user", "content": "x" * 32769}]}, "INVALID_BODY", "messages"),
    ({"messages": [USER, {"role": "boss", "content": "x"}]}, "INVALID_BODY", "messages[1].role"),
    ({"messages": [PICTURE]}, "INVALID_BODY", "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": 7}]}, "INVALID_BODY", "messages[0].content"),
    ({"logprobs": True}, "INVALID_BODY", "logprobs"),
    ({"logit_bias": {"50256": -100}}, "INVALID_BODY", "logit_bias"),
    ({"functions": [{"name": "f"}]}, "INVALID_BODY", "functions"),
    ({"modalities": ["text", "audio"]}, "INVALID_BODY", "modalities[1]"),
    ({"web_search_options": {}}, "INVALID_BODY", "web_search_options"),
    ({"temperature": 3}, "INVALID_BODY", "temperature"),
    ({"max_tokens": 0}, "INVALID_BODY", "max_tokens"),
    ({"n": 2}, "INVALID_BODY", "n"),
    ({"stop": ["x"] * 17}, "INVALID_BODY", "stop"),
    ({"tools": [{"type": "function"}]}, "INVALID_BODY", "tools"),
    ({"response_format": {"type": "json_schema"}}, "INVALID_BODY", "response_format.json_schema"),
    ({"response_format": {"type": "json_object"}}, "UNSUPPORTED_BY_ENGINE", "response_format"),
    ({"cache": "never"}, "INVALID_BODY", "cache"),
    ({"tools": [CLOCK], "tool_choice": "required"}, "UNSUPPORTED_BY_ENGINE", "tool_choice"),
]


@pytest.mark.parametrize(("fields", "why", "param"), BAD)
@pytest.mark.parametrize("stream", [False, True])
async def test_bad_body_names_its_mistake(
    gateway: Gateway, fields: dict[str, Any], why: str, param: str, stream: bool
) -> None:
    """A body that cannot be answered fails with its reason and the parameter, before any byte."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in gateway.openai.ChatCompletions(_body(stream=stream, **fields)):
            pytest.fail("something was sent")
    info = info_of(status_of(raised.value))
    assert info.reason == why
    assert info.metadata.get("param", "").startswith(param)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"model": "handbook"}'])
async def test_what_is_no_body_is_refused(gateway: Gateway, data: bytes) -> None:
    """Bytes that are not a JSON object of this form are INVALID_BODY on every method that takes one."""
    body = httpbody_pb2.HttpBody(data=data)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in gateway.openai.ChatCompletions(body):
            pytest.fail("something was sent")
    assert reason(raised.value) == "INVALID_BODY"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.openai.Embeddings(body)
    assert reason(raised.value) == "INVALID_BODY"


async def test_models_are_collections_with_models(gateway: Gateway) -> None:
    """Every collection, of all pages, is listed by itself and with each model."""
    gateway.peers.generator.models = [EXTRACTIVE, TINY]
    reply = json.loads((await gateway.openai.ListModels(empty_pb2.Empty())).data)
    assert [model["id"] for model in reply["data"]] == [
        *["empty", "empty/extractive", "empty/tiny"],
        *["handbook", "handbook/extractive", "handbook/tiny"],
    ]
    assert reply["data"][0] == {"id": "empty", "object": "model", "created": 1_700_000_000, "owned_by": "ragmesh"}


async def test_one_model_is_read_by_its_id(gateway: Gateway) -> None:
    """A model is what the list has of it, slashes and all; any other is not found."""
    listed = json.loads((await gateway.openai.ListModels(empty_pb2.Empty())).data)["data"]
    for model in listed:
        read = await gateway.openai.GetModel(openai_pb2.GetModelRequest(model=model["id"]))
        assert json.loads(read.data) == model
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.openai.GetModel(openai_pb2.GetModelRequest(model="handbook/gpt-9"))
    assert reason(raised.value) == "MODEL_NOT_FOUND"


async def _embeddings(gateway: Gateway, **fields: Any) -> Any:
    data = json.dumps({"model": "minilm", **fields}).encode()
    return json.loads((await gateway.openai.Embeddings(httpbody_pb2.HttpBody(data=data))).data)


async def test_embeddings_are_numbers_or_base64(gateway: Gateway) -> None:
    """The same vectors in either form, in the order of the texts."""
    numbers = await _embeddings(gateway, input=["abc", "de"], dimensions=2)
    packed = await _embeddings(gateway, input=["abc", "de"], encoding_format="base64")
    assert [row["embedding"] for row in numbers["data"]] == [[3.0, 0.0], [2.0, 1.0]]
    unpacked = [struct.unpack("<2f", base64.b64decode(row["embedding"])) for row in packed["data"]]
    assert unpacked == [(3.0, 0.0), (2.0, 1.0)]
    assert [row["index"] for row in numbers["data"]] == [0, 1]
    assert numbers["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert numbers["model"] == "minilm"


async def test_one_text_needs_no_list(gateway: Gateway) -> None:
    """A bare string is one text."""
    assert len((await _embeddings(gateway, input="abc"))["data"]) == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"input": "x", "model": "ada"}, "MODEL_NOT_FOUND"),
        ({"input": ""}, "INVALID_BODY"),
        ({"input": []}, "INVALID_BODY"),
        ({"input": [""]}, "INVALID_BODY"),
        ({"input": [1, 2]}, "INVALID_BODY"),
        ({"input": [[1, 2], [3]]}, "INVALID_BODY"),
        ({"input": ["x"] * 2049}, "INVALID_BODY"),
        ({"input": "x", "dimensions": 0}, "INVALID_BODY"),
        ({"input": "x", "encoding_format": "int8"}, "INVALID_BODY"),
    ],
)
async def test_bad_embeddings_body_is_refused(gateway: Gateway, fields: dict[str, Any], why: str) -> None:
    """A body that cannot be encoded fails with its reason."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _embeddings(gateway, **fields)
    assert reason(raised.value) == why
