"""The generator over a real channel."""

import asyncio
import time
from dataclasses import replace
from itertools import pairwise

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from generator_svc.extractive_engine import ExtractiveEngine
from meshkit.channel import peer_errors
from meshkit.errors import (
    Aborted,
    DeadlineExceeded,
    InvalidArgument,
    MeshError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from meshkit.health import peer_serves
from ragmesh.generator.v1 import generator_pb2
from ragmesh.generator.v1.generator_pb2_grpc import GeneratorServiceStub as Stub
from tests.generator_svc.doubles import PacedEngine
from tests.generator_svc.serving import MALLORY, called, calling, read, request, served, text

GROUNDED = {
    "question": "How many days of paid leave does an employee have?",
    "passages": [
        {"number": 1, "text": "Every employee has thirty days of paid leave a year.", "title": "Leave", "score": 0.8},
        {"number": 2, "text": "Train journeys are booked in second class.", "title": "Travel", "score": 0.1},
    ],
}


def _extractive() -> ExtractiveEngine:
    return ExtractiveEngine("extractive", min_support=0.25)


async def test_a_grounded_question_streams_quotes() -> None:
    """The first message names generation and model, the last one has finish, usage and timings; none between has."""
    async with called(_extractive()) as stub:
        messages = await read(stub.Generate(request(grounded=GROUNDED, generation_id="mine")))

    first, *_, last = messages
    assert text(messages) == "Every employee has thirty days of paid leave a year. [1]"
    assert (first.generation_id, first.model) == ("mine", "extractive")
    assert last.finish_reason == generator_pb2.FINISH_REASON_STOP
    assert last.usage.completion_tokens == 11
    assert [timing.stage for timing in last.timings.timings] == ["queue", "prefill", "first_token", "decode"]
    assert not any(message.HasField("usage") or message.finish_reason for message in messages[:-1])
    assert not any(message.generation_id for message in messages[1:])


async def test_it_abstains_as_data() -> None:
    """A question without an answer ends with FINISH_REASON_ABSTAINED and no text; an id was made for it."""
    async with called(_extractive()) as stub:
        (only,) = await read(stub.Generate(request(grounded={**GROUNDED, "question": "Who painted the Mona Lisa?"})))

    assert (only.text, only.finish_reason) == ("", generator_pb2.FINISH_REASON_ABSTAINED)
    assert only.generation_id


async def test_models_are_listed_honestly() -> None:
    """The extractive engine is no language model, and says so."""
    async with called(_extractive()) as stub:
        (model,) = (await stub.ListModels(generator_pb2.ListModelsRequest())).models

    assert (model.model, model.engine, model.ready) == ("extractive", "extractive", True)
    assert model.kind == generator_pb2.ENGINE_KIND_EXTRACTIVE
    assert "No language model" in model.description


async def test_a_models_adapters_are_listed_and_passed_on() -> None:
    """What the engine's card names is listed; the name of a request reaches the engine."""
    engine = PacedEngine()
    engine.card = replace(engine.card, lora_adapters=("contracts", "support"))
    async with called(engine) as stub:
        (model,) = (await stub.ListModels(generator_pb2.ListModelsRequest())).models
        await read(stub.Generate(request(prompt="Go", max_tokens=1, lora_adapter="support")))

    assert model.lora_adapters == ["contracts", "support"]
    assert [asked.lora_adapter for asked in engine.asked] == ["support"]


@pytest.mark.parametrize(
    ("fields", "kind", "reason", "metadata"),
    [
        ({"model": "llama-4", "prompt": "Go"}, NotFound, "MODEL_NOT_FOUND", {"model": "llama-4"}),
        ({"prompt": "Go"}, InvalidArgument, "UNSUPPORTED_BY_ENGINE", {"option": "prompt"}),
        ({"grounded": GROUNDED, "lora_adapter": "x"}, InvalidArgument, "UNSUPPORTED_BY_ENGINE",
         {"option": "lora_adapter"}),
        ({"grounded": GROUNDED, "n": 2}, InvalidArgument, "UNSUPPORTED_BY_ENGINE", {"option": "n"}),
        ({"prompt": "Go", "structured_output": {"json_object": False}}, InvalidArgument, "INVALID_FIELD",
         {"field": "structured_output.json_object"}),
        ({"prompt": "Go", "structured_output": {"regex": ""}}, InvalidArgument, "INVALID_FIELD",
         {"field": "structured_output.regex"}),
        ({}, InvalidArgument, "INVALID_FIELD", {"field": "input"}),
        ({"prompt": ""}, InvalidArgument, "INVALID_FIELD", {"field": "prompt"}),
        ({"prompt": "Go", "max_tokens": -1}, InvalidArgument, "INVALID_FIELD", {"field": "max_tokens"}),
        ({"prompt": "Go", "sampling": {"temperature": -1}}, InvalidArgument, "INVALID_FIELD",
         {"field": "sampling.temperature"}),
        ({"prompt": "Go", "sampling": {"top_p": "NaN"}}, InvalidArgument, "INVALID_FIELD", {"field": "sampling.top_p"}),
        ({"chat": {"messages": [{"content": "Go"}]}}, InvalidArgument, "INVALID_FIELD",
         {"field": "chat.messages[0].role"}),
    ],
)  # fmt: skip
async def test_bad_requests_say_what_is_wrong(
    fields: dict[str, object], kind: type[MeshError], reason: str, metadata: dict[str, str]
) -> None:
    """Each has its status, its reason and the field or option at fault."""
    async with called(_extractive()) as stub:
        with pytest.raises(kind) as caught:
            await read(stub.Generate(request(**fields)))

    assert (caught.value.reason, caught.value.metadata) == (reason, metadata)


async def test_counting_tokens_is_refused_where_there_are_none() -> None:
    """The extractive engine cannot count, and says so."""
    async with called(_extractive()) as stub:
        with pytest.raises(InvalidArgument, match="UNSUPPORTED_BY_ENGINE"), peer_errors():
            await stub.CountTokens(generator_pb2.CountTokensRequest(prompt="Go"))
        with pytest.raises(NotFound, match="MODEL_NOT_FOUND"), peer_errors():
            await stub.CountTokens(generator_pb2.CountTokensRequest(prompt="Go", model="other"))


async def test_deltas_arrive_as_they_are_made() -> None:
    """Each of twenty words arrives about when the engine wrote it, not all at the end."""
    async with called(PacedEngine(pause_s=0.02)) as stub:
        arrivals = [time.monotonic() async for _ in stub.Generate(request(prompt="Go", max_tokens=20))]

    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert len(arrivals) == 20
    assert sum(gap > 0.01 for gap in gaps) >= 15


async def test_a_caller_that_cancels_frees_the_slot() -> None:
    """The engine's stream is closed within milliseconds of the caller's cancel."""
    engine = PacedEngine()
    async with called(engine) as stub:
        call = stub.Generate(request(prompt="Go", max_tokens=1000))
        await anext(aiter(call))
        call.cancel()
        freed_s = await _until_free(engine)

    print(f"cancel to slot free: {freed_s * 1000:.1f} ms")
    assert freed_s < 0.1


async def test_a_deadline_frees_the_slot() -> None:
    """The caller gets DEADLINE_EXCEEDED when its time is up, and the engine stops then."""
    engine = PacedEngine()
    async with called(engine) as stub:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await read(stub.Generate(request(prompt="Go", max_tokens=1000), timeout=0.2))
        assert time.monotonic() - began < 0.4
        assert await _until_free(engine) < 0.1


async def test_abort_is_the_tenants_own_and_can_be_repeated() -> None:
    """Another tenant's Abort finds nothing; the owner's ends the stream; a second one is answered alike."""
    engine = PacedEngine()
    abort = generator_pb2.AbortRequest(generation_id="mine")
    async with served(engine) as address, calling(address) as alice, calling(address, MALLORY) as mallory:
        call = alice.Generate(request(prompt="Go", max_tokens=1000, generation_id="mine"))
        await anext(aiter(call))
        assert not (await mallory.Abort(abort)).aborted
        assert engine.running == {"acme/mine"}
        assert (await alice.Abort(abort)).aborted
        with pytest.raises(Aborted, match="GENERATION_ABORTED"):
            await read(call)
        assert not (await alice.Abort(abort)).aborted

    assert not engine.running


async def test_more_than_the_limits_is_refused_with_a_time() -> None:
    """What does not fit gets OVERLOADED at once, with the queue's state; the load tells what runs and waits."""
    async with called(PacedEngine(), max_running=1, max_waiting=1, queue_retry_after_s=2.5) as stub:
        running = stub.Generate(request(prompt="Go", max_tokens=100))
        await anext(aiter(running))
        waiting = stub.Generate(request(prompt="Go", max_tokens=100))
        load = await _load_when(stub, waiting=1)
        with pytest.raises(ResourceExhausted) as caught:
            await read(stub.Generate(request(prompt="Go", max_tokens=1)))
        running.cancel()
        waiting.cancel()

    assert (load.running, load.waiting, load.limit, load.kv_cache_use) == (1, 1, 1, 0.25)
    assert 150 < load.outstanding_tokens < 200
    assert caught.value.reason == "OVERLOADED"
    assert caught.value.retry_after_s
    assert 2.5 <= caught.value.retry_after_s <= 60


async def test_an_engine_that_dies_ends_its_streams_and_is_not_ready() -> None:
    """Its stream ends with ENGINE_UNAVAILABLE, health and the list of models say so, and the server lives on."""
    engine = PacedEngine()
    async with served(engine, probe_interval_s=0.05) as address, calling(address) as stub:
        call = stub.Generate(request(prompt="Go", max_tokens=1000))
        await anext(aiter(call))
        engine.alive = False
        with pytest.raises(Unavailable, match="ENGINE_UNAVAILABLE"):
            await read(call)
        (model,) = (await stub.ListModels(generator_pb2.ListModelsRequest())).models
        async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(5):
            while await peer_serves(channel, "ragmesh.generator.v1.GeneratorService"):
                await asyncio.sleep(0.01)

    assert not model.ready


async def test_a_slow_reader_loses_nothing() -> None:
    """Words that were made while the reader slept all arrive, in order."""
    async with called(PacedEngine(pause_s=0.001)) as stub:
        call = stub.Generate(request(prompt="Go", max_tokens=200))
        first = await anext(aiter(call))
        await asyncio.sleep(0.4)
        rest = await read(call)

    assert text([first, *rest]) == "".join(f"{number} " for number in range(200))


async def test_calls_without_an_identity_are_refused() -> None:
    """Nobody vouches for the caller, so nothing is generated."""
    async with served(PacedEngine()) as address, grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/ragmesh.generator.v1.GeneratorService/Abort",
            generator_pb2.AbortRequest.SerializeToString,
            generator_pb2.AbortResponse.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(ParseDict({"generation_id": "mine"}, generator_pb2.AbortRequest()), timeout=5)

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def _until_free(engine: PacedEngine) -> float:
    """Seconds until no stream of the engine is open."""
    began = time.monotonic()
    async with asyncio.timeout(5):
        while engine.running:
            await asyncio.sleep(0.001)
    return time.monotonic() - began


async def _load_when(stub: Stub, waiting: int) -> generator_pb2.GetLoadResponse:
    """The load as soon as so many wait."""
    async with asyncio.timeout(5):
        while (load := await stub.GetLoad(generator_pb2.GetLoadRequest())).waiting != waiting:
            await asyncio.sleep(0.001)
    return load
