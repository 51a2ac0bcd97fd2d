"""The generator over `vllm serve`, a real upstream on a tiny model: one server, started once for all of these tests."""

import asyncio
import json
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from google.protobuf.json_format import ParseDict

from generator_svc.engine import UNKNOWN_TOKEN
from generator_svc.openai_engine import OpenAIOptions, open_openai_engine
from meshkit.errors import Aborted, InvalidArgument
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from tests import tiny_model
from tests.generator_svc.serving import called, read, request, text
from tests.vllm_server import NAME, VllmServer, vllm_server

# The first test waits for the server's start, which takes half a minute on a busy machine.
pytestmark = pytest.mark.timeout(240)

Stub: TypeAlias = generator_pb2_grpc.GeneratorServiceStub

GREEDY = {"temperature": 0}
LICENSE = (Path(__file__).parents[2] / "LICENSE").read_text()
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a licence?"}]
CHAT = {"messages": [{"role": f"ROLE_{turn['role'].upper()}", "content": turn["content"]} for turn in MESSAGES]}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Alan"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """The server; the last test ends it."""
    model = tiny_model.make_tiny_model(tmp_path_factory.mktemp("model"))
    with vllm_server(model, tmp_path_factory.mktemp("vllm-serve"), max_running=8) as server:
        yield server


@asynccontextmanager
async def over(upstream: VllmServer, **options: Any) -> AsyncIterator[Stub]:
    """A stub for a generator whose engine asks the upstream."""
    async with open_openai_engine(OpenAIOptions(upstream.url, **options)) as engine, called(engine) as stub:
        yield stub


@pytest.fixture
async def stub(upstream: VllmServer) -> AsyncIterator[Stub]:
    """The same with nothing but the upstream's address."""
    async with over(upstream) as stub:
        yield stub


async def asked(upstream: VllmServer, path: str, **body: Any) -> Any:
    """What the upstream itself answers, in one piece."""
    return await asyncio.to_thread(_post, f"{upstream.url}{path}", {"model": NAME, **body})


def _post(url: str, body: dict[str, Any]) -> Any:
    headers = {"content-type": "application/json"}
    posted = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(posted, timeout=30) as response:
        return json.load(response)


async def idle(upstream: VllmServer) -> float:
    """Wait until the upstream works on nothing; the seconds that it took."""
    began_s = time.monotonic()
    async with asyncio.timeout(10):
        while await asyncio.to_thread(upstream.running):
            pass
    return time.monotonic() - began_s


async def test_the_model_says_what_it_is(stub: Stub) -> None:
    """All is learnt from the upstream: its name, its context, that it counts tokens."""
    (info,) = (await stub.ListModels(generator_pb2.ListModelsRequest())).models

    assert (info.model, info.engine, info.ready, info.structured_output) == (NAME, "openai", True, True)
    assert info.max_model_tokens == tiny_model.CONTEXT_TOKENS


async def test_the_text_is_what_the_upstream_gives_in_one_piece(stub: Stub, upstream: VllmServer) -> None:
    """For a chat and for a prompt, in many deltas, of which each tells its tokens."""
    whole = await asked(upstream, "/chat/completions", messages=MESSAGES, max_tokens=60, temperature=0)
    chat = await read(stub.Generate(request(chat=CHAT, max_tokens=60, sampling=GREEDY)))
    assert text(chat) == whole["choices"][0]["message"]["content"]

    whole = await asked(upstream, "/completions", prompt="A mesh", max_tokens=60, temperature=0)
    prompt = await read(stub.Generate(request(prompt="A mesh", max_tokens=60, sampling=GREEDY)))
    assert text(prompt) == whole["choices"][0]["text"]

    for answer in (chat, prompt):
        tokens = [token for message in answer for token in message.token_ids]
        assert len(tokens) == answer[-1].usage.completion_tokens
        assert len(answer) > len(tokens) / 2


