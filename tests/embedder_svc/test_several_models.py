"""Several models in one server: named in the settings, asked for by name, each behind a queue of its own."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from embedder_svc.app import SERVICE, make_app, open_app
from embedder_svc.batching import open_device
from embedder_svc.embedding import open_embedder
from embedder_svc.encoding import LoadError
from embedder_svc.settings import Settings
from meshkit.channel import peer_errors
from meshkit.errors import NotFound
from meshkit.testing import connect, serve
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from tests.embedder_svc.doubles import LIMITS, WordEncoder
from tests.embedder_svc.serving import ALICE, embed, until
from tests.embedder_svc.test_service import rows

BUNDLED = "all-MiniLM-L6-v2"
INFO = embedder_pb2.GetInfoRequest()


@asynccontextmanager
async def serving(*encoders: WordEncoder) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of these encoders."""
    async with AsyncExitStack() as stack:
        device = stack.enter_context(open_device("test"))
        embedders = {}
        for encoder in encoders:
            opening = open_embedder(encoder, LIMITS, device, tokenize_threads=1)
            embedders[encoder.card.name] = await stack.enter_async_context(opening)
        address = await stack.enter_async_context(serve(make_app(embedders, {}, Settings())))
        yield await stack.enter_async_context(connect(address, ALICE))


async def test_a_request_names_its_model() -> None:
    """The first is that of requests that name none; each call and message has its own."""
    small, large = WordEncoder(name="small"), WordEncoder(name="large")
    async with serving(small, large) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        models = [(await stub.Embed(embed(["a"], model=model))).model for model in ("", "small", "large")]
        call = stub.EmbedStream()
        for model in ("large", "small"):
            await call.write(embedder_pb2.EmbedStreamRequest(batch=embed(["b"], model=model)))
        await call.done_writing()
        streamed = [answer.batch.model async for answer in call]
        info = await stub.GetInfo(INFO)
        with pytest.raises(NotFound, match="MODEL_NOT_FOUND"), peer_errors():
            await stub.Embed(embed(["a"], model="other"))
    assert models == ["small@r1", "small@r1", "large@r1"]
    assert streamed == ["large@r1", "small@r1"]
    assert (small.encoded, large.encoded) == (["a", "a", "b"], ["a", "b"])
    assert [(model.model, model.ready, model.sparse) for model in info.models] == [
        ("small", True, False),
        ("large", True, False),
    ]


async def test_sparse_vectors_are_not_made_up() -> None:
    """Asked for of an encoder that makes none, the answer holds none, as the contract says."""
    async with serving(WordEncoder()) as channel:
        answer = await embedder_pb2_grpc.EmbedderServiceStub(channel).Embed(embed(["a"], sparse=True))
    assert len(answer.sparse) == 0
    assert answer.vectors.count == 1


async def test_one_models_full_queue_is_not_anothers() -> None:
    """What waits for one is not counted for the other."""
    small, large = WordEncoder(name="small"), WordEncoder(name="large")
    small.gate.clear()
    async with serving(small, large) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        held: list[Any] = [stub.Embed(embed(["running"]))]
        await until(lambda: small.encoded == ["running"])
        held.append(stub.Embed(embed([f"{place} " + "w " * 19 for place in range(50)])))
        held.append(stub.Embed(embed(["other"], model="large")))
        small.gate.set()
        assert [(await call).vectors.count for call in held] == [1, 50, 1]


def several(*models: dict[str, Any]) -> Settings:
    """Settings that serve these models on the CPU."""
    return Settings.model_validate({"device": "cpu", "models": models})


async def test_models_of_the_settings_are_served() -> None:
    """One library's model twice, with another prompt and limit: other tokens, other vectors, one health."""
    settings = several(
        {"model": BUNDLED}, {"model": BUNDLED, "name": "prompted", "query_prompt": "query: ", "max_tokens": 16}
    )
    query: dict[str, Any] = {"texts": ["cat"], "task": "TASK_TYPE_QUERY"}
    async with open_app(settings) as app, serve(app) as address, connect(address, ALICE) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        info = await stub.GetInfo(INFO)
        plain, prompted = [await stub.Embed(embed(**query, model=name)) for name in (BUNDLED, "prompted")]
        checked = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert [(model.model, model.max_tokens, model.ready) for model in info.models] == [
        (BUNDLED, 256, True),
        ("prompted", 16, True),
    ]
    assert [list(answer.token_counts) for answer in (plain, prompted)] == [[3], [5]]
    assert not np.allclose(rows(plain.vectors), rows(prompted.vectors), atol=1e-2)
    assert checked.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_model_that_cannot_be_loaded_stops_the_start(tmp_path: Path) -> None:
    """By its name, though the one before it is fine."""
    settings = several({"model": BUNDLED}, {"model": str(tmp_path / "missing"), "kind": "reranker"})
    with pytest.raises(LoadError, match="missing"):
        async with open_app(settings):
            pytest.fail("the app opened")


def test_models_are_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with what it overrides; the rest is unset."""
    models = [{"model": "a/b", "dtype": "float16"}, {"model": "c", "kind": "reranker", "name": "d"}]
    monkeypatch.setenv("RAGMESH_EMBEDDER_MODELS", json.dumps(models))
    served = Settings().served
    assert [(model.shown_name, model.kind, model.dtype, model.device) for model in served] == [
        ("a/b", "encoder", "float16", None),
        ("d", "reranker", None, None),
    ]


def test_one_model_needs_no_list() -> None:
    """The simple settings make the same of one encoder and one reranker."""
    served = Settings(model="a", query_prompt="q: ", reranker_model="b", reranker_model_name="c").served
    assert [(model.shown_name, model.kind, model.query_prompt) for model in served] == [
        ("a", "encoder", "q: "),
        ("c", "reranker", None),
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"models": [{"model": "a"}], "model_name": "b"}, "MODELS stands in place of MODEL_NAME"),
        ({"models": [{"model": "a"}, {"model": "b", "name": "a", "kind": "reranker"}]}, "two models have one name"),
        ({"models": [{"model": "a", "kind": "other"}]}, "encoder"),
        ({"models": [{"model": "a", "prompt": "b"}]}, "prompt"),
        ({"models": [{"name": "a"}]}, "model"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], words: str) -> None:
    """With words that say what is wrong."""
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate(settings)
