"""EmbedderService over a real channel, with models small enough to hold still."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from embedder_svc.encoding import Task
from meshkit.channel import peer_errors, streaming
from meshkit.errors import (
    DeadlineExceeded,
    InvalidArgument,
    MeshError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from ragmesh.common.v1 import vector_pb2
from ragmesh.embedder.v1 import embedder_pb2
from tests.embedder_svc.doubles import DIMENSION, LIMITS, MAX_TOKENS, OverlapReranker, WordEncoder
from tests.embedder_svc.serving import connected, embed, served

LONG = " ".join(["word"] * (MAX_TOKENS + 1))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds, for five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def answered(call: Any) -> embedder_pb2.EmbedResponse:
    """The next answer of an EmbedStream."""
    answer = await call.read()
    assert isinstance(answer, embedder_pb2.EmbedStreamResponse)
    return answer.batch


def rows(vectors: vector_pb2.PackedVectors, dtype: str = "<f4") -> np.ndarray:
    """The packed vectors as an array."""
    return np.frombuffer(vectors.data, dtype=dtype).reshape(vectors.count, vectors.dimension)


async def test_embed_answers_in_order_with_lengths_and_times() -> None:
    """Vectors, token counts, the cut texts, the model and the three stages, each in its place."""
    encoder = WordEncoder()
    texts = ["one", LONG, "two words"]
    async with served(encoder) as (stub, _):
        answer = await stub.Embed(embed(texts))
    assert np.allclose(rows(answer.vectors), encoder.encode(texts, Task.DOCUMENT))
    assert answer.vectors.dtype == vector_pb2.DATA_TYPE_FLOAT32
    assert list(answer.token_counts) == [1, MAX_TOKENS, 2]
    assert list(answer.truncated) == [1]
    assert answer.model == "words@r1"
    timings = answer.timings.timings
    assert [timing.stage for timing in timings] == ["tokenize", "queue", "encode"]
    starts = [timing.start.ToMicroseconds() for timing in timings]
    assert starts == sorted(starts)


async def test_the_task_reaches_the_encoder() -> None:
    """Queries and documents are encoded as such; unspecified means documents."""
    encoder = WordEncoder()
    async with served(encoder) as (stub, _):
        for task in ("TASK_TYPE_QUERY", "TASK_TYPE_DOCUMENT", "TASK_TYPE_UNSPECIFIED"):
            await stub.Embed(embed(["text"], task=task))
    assert [task for task, _ in encoder.batches] == [Task.QUERY, Task.DOCUMENT, Task.DOCUMENT]


async def test_vectors_are_packed_and_cut_as_asked() -> None:
    """float16 of 4 dimensions is two bytes a number, of unit length again."""
    async with served(WordEncoder(matryoshka_dimensions=(4, 8))) as (stub, _):
        answer = await stub.Embed(embed(["some text"], dimensions=4, dtype="DATA_TYPE_FLOAT16"))
        same = await stub.Embed(embed(["some text"], dimensions=DIMENSION, dtype="DATA_TYPE_BFLOAT16"))
    assert (answer.vectors.dimension, answer.vectors.count, len(answer.vectors.data)) == (4, 1, 8)
    assert np.allclose(np.linalg.norm(rows(answer.vectors, "<f2").astype("f4"), axis=1), 1, atol=2e-3)
    assert same.vectors.dtype == vector_pb2.DATA_TYPE_BFLOAT16
    assert len(same.vectors.data) == 2 * DIMENSION


async def test_embed_stream_keeps_order_and_answers_each_message() -> None:
    """A sender that waits for each answer before the next message gets it."""
    async with served(WordEncoder()) as (stub, _):
        call = stub.EmbedStream()
        for number in range(4):
            texts = [f"text {number} {place}" for place in range(number + 1)]
            await call.write(embedder_pb2.EmbedStreamRequest(batch=embed(texts)))
            assert (await answered(call)).vectors.count == number + 1
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_a_reader_that_takes_nothing_stops_the_encoding() -> None:
    """What is encoded ahead of a slow reader is bounded, however much was sent."""
    encoder, total = WordEncoder(), 300
    limits = replace(LIMITS, max_batch_tokens=4096, max_batch_items=4096, max_queue_tokens=100_000)
    request = embedder_pb2.EmbedStreamRequest(batch=embed(["a"] * 2048))

    async def requests() -> AsyncIterator[embedder_pb2.EmbedStreamRequest]:
        for _ in range(total):
            yield request

    async with served(encoder, limits=limits) as (stub, _), streaming(stub.EmbedStream(requests())) as call:
        assert (await answered(call)).vectors.count == 2048
        encoded = -1
        async with asyncio.timeout(20):
            while encoded != len(encoder.batches):
                encoded = len(encoder.batches)
                await asyncio.sleep(0.5)
        assert encoded < total / 3
        rest = [await answered(call) for _ in range(total - 1)]
    assert all(answer.vectors.count == 2048 for answer in rest)


async def test_a_bad_message_ends_the_stream_after_the_answers_before_it() -> None:
    """The good batch is answered, the bad one named."""
    async with served(WordEncoder()) as (stub, _), streaming(stub.EmbedStream()) as call:
        await call.write(embedder_pb2.EmbedStreamRequest(batch=embed(["good"])))
        await call.write(embedder_pb2.EmbedStreamRequest(batch=embed([])))
        assert (await answered(call)).vectors.count == 1
        with pytest.raises(InvalidArgument) as refusal, peer_errors():
            await call.read()
    assert [violation.field for violation in refusal.value.violations] == ["batch.texts"]


async def test_a_stream_that_is_left_frees_what_it_held() -> None:
    """Nothing of it waits any more, and what was not begun is not encoded."""
    encoder = WordEncoder()
    encoder.gate.clear()
    async with served(encoder) as (stub, embedder):
        async with streaming(stub.EmbedStream()) as call:
            for text in ("first", "second"):
                await call.write(embedder_pb2.EmbedStreamRequest(batch=embed([text])))
            await until(lambda: embedder.load.waiting == 1)
        await until(lambda: embedder.load.running + embedder.load.waiting == 0)
        encoder.gate.set()
        await stub.Embed(embed(["later"]))
    assert encoder.encoded == ["first", "later"]


async def test_rerank_orders_best_first() -> None:
    """Equal scores keep the order of the request, and top_n cuts."""
    texts = ["nothing here", "red apple", "green apple", "red green apple"]
    request = embedder_pb2.RerankRequest(query="red apple", texts=texts)
    async with served(WordEncoder(), OverlapReranker()) as (stub, _):
        whole = await stub.Rerank(request)
        request.top_n = 2
        best = await stub.Rerank(request)
    assert [ranked.index for ranked in whole.ranked] == [1, 3, 2, 0]
    assert whole.ranked[0].score == 1.0
    assert [ranked.index for ranked in best.ranked] == [1, 3]
    assert best.model == "overlap@r1"


async def test_tokenize_counts_bytes() -> None:
    """The double's tokens are characters, so the ends are those of the characters in UTF-8."""
    async with served(WordEncoder()) as (stub, _):
        answer = await stub.Tokenize(embedder_pb2.TokenizeRequest(texts=["aü世", "", "😀"]))
    assert [list(text.ends) for text in answer.texts] == [[1, 3, 6], [], [4]]


async def test_get_info_describes_what_is_served() -> None:
    """The encoder first, the reranker where there is one, one of them by name."""
    async with served(WordEncoder((4, 8)), OverlapReranker()) as (stub, _):
        both = (await stub.GetInfo(embedder_pb2.GetInfoRequest())).models
        one = (await stub.GetInfo(embedder_pb2.GetInfoRequest(model="overlap"))).models
    assert [info.model for info in both] == ["words", "overlap"]
    assert (both[0].dimension, both[0].max_tokens, both[0].normalized) == (DIMENSION, MAX_TOKENS, True)
    assert list(both[0].matryoshka_dimensions) == [4, 8]
    assert all(info.ready for info in both)
    assert list(one) == [both[1]]
    assert one[0].kind == embedder_pb2.EncoderInfo.KIND_RERANKER


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
