"""The generator with vLLM on a tiny model: one process, started once for all of these tests."""

import asyncio
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from google.protobuf.json_format import ParseDict

from gateway import prompting
from gateway.answers import Exchange
from gateway.generation import Passage
from meshkit.errors import Aborted, DeadlineExceeded, InvalidArgument
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from tests import tiny_model
from tests.generator_svc.serving import read, request, text
from tests.generator_svc.vllm_process import MAX_RUNNING

# The first test waits for the engine's start, which takes half a minute on a busy machine.
pytestmark = pytest.mark.timeout(240)

Stub: TypeAlias = generator_pb2_grpc.GeneratorServiceStub

GREEDY = {"temperature": 0}
BLOCK_TOKENS = 32
LICENSE = (Path(__file__).parents[2] / "LICENSE").read_text()


async def test_the_model_says_what_it_is(stub: Stub) -> None:
    """A language model run by vLLM, with its context and what it can do."""
    (info,) = (await stub.ListModels(generator_pb2.ListModelsRequest())).models

    assert (info.model, info.engine, info.ready, info.structured_output) == ("tiny", "vllm", True, True)
    assert info.kind == generator_pb2.ENGINE_KIND_LANGUAGE_MODEL
    assert info.max_model_tokens == tiny_model.CONTEXT_TOKENS


