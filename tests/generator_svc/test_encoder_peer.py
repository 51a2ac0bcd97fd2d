"""The extractive engine and the embedder that it asks."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from generator_svc.engine import Grounded, Passage, Request
from generator_svc.extractive_engine import ExtractiveEngine
from generator_svc.peers import EncoderPeer
from meshkit.errors import DeadlineExceeded, MeshError, Unavailable
from meshkit.testing import connect
from tests.embedder_svc.doubles import WordEncoder
from tests.embedder_svc.serving import ALICE, connected

PASSAGES = (Passage(1, "The oak was felled in spring. The oak was planted in spring.", "Trees"),)
QUESTION = "What became of the oak?"
TIMEOUT_S = 30.0


class Preferring:
    """An encoder to which texts that hold the word are near."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.asked: list[tuple[str, list[str]]] = []

    async def similarities(self, question: str, texts: Sequence[str]) -> list[float]:
        self.asked.append((question, list(texts)))
        return [float(self.word in text) for text in texts]


class Failing:
    """An encoder that fails with the error."""

    def __init__(self, error: MeshError) -> None:
        self.error = error

    async def similarities(self, question: str, texts: Sequence[str]) -> list[float]:
        raise self.error


async def _answer(engine: ExtractiveEngine, question: str = QUESTION, passages: Sequence[Passage] = PASSAGES) -> str:
    work = await engine.prepare(Request("one", Grounded(question, passages)))
    return "".join([delta.text async for delta in engine.generate(work)])


@pytest.fixture
async def encoder() -> AsyncIterator[WordEncoder]:
    """A model whose gate is open when the test ends."""
    model = WordEncoder()
    yield model
    model.gate.set()


async def test_similarities_are_cosines_in_the_order_of_the_texts(encoder: WordEncoder) -> None:
    """The question is encoded as a query, the texts as documents, over the wire."""
    async with connected(encoder) as (channel, _):
        near, far, none = await EncoderPeer(channel, TIMEOUT_S).similarities("abc", ["abc", "abcd", "opo"])

    assert near == pytest.approx(1)
    assert far == pytest.approx(3 / 12**0.5)
    assert none == 0
    assert {task.value: texts for task, texts in encoder.batches}.get("query") == ["abc"]


async def test_an_embedder_that_is_away_or_slow_fails_within_the_time(encoder: WordEncoder) -> None:
    """No call outlasts the peer's own limit; the failure is the mesh's own error."""
    async with connect("127.0.0.1:1", ALICE) as channel:
        with pytest.raises(Unavailable, match="PEER_UNAVAILABLE"):
            await EncoderPeer(channel, TIMEOUT_S).similarities("a", ["a"])
    async with connected(encoder) as (channel, _):
        encoder.gate.clear()
        with pytest.raises(DeadlineExceeded):
            await EncoderPeer(channel, 0.1).similarities("a", ["a"])
        encoder.gate.set()


async def test_the_encoder_has_its_say() -> None:
    """Of sentences with the same words, the one nearer in meaning is quoted first; titles are part of the meaning."""
    encoder = Preferring("planted")

    answer = await _answer(ExtractiveEngine("extractive", 0.0, encoder))

    assert answer.startswith("The oak was planted in spring. [1]")
    assert encoder.asked == [
        (QUESTION, ["Trees: The oak was felled in spring.", "Trees: The oak was planted in spring."])
    ]


async def test_only_the_best_by_words_are_compared() -> None:
    """What the encoder is given is bounded."""
    encoder = Preferring("oak")

    await _answer(ExtractiveEngine("extractive", 0.0, encoder, encoder_candidates=1))

    assert [len(texts) for _, texts in encoder.asked] == [1]


@pytest.mark.parametrize(
    "error", [Unavailable("PEER_UNAVAILABLE", "away"), DeadlineExceeded("DEADLINE_EXCEEDED", "slow")]
)
async def test_without_the_encoder_words_alone_decide(error: MeshError) -> None:
    """An embedder's failure is no failure of the answer."""
    alone = await _answer(ExtractiveEngine("extractive", 0.0))

    assert alone
    assert await _answer(ExtractiveEngine("extractive", 0.0, Failing(error))) == alone


async def test_an_embedder_that_dies_between_answers_is_done_without(encoder: WordEncoder) -> None:
    """One engine answers with it and without it, over one channel."""
    async with connected(encoder) as (channel, _):
        engine = ExtractiveEngine("extractive", 0.0, EncoderPeer(channel, TIMEOUT_S))
        async with asyncio.timeout(TIMEOUT_S):
            with_it = await _answer(engine)
            encoder.failure = Unavailable("ENGINE_UNAVAILABLE", "the device failed")
            without_it = await _answer(engine)

    assert with_it
    assert without_it == await _answer(ExtractiveEngine("extractive", 0.0))


async def test_chinese_goes_by_signs_alone() -> None:
    """The bundled encoder reads no Chinese, so it is not asked."""
    encoder = Preferring("剧")

    await _answer(
        ExtractiveEngine("extractive", 0.0, encoder), "夏季剧院在哪里？", [Passage(1, "夏季剧院位于花园中。")]
    )

    assert encoder.asked == []
