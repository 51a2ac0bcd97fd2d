"""EmbedderService over a real channel: what is refused, what fails and what is left."""

import asyncio
from typing import Any

import pytest

from meshkit.channel import peer_errors
from meshkit.errors import (
    DeadlineExceeded,
    InvalidArgument,
    MeshError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from ragmesh.embedder.v1 import embedder_pb2
from tests.embedder_svc.doubles import LIMITS, OverlapReranker, WordEncoder
from tests.embedder_svc.serving import connected, embed, served, until


async def test_a_call_cancelled_in_the_queue_is_never_encoded() -> None:
    """Its texts are skipped, and those who wait behind it are answered."""
    encoder = WordEncoder()
    encoder.gate.clear()
    async with served(encoder) as (stub, embedder):
        running = stub.Embed(embed(["running"]))
        await until(lambda: encoder.encoded == ["running"])
        leaver = stub.Embed(embed(["leaver"]))
        await until(lambda: embedder.load.waiting == 1)
        leaver.cancel()
        await until(lambda: embedder.load.waiting == 0)
        stayer = stub.Embed(embed(["stayer"]))
        await until(lambda: embedder.load.waiting == 1)
        encoder.gate.set()
        await asyncio.gather(running, stayer)
    assert encoder.encoded == ["running", "stayer"]


async def test_a_deadline_ends_the_wait_and_frees_the_place() -> None:
    """The caller gets DEADLINE_EXCEEDED while the encoder is still busy with others."""
    encoder = WordEncoder()
    encoder.gate.clear()
    async with served(encoder) as (stub, embedder):
        running = stub.Embed(embed(["running"]))
        await until(lambda: encoder.encoded == ["running"])
        with pytest.raises(DeadlineExceeded), peer_errors():
            await stub.Embed(embed(["late"]), timeout=0.2)
        await until(lambda: embedder.load.waiting == 0)
        encoder.gate.set()
        await running
    assert encoder.encoded == ["running"]


async def test_a_full_queue_refuses_with_retry_info() -> None:
    """The refused caller learns when to come back; the others are answered."""
    encoder = WordEncoder()
    encoder.gate.clear()
    full = embed([f"{place} " + "w " * 19 for place in range(49)])
    async with served(encoder) as (stub, embedder):
        running = stub.Embed(embed(["running"]))
        await until(lambda: encoder.encoded == ["running"])
        waiting = stub.Embed(full)
        await until(lambda: embedder.load.waiting == 1)
        with pytest.raises(ResourceExhausted) as refusal, peer_errors():
            await stub.Embed(full)
        encoder.gate.set()
        await asyncio.gather(running, waiting)
    assert refusal.value.reason == "OVERLOADED"
    assert refusal.value.retry_after_s == LIMITS.retry_after_s
    assert refusal.value.metadata == {"waiting_tokens": "980", "limit": "1000"}


async def test_what_the_encoder_raises_reaches_the_caller_as_it_is() -> None:
    """A device that fails is UNAVAILABLE with a reason, and the service goes on."""
    encoder = WordEncoder()
    encoder.failure = Unavailable("ENGINE_UNAVAILABLE", "the model's device failed")
    async with served(encoder) as (stub, _):
        with pytest.raises(Unavailable, match="ENGINE_UNAVAILABLE"), peer_errors():
            await stub.Embed(embed(["text"]))
        encoder.failure = None
        assert (await stub.Embed(embed(["text"]))).vectors.count == 1


_BAD: dict[str, tuple[str, Any, type[MeshError], str, str]] = {
    "no-texts": ("Embed", embed([]), InvalidArgument, "INVALID_FIELD", "texts"),
    "empty-text": ("Embed", embed(["a", ""]), InvalidArgument, "INVALID_FIELD", "texts[1]"),
    "too-many-texts": ("Embed", embed(["a"] * 2049), InvalidArgument, "INVALID_FIELD", "texts"),
    "too-long-text": ("Embed", embed(["a" * 1048577]), InvalidArgument, "INVALID_FIELD", "texts[0]"),
    "unknown-task": (
        "Embed",
        embed(["a"], task=9),
        InvalidArgument,
        "INVALID_FIELD",
        "task",
    ),
    "unknown-dtype": (
        "Embed",
        embed(["a"], dtype=9),
        InvalidArgument,
        "INVALID_FIELD",
        "dtype",
    ),
    "negative-dimensions": (
        "Embed",
        embed(["a"], dimensions=-1),
        InvalidArgument,
        "INVALID_FIELD",
        "dimensions",
    ),
    "dimensions-not-offered": (
        "Embed",
        embed(["a"], dimensions=5),
        InvalidArgument,
        "INVALID_FIELD",
        "dimensions",
    ),
    "unknown-encoder": ("Embed", embed(["a"], model="other"), NotFound, "MODEL_NOT_FOUND", ""),
    "reranker-as-encoder": ("Embed", embed(["a"], model="overlap"), NotFound, "MODEL_NOT_FOUND", ""),
    "no-query": (
        "Rerank",
        embedder_pb2.RerankRequest(texts=["a"]),
        InvalidArgument,
        "INVALID_FIELD",
        "query",
    ),
    "nothing-to-rank": (
        "Rerank",
        embedder_pb2.RerankRequest(query="a"),
        InvalidArgument,
        "INVALID_FIELD",
        "texts",
    ),
    "negative-top-n": (
        "Rerank",
        embedder_pb2.RerankRequest(query="a", texts=["a"], top_n=-1),
        InvalidArgument,
        "INVALID_FIELD",
        "top_n",
    ),
    "encoder-as-reranker": (
        "Rerank",
        embedder_pb2.RerankRequest(model="words", query="a", texts=["a"]),
        NotFound,
        "MODEL_NOT_FOUND",
        "",
    ),
    "nothing-to-tokenize": (
        "Tokenize",
        embedder_pb2.TokenizeRequest(),
        InvalidArgument,
        "INVALID_FIELD",
        "texts",
    ),
    "tokenizer-unknown": (
        "Tokenize",
        embedder_pb2.TokenizeRequest(model="x", texts=["a"]),
        NotFound,
        "MODEL_NOT_FOUND",
        "",
    ),
    "info-unknown": ("GetInfo", embedder_pb2.GetInfoRequest(model="x"), NotFound, "MODEL_NOT_FOUND", ""),
}


@pytest.mark.parametrize("case", _BAD)
async def test_bad_input_is_named(case: str) -> None:
    """Each bad request gets its status, its reason and, where a field is at fault, the field."""
    method, request, error, reason, field = _BAD[case]
    async with served(WordEncoder(), OverlapReranker()) as (stub, _):
        with pytest.raises(error) as refusal, peer_errors():
            await getattr(stub, method)(request)
    assert refusal.value.reason == reason
    assert [violation.field for violation in refusal.value.violations] == ([field] if field else [])


async def test_without_a_reranker_rerank_names_the_missing_model() -> None:
    """MODEL_NOT_FOUND, as the contract says."""
    async with served(WordEncoder()) as (stub, _):
        with pytest.raises(NotFound) as refusal, peer_errors():
            await stub.Rerank(embedder_pb2.RerankRequest(query="a", texts=["b"]))
    assert refusal.value.reason == "MODEL_NOT_FOUND"


@pytest.mark.parametrize("method", ["Embed", "Rerank", "Tokenize"])
async def test_text_that_is_not_utf8_is_malformed(method: str) -> None:
    """Bytes that no client of ours would send: a string field with half a character in it."""
    number = {"Embed": 2, "Rerank": 3, "Tokenize": 2}[method]
    data = bytes([number << 3 | 2, 1, 0xE4])
    async with connected(WordEncoder(), OverlapReranker()) as (channel, _):
        call: Any = channel.unary_unary(f"/ragmesh.embedder.v1.EmbedderService/{method}")
        with pytest.raises(InvalidArgument) as refusal, peer_errors():
            await call(data)
    assert refusal.value.reason == "MALFORMED_MESSAGE"