async def test_usage_and_timings_stand_on_the_last_message(stub: Stub) -> None:
    """Prompt tokens are what CountTokens says, and a repeated prompt is found in the upstream's cache."""
    chat = {"messages": [{"role": "ROLE_USER", "content": LICENSE[:900]}]}
    for fields in ({"prompt": LICENSE[:900]}, {"chat": chat}):
        counted = await stub.CountTokens(ParseDict(fields, generator_pb2.CountTokensRequest()))
        asking = request(**fields, max_tokens=7, sampling=GREEDY, ignore_eos=True)
        await read(stub.Generate(asking))
        answer = await read(stub.Generate(asking))

        usage = answer[-1].usage
        assert usage.prompt_tokens == counted.tokens > 64
        assert usage.completion_tokens == 7
        assert 0 < usage.cached_tokens <= counted.tokens
        assert [timing.stage for timing in answer[-1].timings.timings] == ["queue", "first_token", "decode"]
        assert answer[-1].finish_reason == generator_pb2.FINISH_REASON_LENGTH
        assert not any(message.HasField("usage") for message in answer[:-1])


async def test_log_probabilities_come_with_each_token(stub: Stub) -> None:
    """In both of the API's forms; the greedy token is the likeliest."""
    for fields in ({"prompt": "A mesh"}, {"chat": CHAT}):
        answer = await read(stub.Generate(request(**fields, max_tokens=8, sampling=GREEDY, logprobs=3)))
        positions = [position for message in answer for position in message.logprobs]

        assert len(positions) == answer[-1].usage.completion_tokens
        assert [position.token.token_id for position in positions] == [
            token for message in answer for token in message.token_ids
        ]
        for position in positions:
            assert len(position.top) == 3
            assert position.token.logprob == position.top[0].logprob
            assert [token.logprob for token in position.top] == sorted((t.logprob for t in position.top), reverse=True)
            assert all(token.token_id in (UNKNOWN_TOKEN, position.token.token_id) for token in position.top)


async def test_sequences_side_by_side_differ_and_a_seed_repeats_them(stub: Stub) -> None:
    """Each has its own end, and the usage counts both."""
    fields = {"prompt": "A mesh", "n": 2, "max_tokens": 12, "ignore_eos": True, "sampling": {"seed": 7}}
    first, again = [await read(stub.Generate(request(**fields))) for _ in range(2)]
    other = await read(stub.Generate(request(**{**fields, "sampling": {"seed": 8}})))

    assert text(first, 0) != text(first, 1)
    assert [text(first, index) for index in (0, 1)] == [text(again, index) for index in (0, 1)]
    assert text(other) != text(first)
    ends = [message.index for message in first if message.finish_reason]
    assert sorted(ends) == [0, 1]
    assert first[-1].usage.completion_tokens == 24


async def test_a_stop_text_ends_the_answer_before_it(stub: Stub) -> None:
    """The text is not part of the answer."""
    fields = {"prompt": "A mesh", "max_tokens": 40, "sampling": GREEDY, "ignore_eos": True}
    whole = text(await read(stub.Generate(request(**fields))))
    stop = whole[20:24]

    answer = await read(stub.Generate(request(**fields, stop=[stop])))

    assert text(answer) == whole[: whole.index(stop)]
    assert answer[-1].finish_reason == generator_pb2.FINISH_REASON_STOP


@pytest.mark.parametrize("fields", [{"prompt": "A person:"}, {"chat": CHAT}], ids=["prompt", "chat"])
async def test_the_output_has_the_form_that_it_must(stub: Stub, fields: dict[str, Any]) -> None:
    """A schema, a regular expression, a choice, a grammar."""

    async def made(**form: Any) -> str:
        return text(await read(stub.Generate(request(**fields, max_tokens=90, structured_output=form))))

    person = json.loads(await made(json_schema=json.dumps(SCHEMA)))
    assert person["name"] in ("Ada", "Alan")
    assert 0 <= person["age"] <= 99
    assert re.fullmatch(r"\d{3}-\d{4}", await made(regex=r"\d{3}-\d{4}"))
    assert await made(choice={"texts": ["yes", "no"]}) in ("yes", "no")
    assert await made(grammar='root ::= "a" | "b"') in ("a", "b")


