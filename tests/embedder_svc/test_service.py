"""EmbedderService over a real channel, with models small enough to hold still."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from embedder_svc.encoding import Task
from meshkit.channel import peer_errors, streaming
from meshkit.errors import (
    InvalidArgument,
)
from ragmesh.common.v1 import vector_pb2
from ragmesh.embedder.v1 import embedder_pb2
from tests.embedder_svc.doubles import DIMENSION, LIMITS, MAX_TOKENS, OverlapReranker, WordEncoder
from tests.embedder_svc.serving import embed, served, until

LONG = " ".join(["word"] * (MAX_TOKENS + 1))


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
