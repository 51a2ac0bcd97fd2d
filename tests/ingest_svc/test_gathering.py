"""Texts of many documents encoded together."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import pytest

from ingest_svc.catalog import EncoderCard
from ingest_svc.encoder import Vectors
from ingest_svc.gathering import BatchLimits, Gathering, open_gathering
from ingest_svc.work import Lane
from meshkit.errors import InvalidArgument, MeshError, Unavailable
from meshkit.identity import Identity, acting_as
from tests.ingest_svc.peers import DIMENSION, vector

LIMITS = BatchLimits(max_tokens=8, max_texts=4, stream_s=30.0)
ALICE = Identity("acme", "alice", frozenset({"ingest"}))
BOB = Identity("other", "bob", frozenset({"ingest"}))


class StreamingEncoder:
    """Answers batch after batch while `gate` is open; a text `bad` ends its stream, and so does any while away."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[list[str]] = []
        self.streams = 0
        self.away = False

    async def describe(self, model: str) -> EncoderCard:
        return EncoderCard(model=model or "words", revision="1", dimension=DIMENSION, max_tokens=256)

    async def token_ends(self, model: str, text: str) -> Sequence[int]:
        return [len(text.encode())]

    async def embed(self, model: str, batches: AsyncIterator[Sequence[str]]) -> AsyncGenerator[Vectors]:
        self.streams += 1
        async for batch in batches:
            self.batches.append(list(batch))
            await self.gate.wait()
            if self.away:
                raise Unavailable("PEER_UNAVAILABLE", "away for the test")
            if "bad" in batch:
                raise InvalidArgument("INVALID_FIELD", "bad for the test")
            data = b"".join(map(vector, batch))
            yield Vectors(data, "DATA_TYPE_FLOAT32", DIMENSION, len(batch), f"{model}@1")


async def encode(gathering: Gathering, *texts: str, lane: Lane = Lane.BULK) -> Vectors:
    """The vectors of texts of two tokens each."""
    async with asyncio.timeout(5):
        return await gathering.encode("words", texts, [2] * len(texts), lane)


async def asked(gathering: Gathering, *texts: str, lane: Lane = Lane.BULK) -> asyncio.Task[Vectors]:
    """A task that waits for the vectors, begun."""
    task = asyncio.create_task(encode(gathering, *texts, lane=lane))
    await asyncio.sleep(0)
    return task


async def test_small_documents_share_batches() -> None:
    """What waits while a batch is encoded goes in one, up to its bounds, and each gets its own vectors."""
    encoder = StreamingEncoder()
    encoder.gate.clear()
    async with open_gathering(encoder, LIMITS) as gathering:
        with acting_as(ALICE):
            tasks = [await asked(gathering, f"{number}a", f"{number}b") for number in range(5)]
            encoder.gate.set()
            found = await asyncio.gather(*tasks)
        assert [each.data for each in found] == [vector(f"{n}a") + vector(f"{n}b") for n in range(5)]
        assert [len(batch) for batch in encoder.batches] == [2, 4, 4]
        assert encoder.streams == 1


async def test_a_document_larger_than_a_batch_is_parted() -> None:
    """Its vectors come back in order, as one."""
    encoder = StreamingEncoder()
    texts = [str(number) for number in range(11)]
    async with open_gathering(encoder, LIMITS) as gathering:
        with acting_as(ALICE):
            found = await encode(gathering, *texts)
    assert found.data == b"".join(map(vector, texts))
    assert (found.count, found.encoder) == (11, "words@1")


async def test_uploads_go_first_and_do_not_starve_jobs() -> None:
    """Of what waits, uploads are encoded before bulk work, but for some batches."""
    encoder = StreamingEncoder()
    encoder.gate.clear()
    async with open_gathering(encoder, LIMITS) as gathering:
        with acting_as(ALICE):
            first = await asked(gathering, *["first"] * 4)
            await asyncio.sleep(0.01)
            bulk = [await asked(gathering, *["bulk"] * 4) for _ in range(3)]
            uploads = [await asked(gathering, *["upload"] * 4, lane=Lane.UPLOADS) for _ in range(4)]
            encoder.gate.set()
            await asyncio.gather(first, *bulk, *uploads)
    order = [batch[0] for batch in encoder.batches if batch[0] != "first"]
    assert order.index("upload") == 0
    assert order.index("bulk") < 4


async def test_a_bad_text_fails_its_own_document_only() -> None:
    """Documents that shared its batch, or came after it, are encoded all the same."""
    encoder = StreamingEncoder()
    encoder.gate.clear()
    async with open_gathering(encoder, LIMITS) as gathering:
        with acting_as(ALICE):
            good, bad, later = [await asked(gathering, text) for text in ("good", "bad", "later")]
            encoder.gate.set()
            with pytest.raises(InvalidArgument):
                await bad
            assert (await good).data == vector("good")
            assert (await later).data == vector("later")


async def test_an_encoder_that_is_away_fails_all_that_wait() -> None:
    """Each is told, to try again as it sees fit; the next is encoded when it is back."""
    encoder = StreamingEncoder()
    encoder.away = True
    async with open_gathering(encoder, LIMITS) as gathering:
        with acting_as(ALICE):
            tasks = [await asked(gathering, *["text"] * 4) for _ in range(5)]
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, MeshError) and outcome.code == "UNAVAILABLE" for outcome in outcomes)
            encoder.away = False
            assert (await encode(gathering, "text")).data == vector("text")


async def test_who_left_is_not_encoded_for() -> None:
    """A cancelled caller's texts that were not sent yet are dropped, and it is idle in the end."""
    encoder = StreamingEncoder()
    encoder.gate.clear()
    async with open_gathering(encoder, LIMITS) as gathering:
        with acting_as(ALICE):
            first = [await asked(gathering, *["first"] * 4) for _ in range(2)]
            await asyncio.sleep(0.01)
            left = await asked(gathering, "left")
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            assert not gathering.idle
            encoder.gate.set()
            await asyncio.gather(*first)
            await encode(gathering, "last")
        assert gathering.idle
    assert all("left" not in batch for batch in encoder.batches)


async def test_tenants_share_no_stream() -> None:
    """An encoder keeps vectors for each tenant apart, by the identity of the stream."""
    encoder = StreamingEncoder()
    async with open_gathering(encoder, LIMITS) as gathering:
        for caller in (ALICE, BOB):
            with acting_as(caller):
                await encode(gathering, "text")
    assert encoder.streams == 2
