"""What an OpenAI-compatible upstream is asked and what it refuses, in its words and in ours."""

import logging
from typing import Any

import pytest

from generator_svc.engine import Form, Grounded, Prompt, Request, Sampling
from meshkit.errors import InvalidArgument, MeshError, ResourceExhausted, Unavailable
from tests.generator_svc.scripted_upstream import MODEL, scripted_upstream, word
from tests.generator_svc.upstream_engine import CHAT, KEY, REFUSED, engine_for, engine_over, read, refusing, saying


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, InvalidArgument, "INVALID_FIELD"),
        (422, InvalidArgument, "INVALID_FIELD"),
        (401, Unavailable, "ENGINE_UNAVAILABLE"),
        (403, Unavailable, "ENGINE_UNAVAILABLE"),
        (404, Unavailable, "ENGINE_UNAVAILABLE"),
        (307, Unavailable, "ENGINE_UNAVAILABLE"),
        (429, ResourceExhausted, "OVERLOADED"),
        (500, Unavailable, "ENGINE_UNAVAILABLE"),
        (503, Unavailable, "ENGINE_UNAVAILABLE"),
    ],
)
async def test_a_refusal_has_a_published_reason_and_never_the_key(
    status: int, kind: type[MeshError], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the error nor the log has the key, though the upstream repeats it."""
    async with engine_over(refusing(status, REFUSED)) as engine:
        with caplog.at_level(logging.INFO), pytest.raises(kind) as caught:
            await read(engine)
    assert caught.value.reason == reason
    assert KEY not in f"{caught.value}{caught.value.metadata}{caplog.text}{engine._options}"


async def test_an_overloaded_upstream_says_when_to_come_back() -> None:
    """Its Retry-After is ours."""
    async with engine_over(refusing(429, REFUSED, retry_after="7")) as engine:
        with pytest.raises(ResourceExhausted) as caught:
            await read(engine)
    assert caught.value.retry_after_s == 7


async def test_an_error_at_the_start_of_a_stream_is_mapped_as_its_status_would_be() -> None:
    """VLLM finds some requests wrong only when it has answered 200."""
    wrong = {"message": "bad regex", "type": "BadRequestError", "param": None, "code": 400}
    async with engine_over(saying({"error": wrong})) as engine:
        with pytest.raises(InvalidArgument, match="bad regex"):
            await read(engine)


async def test_what_is_asked_reaches_the_upstream_in_its_own_words() -> None:
    """Nothing that was not asked for is sent, but for the usage; the key goes as a bearer's."""
    async with scripted_upstream(saying(word("a", "stop"))) as upstream, engine_for(upstream.url) as engine:
        await read(engine)
        assert upstream.asked[0].headers["authorization"] == f"Bearer {KEY}"
        assert upstream.asked[0].path == "/v1/chat/completions"
        assert upstream.asked[0].body == {
            "model": MODEL,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        }

        sampling = Sampling(temperature=0.0, top_k=3, seed=4)
        schema = Form(json_schema='{"type": "object"}')
        await read(engine, sampling=sampling, max_tokens=9, stop=("x",), n=1, logprobs=2, form=schema)
        body = upstream.asked[1].body
    assert {"temperature": 0.0, "top_k": 3, "seed": 4, "max_tokens": 9, "stop": ["x"]}.items() <= body.items()
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({"input": Grounded("Why?", [])}, "grounded"),
        ({"form": Form(regex="a+")}, "structured_output"),
        ({"form": Form(choice=("a", "b"))}, "structured_output"),
        ({"lora_adapter": "french"}, "lora_adapter"),
    ],
)
async def test_what_the_upstream_has_no_words_for_is_refused_before_it_is_asked(
    fields: dict[str, Any], option: str
) -> None:
    """By the name of the option."""
    async with engine_over(saying(word("a", "stop"))) as engine:
        with pytest.raises(InvalidArgument) as caught:
            await engine.prepare(Request(**{"id": "one", "input": CHAT, **fields}))
    assert (caught.value.reason, caught.value.metadata["option"]) == ("UNSUPPORTED_BY_ENGINE", option)


@pytest.mark.parametrize(
    ("status", "words", "fields", "option"),
    [
        (400, "Unrecognized request argument supplied: top_k", {"sampling": Sampling(top_k=3)}, "sampling.top_k"),
        (400, "'response_format' is not supported with this model.", {}, "structured_output"),
        (404, "no such path", {"input": Prompt("A mesh")}, "prompt"),
    ],
)
async def test_what_the_upstream_does_not_know_is_unsupported(
    status: int, words: str, fields: dict[str, Any], option: str
) -> None:
    """By our name of it."""
    async with engine_over(refusing(status, {"error": {"message": words}})) as engine:
        with pytest.raises(InvalidArgument) as caught:
            await read(engine, **fields)
    assert (caught.value.reason, caught.value.metadata["option"]) == ("UNSUPPORTED_BY_ENGINE", option)


@pytest.mark.parametrize(
    ("error", "numbers"),
    [
        (
            {
                "message": "This model's maximum context length is 4097 tokens. However, your messages resulted in "
                "5000 tokens.",
                "code": "context_length_exceeded",
            },
            {"max_model_tokens": "4097", "prompt_tokens": "5000"},
        ),
        (
            {
                "message": "the request exceeds the available context size",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 5000,
                "n_ctx": 4096,
            },
            {"max_model_tokens": "4096", "prompt_tokens": "5000"},
        ),
        ({"message": "input is longer than the context window"}, {}),
    ],
    ids=["openai", "llama.cpp", "no-numbers"],
)
async def test_a_prompt_too_long_is_told_with_the_numbers_there_are(
    error: dict[str, Any], numbers: dict[str, str]
) -> None:
    """Each upstream puts it in its own way."""
    async with engine_over(refusing(400, {"error": error})) as engine:
        with pytest.raises(InvalidArgument) as caught:
            await read(engine)
    assert (caught.value.reason, caught.value.metadata) == ("PROMPT_TOO_LONG", numbers)


async def test_a_prompt_without_a_length_may_fill_the_context() -> None:
    """Left out, the length of a completion is 16 for OpenAI and vLLM alike; a chat's is what fits."""
    async with scripted_upstream(saying(word("a", "stop"))) as upstream:
        upstream.models = [{"id": MODEL, "owned_by": "vllm", "max_model_len": 4096}]
        async with engine_for(upstream.url, upstream_max_tokens_field="max_completion_tokens") as engine:
            for given in (Prompt("A mesh"), CHAT):
                for max_tokens in (0, 9):
                    await read(engine, input=given, max_tokens=max_tokens)
        lengths = [
            {name: value for name, value in exchange.body.items() if "tokens" in name} for exchange in upstream.asked
        ]
    assert lengths == [{"max_tokens": 4096}, {"max_tokens": 9}, {}, {"max_completion_tokens": 9}]
