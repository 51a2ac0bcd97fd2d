"""The real models: all-MiniLM-L6-v2 and a small random cross-encoder, served whole."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict

from embedder_svc.app import SERVICE, open_app
from embedder_svc.encoding import Encoder, EncoderCard, LoadError, LoadOptions, Task
from embedder_svc.settings import Settings
from meshkit.testing import connect, serve
from ragmesh.common.v1 import server_pb2, server_pb2_grpc
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from tests.embedder_svc.doubles import LIMITS
from tests.embedder_svc.serving import ALICE, embed, served
from tests.embedder_svc.test_service import rows
from tests.embedder_svc.tiny_models import random_cross_encoder

REAL_LIMITS = replace(LIMITS, max_batch_tokens=1024, max_queue_tokens=100_000)
CPU = LoadOptions(device="cpu", backend="torch", dtype="float32")
MIXED = [
    "plain words",
    "Ärger mit Umläuten, naïve café",
    "检索增强生成把答案建立在文档之上",
    "emoji 😀 and a family 👩‍👩‍👧 in the middle",
    "cafe\u0301 decomposed",
    "tabs\tand\r\nlines",
    "",
]


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT of one layer that gives a pair one score."""
    return random_cross_encoder(tmp_path_factory.mktemp("cross-encoder"))


async def test_texts_that_mean_alike_are_near(minilm: Encoder) -> None:
    """A question is nearer to its answer than to anything else, whatever else is in the batch."""
    documents = ["The cat sleeps on the sofa.", "Kubernetes restarts a pod that fails.", "Bread is baked."]
    queries = ["Where does the cat sleep?", "What happens to a failing pod?", "How is bread made?"]
    async with served(minilm, limits=REAL_LIMITS) as (stub, _):
        texts = await stub.Embed(embed(documents))
        asked = await stub.Embed(embed(queries, task="TASK_TYPE_QUERY"))
    similarity = rows(asked.vectors) @ rows(texts.vectors).T
    assert similarity.argmax(axis=1).tolist() == [0, 1, 2]
    assert np.allclose(np.linalg.norm(rows(texts.vectors), axis=1), 1, atol=1e-5)
    assert texts.vectors.dimension == 384


async def test_vectors_do_not_depend_on_company(minilm: Encoder) -> None:
    """A text alone, in a batch of other lengths, and among other callers' texts has the same vector."""
    texts = [" ".join(["stone"] * length) for length in (1, 200, 7, 90, 30, 3)]
    async with served(minilm, limits=REAL_LIMITS) as (stub, _):
        together, *alone = await asyncio.gather(
            stub.Embed(embed(texts)), *(stub.Embed(embed([text])) for text in texts)
        )
    singles = np.concatenate([rows(answer.vectors) for answer in alone])
    assert np.allclose(rows(together.vectors), singles, atol=1e-5)
    assert np.allclose(singles, minilm.encode(texts, Task.DOCUMENT), atol=1e-5)


async def test_a_long_text_is_cut_and_said_to_be(minilm: Encoder) -> None:
    """At 256 tokens with the two special ones; what comes after has no influence."""
    text = " ".join(["word"] * 254)
    async with served(minilm, limits=REAL_LIMITS) as (stub, _):
        answer = await stub.Embed(embed([text, text + " more and more", "short"]))
    assert list(answer.token_counts) == [256, 256, 3]
    assert list(answer.truncated) == [1]
    vectors = rows(answer.vectors)
    assert np.allclose(vectors[0], vectors[1], atol=1e-5)


async def test_token_ends_are_bytes_of_the_text(minilm: Encoder) -> None:
    """Chinese, emoji, combining marks: ends ascend, lie between characters, reach the text's end."""
    long = "word " * 1000
    async with served(minilm, limits=REAL_LIMITS) as (stub, _):
        answer = await stub.Tokenize(embedder_pb2.TokenizeRequest(texts=[*MIXED, long]))
    ends = [list(text.ends) for text in answer.texts]
    for text, of_text in zip(MIXED, ends, strict=False):
        assert of_text == sorted(of_text)
        assert all(text.startswith(text.encode()[:end].decode()) for end in of_text)
        assert of_text[-1:] == ([len(text.encode())] if text else [])
    assert ends[0] == [5, 11]
    assert ends[2][:3] == [3, 6, 9]
    assert len(ends[-1]) == 1000