async def test_greedy_is_what_transformers_makes(stub: Stub, model: Path) -> None:
    """The likeliest tokens, by two implementations of the model in float32, are the same, for prompts and a chat."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a licence?"}]
    rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    messages = [{"role": f"ROLE_{turn['role'].upper()}", "content": turn["content"]} for turn in chat]
    asked: list[tuple[str, dict[str, Any]]] = [
        *((prompt, {"prompt": prompt}) for prompt in ("A mesh", LICENSE[:300], "Grüße, 世界 🌍")),
        (rendered, {"chat": {"messages": messages}}),
    ]
    for prompt, fields in asked:
        tokens = tokenizer(prompt, return_tensors="pt")
        made = reference.generate(**tokens, max_new_tokens=40, do_sample=False)[0, tokens["input_ids"].shape[1] :]

        answer = await read(stub.Generate(request(max_tokens=40, sampling=GREEDY, **fields)))

        assert [token for message in answer for token in message.token_ids] == made.tolist()


async def test_usage_is_exact_and_a_repeated_prompt_is_cached(stub: Stub) -> None:
    """Prompt tokens are what CountTokens says, completion tokens those that came, cached ones whole blocks."""
    fields = {"prompt": LICENSE[:900], "max_tokens": 7, "sampling": GREEDY, "ignore_eos": True}
    counted = await stub.CountTokens(generator_pb2.CountTokensRequest(prompt=LICENSE[:900]))

    await read(stub.Generate(request(**fields)))
    answer = await read(stub.Generate(request(**fields)))

    usage = answer[-1].usage
    assert usage.prompt_tokens == counted.tokens > 64
    assert usage.completion_tokens == 7 == sum(len(message.token_ids) for message in answer)
    assert 0 < usage.cached_tokens <= counted.tokens
    assert usage.cached_tokens % 32 == 0
    assert answer[-1].finish_reason == generator_pb2.FINISH_REASON_LENGTH
    assert counted.max_model_tokens == tiny_model.CONTEXT_TOKENS


async def test_a_conversation_that_goes_on_is_cached(stub: Stub, model: Path) -> None:
    """Two questions after the same turns share every whole block of what stands before them, as the gateway asks."""
    from transformers import AutoTokenizer

    turns = (Exchange("What is a mesh?", "Services that call each other."), Exchange("And a node?", "A machine of it."))
    chats = [_as_the_gateway_asks(question, turns) for question in ("Who pays for it?", "How many may there be?")]
    tokenizer = AutoTokenizer.from_pretrained(model)
    first, second = [tokenizer.apply_chat_template(chat, return_dict=False) for chat in chats]
    shared = next(place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)

    answers = [
        await read(
            stub.Generate(
                request(
                    chat={"messages": [{**said, "role": f"ROLE_{said['role'].upper()}"} for said in chat]},
                    max_tokens=1,
                    sampling=GREEDY,
                )
            )
        )
        for chat in chats
    ]

    assert answers[1][-1].usage.cached_tokens == shared // BLOCK_TOKENS * BLOCK_TOKENS > 6 * BLOCK_TOKENS


async def test_timings_tell_the_parts_of_the_time(stub: Stub) -> None:
    """The four parts are there, and none is longer than the call."""
    began = time.monotonic()
    answer = await read(stub.Generate(request(prompt="A mesh", max_tokens=20, ignore_eos=True)))
    took_s = time.monotonic() - began

    parts = {timing.stage: timing.duration.ToMicroseconds() / 1e6 for timing in answer[-1].timings.timings}
    assert parts.keys() == {"queue", "prefill", "first_token", "decode"}
    assert all(0 <= seconds < took_s for seconds in parts.values())
    assert parts["first_token"] >= parts["prefill"] > 0
    assert parts["decode"] > parts["queue"]


async def test_tokens_arrive_one_by_one(stub: Stub) -> None:
    """Most messages carry one token, the first arrives long before the last, and no gap is most of the time."""
    began = time.monotonic()
    arrivals: list[tuple[float, int]] = []
    async for message in stub.Generate(request(prompt="A mesh", max_tokens=100, ignore_eos=True)):
        arrivals.append((time.monotonic() - began, len(message.token_ids)))

    first_s, last_s = arrivals[0][0], arrivals[-1][0]
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(arrivals)]
    print(f"first token {first_s * 1000:.0f} ms, {len(arrivals)} messages, {99 / (last_s - first_s):.0f} tokens/s")
    assert sum(count for _, count in arrivals) == 100
    assert sum(count == 1 for _, count in arrivals) > 60
    assert first_s < last_s / 2
    assert max(gaps) < last_s / 2


async def test_a_slow_reader_gets_exactly_the_same_text(stub: Stub) -> None:
    """Tokens that were made meanwhile come joined, none lost and none out of order."""
    fields = {"prompt": "A mesh", "max_tokens": 300, "sampling": GREEDY, "ignore_eos": True}
    prompt = await read(stub.Generate(request(**fields)))
    slow: list[generator_pb2.GenerateResponse] = []
    async for message in stub.Generate(request(**fields)):
        slow.append(message)
        await asyncio.sleep(0.02 if len(slow) < 20 else 0)

    assert text(slow) == text(prompt)
    assert [token for message in slow for token in message.token_ids] == [
        token for message in prompt for token in message.token_ids
    ]


async def test_stop_texts_are_not_part_of_the_answer(stub: Stub) -> None:
    """The answer ends before the stop text, with STOP, and is the unstopped one's beginning."""
    fields = {"prompt": "A mesh", "max_tokens": 60, "sampling": GREEDY, "ignore_eos": True}
    whole = text(await read(stub.Generate(request(**fields))))
    stop = whole[len(whole) // 2 :][:4]

    answer = await read(stub.Generate(request(stop=[stop], **fields)))

    assert text(answer) == whole[: whole.index(stop)]
    assert answer[-1].finish_reason == generator_pb2.FINISH_REASON_STOP


async def test_a_stop_token_ends_the_answer(stub: Stub) -> None:
    """By its id: the tokens are those of the unstopped answer up to it, and its text is not told."""
    fields = {"prompt": "A mesh", "max_tokens": 60, "sampling": GREEDY, "ignore_eos": True}
    whole = [token for message in await read(stub.Generate(request(**fields))) for token in message.token_ids]
    place = next(place for place in range(20, 60) if whole[place] not in whole[:place])

    answer = await read(stub.Generate(request(stop_token_ids=[whole[place]], **fields)))

    assert [token for message in answer for token in message.token_ids] == whole[: place + 1]
    assert answer[-1].finish_reason == generator_pb2.FINISH_REASON_STOP


@pytest.mark.parametrize("characters", [200, 6000])
async def test_a_chat_is_counted_exactly(characters: int, stub: Stub, model: Path) -> None:
    """As the model's tokenizer reads it, whether it is read at once or, being long, in a thread."""
    from transformers import AutoTokenizer

    chat = [{"role": "user", "content": LICENSE[:characters]}]
    tokens = AutoTokenizer.from_pretrained(model).apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    asked = {"chat": {"messages": [{"role": "ROLE_USER", "content": LICENSE[:characters]}]}}

    counted = await stub.CountTokens(ParseDict(asked, generator_pb2.CountTokensRequest()))

    assert counted.tokens == len(tokens)


async def test_a_tools_answer_is_part_of_the_chat(stub: Stub) -> None:
    """With the call that it answers, by every role that there is."""
    messages = [
        {"role": "ROLE_SYSTEM", "content": "Be brief."},
        {"role": "ROLE_USER", "content": "How many?"},
        {"role": "ROLE_ASSISTANT", "content": "Let me count."},
        {"role": "ROLE_TOOL", "content": "12", "tool_call_id": "call-1"},
    ]

    answer = await read(stub.Generate(request(chat={"messages": messages}, max_tokens=1, priority=-5)))

    assert answer[-1].usage.prompt_tokens > 2 * len(messages)


async def test_two_sequences_side_by_side(stub: Stub) -> None:
    """Each of n sequences ends with its own reason; usage comes once, on the last message, for both."""
    answer = await read(stub.Generate(request(prompt="A mesh", max_tokens=12, n=2, ignore_eos=True)))

    assert {message.index for message in answer} == {0, 1}
    assert text(answer, 0) != text(answer, 1)
    assert sorted(message.index for message in answer if message.finish_reason) == [0, 1]
    assert [message.usage.completion_tokens for message in answer if message.HasField("usage")] == [24]
    assert answer[-1].HasField("usage")


async def test_a_seed_repeats_a_draw(stub: Stub) -> None:
    """The same seed draws the same text, another one another; none of them kills the engine."""
    texts = [
        text(
            await read(stub.Generate(request(prompt="A mesh", max_tokens=30, ignore_eos=True, sampling={"seed": seed})))
        )
        for seed in (7, 7, 8)
    ]

    assert texts[0] == texts[1] != texts[2]


async def test_logprobs_of_the_likeliest_tokens(stub: Stub) -> None:
    """Each token has its own probability and the three likeliest, best first; greedy draws the best."""
    answer = await read(stub.Generate(request(prompt="A mesh", max_tokens=5, logprobs=3, sampling=GREEDY)))

    positions = [position for message in answer for position in message.logprobs]
    assert [position.token.token_id for position in positions] == [t for message in answer for t in message.token_ids]
    for position in positions:
        assert len(position.top) == 3
        assert position.top[0] == position.token
        assert 0 >= position.top[0].logprob >= position.top[1].logprob >= position.top[2].logprob


@pytest.mark.parametrize(
    ("fields", "reason", "metadata"),
    [
        ({"prompt": "A", "stop_token_ids": [99999]}, "INVALID_FIELD", {"field": "stop_token_ids"}),
        ({"grounded": {"question": "What?"}}, "UNSUPPORTED_BY_ENGINE", {"option": "grounded"}),
        (
            {"chat": {"messages": [{"role": "ROLE_USER", "content": "A"}], "template_arguments": {"tokenize": True}}},
            "INVALID_FIELD",
            {"field": "chat.template_arguments"},
        ),
        (
            {"prompt": "A", "max_tokens": 1024},
            "PROMPT_TOO_LONG",
            {"prompt_tokens": "1", "max_tokens": "1024", "max_model_tokens": "1024"},
        ),
    ],
)
async def test_bad_requests_say_what_is_wrong(
    stub: Stub, fields: dict[str, Any], reason: str, metadata: dict[str, str]
) -> None:
    """What rules cannot see the engine refuses, by the published reason."""
    with pytest.raises(InvalidArgument) as caught:
        await read(stub.Generate(request(**fields)))

    assert (caught.value.reason, caught.value.metadata) == (reason, metadata)


async def test_a_prompt_that_does_not_fit_is_refused_with_its_length(stub: Stub) -> None:
    """The numbers are exact, for a prompt much longer than the context too."""
    counted = await stub.CountTokens(generator_pb2.CountTokensRequest(prompt=LICENSE))

    with pytest.raises(InvalidArgument) as caught:
        await read(stub.Generate(request(prompt=LICENSE)))

    assert caught.value.reason == "PROMPT_TOO_LONG"
    assert caught.value.metadata["prompt_tokens"] == str(counted.tokens)
    assert counted.tokens > tiny_model.CONTEXT_TOKENS


async def test_a_chat_is_counted_as_it_is_rendered(stub: Stub) -> None:
    """The template's own tokens are part of the count."""
    chat = {"messages": [{"role": "ROLE_USER", "content": "Hello"}]}

    counted = await stub.CountTokens(ParseDict({"chat": chat}, generator_pb2.CountTokensRequest()))
    answer = await read(stub.Generate(request(chat=chat, max_tokens=1)))
    bare = await stub.CountTokens(generator_pb2.CountTokensRequest(prompt="Hello"))

    assert counted.tokens == answer[-1].usage.prompt_tokens == bare.tokens + 3


async def test_a_caller_that_cancels_frees_the_slot(stub: Stub) -> None:
    """With every slot taken, cancelling one call lets the one that waits begin, within a tenth of a second."""
    calls = [stub.Generate(request(prompt="A mesh", ignore_eos=True)) for _ in range(MAX_RUNNING)]
    for call in calls:
        await anext(aiter(call))
    waiting = asyncio.create_task(read(stub.Generate(request(prompt="Next", max_tokens=1))))
    while (await _load(stub)).waiting == 0:
        await asyncio.sleep(0.005)

    assert (await _load(stub)).kv_cache_use > 0
    began = time.monotonic()
    calls[0].cancel()
    await waiting
    freed_s = time.monotonic() - began
    for call in calls:
        call.cancel()
    idle_s = await _until_idle(stub)

    print(
        f"cancel to the next call's first token: {freed_s * 1000:.0f} ms; all cancelled to idle: {idle_s * 1000:.0f} ms"
    )
    assert freed_s < 0.1
    assert idle_s < 0.1


async def test_a_deadline_frees_the_slot(stub: Stub) -> None:
    """The caller's time passes in mid-stream; the engine has nothing left to do then."""
    with pytest.raises(DeadlineExceeded):
        await read(stub.Generate(request(prompt="A mesh", ignore_eos=True), timeout=0.3))

    assert await _until_idle(stub) < 0.1


async def test_abort_by_id_ends_the_stream(stub: Stub) -> None:
    """The id that the first message gave is enough; the reader gets GENERATION_ABORTED and the engine is idle."""
    call = stub.Generate(request(prompt="A mesh", ignore_eos=True))
    first = await anext(aiter(call))

    ended = await stub.Abort(generator_pb2.AbortRequest(generation_id=first.generation_id))

    assert ended.aborted
    with pytest.raises(Aborted, match="GENERATION_ABORTED"):
        await read(call)
    assert await _until_idle(stub) < 0.1


def _as_the_gateway_asks(question: str, turns: tuple[Exchange, ...]) -> list[dict[str, str]]:
    chat = prompting.chat(prompting.Parts(question, (Passage(1, f"About {question}", "", 1.0),), turns))
    return [{"role": message.role, "content": message.content} for message in chat.messages]


async def _load(stub: Stub) -> generator_pb2.GetLoadResponse:
    return await stub.GetLoad(generator_pb2.GetLoadRequest())


async def _until_idle(stub: Stub) -> float:
    """Seconds until nothing runs and the engine itself has given its cache back."""
    began = time.monotonic()
    async with asyncio.timeout(5):
        while (load := await _load(stub)).running or load.kv_cache_use:
            await asyncio.sleep(0.002)
    return time.monotonic() - began