async def test_a_schema_is_held_in_openais_own_words_too(upstream: VllmServer) -> None:
    """As any upstream is asked; what OpenAI has no words for is refused."""
    async with over(upstream, upstream_api="openai") as stub:
        form = {"json_schema": json.dumps(SCHEMA)}
        answer = await read(stub.Generate(request(chat=CHAT, max_tokens=90, structured_output=form)))
        assert json.loads(text(answer)).keys() == {"name", "age"}
        # Without token ids a delta counts as one token, until the usage tells.
        assert not any(message.token_ids for message in answer)

        with pytest.raises(InvalidArgument, match="structured_output"):
            await read(stub.Generate(request(chat=CHAT, structured_output={"regex": "a+"})))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "A mesh", "structured_output": {"regex": "(["}}, "regex"),
        ({"prompt": "A mesh", "structured_output": {"json_schema": "{"}}, "not JSON"),
        ({"prompt": "A mesh", "sampling": GREEDY, "n": 2}, "greedy"),
    ],
)
async def test_what_the_upstream_refuses_is_told_in_its_words(stub: Stub, fields: dict[str, Any], words: str) -> None:
    """Whether it refuses at once or when it has begun to answer."""
    with pytest.raises(InvalidArgument, match=words):
        await read(stub.Generate(request(**fields)))


async def test_a_prompt_too_long_is_refused_with_the_numbers(stub: Stub) -> None:
    """The upstream stops counting at its bound; the numbers are exact all the same."""
    counted = await stub.CountTokens(generator_pb2.CountTokensRequest(prompt=LICENSE))
    assert counted.tokens > tiny_model.CONTEXT_TOKENS
    with pytest.raises(InvalidArgument) as caught:
        await read(stub.Generate(request(prompt=LICENSE, max_tokens=5)))

    assert caught.value.reason == "PROMPT_TOO_LONG"
    assert caught.value.metadata == {
        "prompt_tokens": str(counted.tokens),
        "max_tokens": "5",
        "max_model_tokens": str(tiny_model.CONTEXT_TOKENS),
    }


async def test_an_answer_may_take_all_the_room_there_is(stub: Stub) -> None:
    """`max_tokens` of 0 means to the end of the context."""
    answer = await read(stub.Generate(request(prompt=LICENSE[:3000], ignore_eos=True, sampling=GREEDY)))

    usage = answer[-1].usage
    assert usage.prompt_tokens + usage.completion_tokens == tiny_model.CONTEXT_TOKENS
    assert answer[-1].finish_reason == generator_pb2.FINISH_REASON_LENGTH


async def test_a_reader_who_leaves_frees_the_upstreams_slot(stub: Stub, upstream: VllmServer) -> None:
    """By cancelling, by its deadline, and by Abort; long before the answer would have ended."""
    long = {"prompt": "A mesh", "max_tokens": 900, "ignore_eos": True}
    call = stub.Generate(request(**long))
    await anext(aiter(call))
    assert await asyncio.to_thread(upstream.running) == 1
    call.cancel()
    freed_s = await idle(upstream)
    print(f"cancel to idle upstream {freed_s * 1000:.0f} ms")
    assert freed_s < 1

    with pytest.raises(Exception, match="DEADLINE_EXCEEDED"):
        await read(stub.Generate(request(**long), timeout=0.3))
    assert await idle(upstream) < 1

    calls = [stub.Generate(request(**long, generation_id=f"g{number}")) for number in range(8)]
    for call in calls:
        await anext(aiter(call))
    for number in range(8):
        assert (await stub.Abort(generator_pb2.AbortRequest(generation_id=f"g{number}"))).aborted
    assert await idle(upstream) < 1
    for call in calls:
        with pytest.raises(Aborted):
            await read(call)