async def test_token_ends_agree_with_token_counts(minilm: Encoder) -> None:
    """Embed counts two special tokens more than Tokenize."""
    texts = MIXED[:-1]
    async with served(minilm, limits=REAL_LIMITS) as (stub, _):
        ends = await stub.Tokenize(embedder_pb2.TokenizeRequest(texts=texts))
        answer = await stub.Embed(embed(texts))
    assert [len(text.ends) + 2 for text in ends.texts] == list(answer.token_counts)


@pytest.mark.timeout(240)  # the cross-encoder is converted in a process that imports torch
async def test_the_app_serves_encoder_and_reranker(minilm_folder: Path, cross_encoder: Path, tmp_path: Path) -> None:
    """Opened from settings: both described, both ready, scores those of the cross-encoder itself."""
    from sentence_transformers import CrossEncoder

    query, texts = "which one", ["the first text", "second", "and a third text that is longer", "fourth"]
    settings = Settings(
        device="cpu",
        dtype="float32",
        conversion_folder=tmp_path,
        model=str(minilm_folder),
        model_name="all-MiniLM-L6-v2",
        reranker_model=str(cross_encoder),
        reranker_model_name="tiny",
    )
    async with open_app(settings) as app, serve(app) as address, connect(address, ALICE) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        info = await stub.GetInfo(embedder_pb2.GetInfoRequest())
        ranking = await stub.Rerank(embedder_pb2.RerankRequest(query=query, texts=texts, model="tiny"))
        asking = server_pb2_grpc.ServerServiceStub(channel)
        server = await asking.GetServerInfo(server_pb2.GetServerInfoRequest())
    scores = CrossEncoder(str(cross_encoder), device="cpu").predict([(query, text) for text in texts])
    assert [ranked.index for ranked in ranking.ranked] == np.argsort(-scores).tolist()
    assert np.allclose([ranked.score for ranked in ranking.ranked], np.sort(scores)[::-1], atol=1e-4)
    described = [MessageToDict(model) for model in info.models]
    assert [model["kind"] for model in described] == ["KIND_ENCODER", "KIND_RERANKER"]
    assert described[0] | {"revision": ""} == {
        "model": "all-MiniLM-L6-v2",
        "revision": "",
        "kind": "KIND_ENCODER",
        "dimension": 384,
        "maxTokens": 256,
        "normalized": True,
        "backend": "openvino-cpu",
        "ready": True,
    }
    assert ranking.model == f"tiny@{described[1]['revision']}"
    assert [(health.service, health.state) for health in server.server.services] == [
        (SERVICE, server_pb2.ServiceHealth.STATE_SERVING)
    ]


def test_prompts_and_limit_are_those_of_the_settings() -> None:
    """A query's prompt counts towards its tokens and moves its vector; texts are cut at `max_tokens`."""
    from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder

    options = replace(CPU, max_tokens=16)
    prompts = {Task.QUERY: "query: "}
    encoder = SentenceTransformerEncoder.load("all-MiniLM-L6-v2", "m", options, prompts=prompts)
    card: EncoderCard = encoder.card
    assert card.max_tokens == 16
    assert [encoder.lengths(["cat"], task)[0].tokens for task in (Task.DOCUMENT, Task.QUERY)] == [3, 5]
    assert encoder.lengths(["cat " * 20], Task.DOCUMENT)[0].truncated
    query = encoder.encode(["cat"], Task.QUERY)
    assert np.allclose(query, encoder.encode(["query: cat"], Task.DOCUMENT), atol=1e-5)
    assert not np.allclose(query, encoder.encode(["cat"], Task.DOCUMENT), atol=1e-2)


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    """A folder that is not there, one without a model, and a reranker with two scores a pair."""
    from embedder_svc.cross_encoder_reranker import CrossEncoderReranker
    from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder

    with pytest.raises(LoadError, match="not-there"):
        SentenceTransformerEncoder.load(str(tmp_path / "not-there"), "m", CPU)
    with pytest.raises(LoadError, match=tmp_path.name):
        SentenceTransformerEncoder.load(str(tmp_path), "m", CPU)
    two = random_cross_encoder(tmp_path / "two", scores=2)
    with pytest.raises(LoadError, match="2 scores a pair"):
        CrossEncoderReranker.load(str(two), "m", CPU)
