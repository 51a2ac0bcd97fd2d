"""RetrieverService over a real channel, a real index and a small embedder."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from meshkit.channel import peer_errors
from meshkit.errors import FailedPrecondition, MeshError, NotFound, Unavailable
from ragmesh.embedder.v1 import embedder_pb2
from ragmesh.retriever.v1 import retriever_pb2
from tests.retriever_svc.doubles import SmallEmbedder, encode, pack
from tests.retriever_svc.serving import Caller, callers, search_request

CATS = "cats sleep all day"
DOGS = "dogs bark at night"
BIRDS = "birds sing at dawn"
FIELDS = [{"field": "lang", "type": "TYPE_STRING"}, {"field": "year", "type": "TYPE_NUMBER"}]


async def fill(caller: Caller) -> None:
    """Make the collection `kb` with a document of three chunks."""
    await caller.put(filterable_fields=FIELDS)
    await caller.write("animals", [CATS, DOGS, BIRDS], metadata={"lang": "en", "year": 2024})


@pytest.mark.parametrize("mode", ["DENSE", "SPARSE", "HYBRID", "UNSPECIFIED"])
async def test_each_mode_finds_the_chunk_that_shares_the_words(mode: str, alice: Caller) -> None:
    """Best first, with its names, place, text and metadata as they were written."""
    await fill(alice)
    best = (await alice.search("when do dogs bark", mode=f"SEARCH_MODE_{mode}")).hits[0].chunk
    assert best.text == DOGS
    assert best.name == "collections/kb/documents/animals/chunks/1"
    assert best.document == "collections/kb/documents/animals"
    assert (best.ordinal, best.content_hash) == (1, "h1")
    assert dict(best.metadata) == {"lang": "en", "year": 2024}


async def test_a_query_is_encoded_as_a_query(alice: Caller, embedder: SmallEmbedder) -> None:
    """The embedder is told, once a search, and not where the search brings a vector."""
    await fill(alice)
    await alice.search("dogs")
    found = await alice.found(vector=pack([encode("cats sleep")]), mode="SEARCH_MODE_DENSE", top_k=1)
    assert embedder.tasks == [embedder_pb2.TASK_TYPE_QUERY]
    assert found == [CATS]


async def test_explanations_tell_both_halves(alice: Caller) -> None:
    """Ranks and scores of each half and the weighted sum of both, which is the hit's."""
    await fill(alice)
    hits = (await alice.search("dogs bark", explain=True)).hits
    best = hits[0].explanation
    assert (best.dense_rank, best.sparse_rank) == (1, 1)
    assert best.dense_score > 0.5
    assert best.sparse_score > 0
    assert hits[0].score == best.fused_score > 0.5
    assert not best.HasField("rerank_score")
    assert [hit.explanation.sparse_rank for hit in hits[1:]] == [0, 0]


async def test_a_search_may_choose_its_fusion(alice: Caller) -> None:
    """Reciprocal ranks of 1 and 1 with k = 9 add up to 0.2; the weight 0 leaves the dense half out."""
    await fill(alice)
    by_rank = (await alice.search("dogs bark", fusion={"reciprocal_rank": {"k": 9}})).hits
    assert by_rank[0].score == pytest.approx(0.2)
    sparse_only = (await alice.search("dogs bark", fusion={"weighted": {"dense": 0}})).hits
    assert [hit.score for hit in sparse_only] == pytest.approx([1.0, 0.0, 0.0])


async def test_the_collections_own_fusion_counts(alice: Caller) -> None:
    """Where the search names none."""
    await alice.put(fusion={"reciprocal_rank": {"k": 4}})
    await alice.write("animals", [CATS, DOGS])
    assert (await alice.search("dogs bark")).hits[0].score == pytest.approx(0.4)


async def test_timings_come_in_the_response_and_in_the_trailers(alice: Caller) -> None:
    """Each stage once, in order of its beginning, in both places."""
    await fill(alice)
    call = alice.retriever.Search(retriever_pb2.SearchRequest(collection="collections/kb", query="dogs"))
    stages = [timing.stage for timing in (await call).timings.timings]
    assert sorted(stages) == ["dense", "embed", "fuse", "read", "sparse"]
    trailers = dict(await call.trailing_metadata())
    assert [entry.partition(";dur=")[0] for entry in str(trailers["ragmesh-timings"]).split(", ")] == stages


async def test_a_filter_narrows_both_halves(alice: Caller) -> None:
    """By metadata and by built-in fields, in every mode."""
    await fill(alice)
    await alice.write("animaux", ["dogs bark en France"], metadata={"lang": "fr", "year": 2020}, page=3)
    for mode in ("DENSE", "SPARSE", "HYBRID"):
        for filter in ('lang = "fr"', "year < 2024", "page = 3", 'document = "animaux"', "NOT lang = en"):
            found = await alice.found("dogs bark", mode=f"SEARCH_MODE_{mode}", filter=filter)
            assert found == ["dogs bark en France"], (mode, filter)


async def test_a_window_brings_the_neighbours_in_order(alice: Caller) -> None:
    """Without the hit itself, and only those there are."""
    await fill(alice)
    for query, around in {"cats": [DOGS], "dogs": [CATS, BIRDS], "birds": [DOGS]}.items():
        hit = (await alice.search(query, window=1, top_k=1)).hits[0]
        assert [chunk.text for chunk in hit.window] == around


async def test_min_score_leaves_out_the_rest(alice: Caller) -> None:
    """Only hits with at least the score stay."""
    await fill(alice)
    assert await alice.found("dogs bark", min_score=0.6) == [DOGS]


async def test_diversity_prefers_what_is_not_said_yet(alice: Caller) -> None:
    """Of two like chunks and another, the other comes second."""
    await alice.put()
    await alice.write("animals", ["dogs bark at night", "dogs bark at night too", "dogs eat meat"])
    plain = await alice.found("dogs bark at night", top_k=2)
    diverse = await alice.found("dogs bark at night", top_k=2, diversity=0.9)
    assert plain == ["dogs bark at night", "dogs bark at night too"]
    assert diverse == ["dogs bark at night", "dogs eat meat"]


async def test_reranking_orders_by_the_cross_encoder(alice: Caller, embedder: SmallEmbedder) -> None:
    """Its score is the hit's, negative ones too, and the explanation tells both."""
    embedder.reranker = True
    await fill(alice)
    hits = (await alice.search("birds at dawn", rerank=True, explain=True)).hits
    assert hits[0].chunk.text == BIRDS
    assert [hit.score for hit in hits] == [hit.explanation.rerank_score for hit in hits]
    assert hits[0].score == 0
    assert hits[-1].score < 0


async def test_reranking_without_a_reranker_is_told(alice: Caller) -> None:
    """The hits come in the order that they had."""
    await fill(alice)
    response = await alice.search("dogs bark", rerank=True)
    assert [(left.stage, left.reason) for left in response.degradations] == [("rerank", "MODEL_NOT_FOUND")]
    assert response.hits[0].chunk.text == DOGS


async def test_without_the_embedder_a_hybrid_search_goes_on_by_words(tmp_path: Path) -> None:
    """It says so, and its scores are still scaled to 1."""
    async with callers(tmp_path, embedder=None) as (alice, _):
        await fill(alice)
        response = await alice.search("dogs bark")
        assert [(left.stage, left.reason) for left in response.degradations] == [("dense", "PEER_UNAVAILABLE")]
        assert [(hit.chunk.text, hit.score) for hit in response.hits] == [(DOGS, 1.0)]


async def test_without_the_embedder_a_dense_search_fails(tmp_path: Path) -> None:
    """With the reason and the name of the peer."""
    async with callers(tmp_path, embedder=None) as (alice, _):
        await fill(alice)
        with pytest.raises(Unavailable) as caught:
            await alice.search("dogs bark", mode="SEARCH_MODE_DENSE")
    assert caught.value.reason == "PEER_UNAVAILABLE"
    assert caught.value.metadata == {"peer": "embedder"}


async def test_another_encoder_is_no_ground_for_a_dense_search(alice: Caller, embedder: SmallEmbedder) -> None:
    """Its vectors say nothing of the collection's: dense fails, hybrid goes on by words."""
    await fill(alice)
    embedder.model = "words@r2"
    with pytest.raises(FailedPrecondition) as caught:
        await alice.search("dogs", mode="SEARCH_MODE_DENSE")
    assert caught.value.reason == "ENCODER_MISMATCH"
    assert caught.value.metadata == {"expected": "words@r1", "given": "words@r2"}
    assert [left.reason for left in (await alice.search("dogs")).degradations] == ["ENCODER_MISMATCH"]


async def test_each_collection_is_searched_by_its_own_encoder(alice: Caller, embedder: SmallEmbedder) -> None:
    """One at a time and in a batch, where the embedder serves both."""
    embedder.other_models = ("bigger@r7",)
    await fill(alice)
    await alice.put("other", encoder="bigger@r7")
    await alice.write("animals", [CATS, DOGS], "other")
    for collection in ("kb", "other"):
        response = await alice.search("dogs bark", collection)
        assert (response.hits[0].chunk.text, list(response.degradations)) == (DOGS, [])
        assert (await alice.found("dogs bark", collection, mode="SEARCH_MODE_DENSE"))[0] == DOGS
    both = await batch(alice, {"query": "dogs bark"}, {"query": "dogs bark", "collection": "other"})
    assert [(each.hits[0].chunk.text, list(each.degradations)) for each in both] == [(DOGS, [])] * 2


def batch_request(*searches: dict[str, Any]) -> retriever_pb2.BatchSearchRequest:
    """The searches, in `kb` where they do not say; enums by name, a `vector` as a message."""
    return retriever_pb2.BatchSearchRequest(searches=[search_request(**search) for search in searches])


async def batch(caller: Caller, *searches: dict[str, Any]) -> list[retriever_pb2.SearchResponse]:
    """The responses to a batch."""
    with peer_errors():
        return list((await caller.retriever.BatchSearch(batch_request(*searches))).responses)


async def test_a_batch_answers_in_order(alice: Caller) -> None:
    """One response a search."""
    await fill(alice)
    responses = await batch(alice, *({"query": query, "top_k": 1} for query in ("cats", "dogs", "birds") * 4))
    assert [response.hits[0].chunk.text for response in responses] == [CATS, DOGS, BIRDS] * 4


async def test_a_batch_is_encoded_in_one_call(alice: Caller, embedder: SmallEmbedder) -> None:
    """Each query once, and only those whose vector is wanted; the answers are those of searches alone."""
    await fill(alice)
    asked: list[dict[str, Any]] = [
        {"query": "cats", "mode": "SEARCH_MODE_SPARSE"},
        {"query": "dogs bark"},
        {"query": "birds sing", "mode": "SEARCH_MODE_DENSE", "explain": True},
        {"query": "dogs bark", "top_k": 1, "filter": "page = 0"},
    ]
    alone = [await alice.search(**search) for search in asked]
    embedder.asked.clear()
    together = await batch(alice, *asked)
    assert embedder.asked == [["dogs bark", "birds sing"]]
    assert [list(response.hits) for response in together] == [list(response.hits) for response in alone]


async def test_a_batch_tells_its_timings(alice: Caller) -> None:
    """Each search's own in its response, and in the trailers each stage once over all of them."""
    await fill(alice)
    call = alice.retriever.BatchSearch(
        batch_request({"query": "dogs"}, {"query": "cats", "mode": "SEARCH_MODE_SPARSE"})
    )
    hybrid, sparse = (await call).responses
    assert sorted(timing.stage for timing in hybrid.timings.timings) == ["dense", "embed", "fuse", "read", "sparse"]
    assert [timing.stage for timing in sparse.timings.timings] == ["sparse", "read"]
    trailers = dict(await call.trailing_metadata())
    entries = [entry.partition(";dur=")[0] for entry in str(trailers["ragmesh-timings"]).split(", ")]
    assert sorted(entries) == ["dense", "embed", "fuse", "read", "sparse"]


@pytest.mark.parametrize(
    ("search", "reason", "field"),
    [
        ({"collection": "none"}, "COLLECTION_NOT_FOUND", "searches[1]"),
        ({"filter": "year >"}, "INVALID_FILTER", "searches[1].filter"),
        ({"query": " "}, "INVALID_FIELD", "searches[1].query"),
        ({"vector": pack([encode("a"), encode("b")])}, "INVALID_FIELD", "searches[1].vector.count"),
        ({"vector": pack([encode("a", 8)], 8)}, "ENCODER_MISMATCH", "searches[1]"),
        ({"top_k": -1}, "INVALID_FIELD", "searches[1].top_k"),
    ],
)
async def test_a_batch_fails_whole(search: dict[str, Any], reason: str, field: str, alice: Caller) -> None:
    """With the error and the path of the search that failed."""
    await fill(alice)
    with pytest.raises(MeshError) as caught:
        await batch(alice, {"query": "dogs"}, {"query": "dogs", **search})
    assert caught.value.reason == reason
    assert caught.value.metadata["field"] == field
    assert [violation.field for violation in caught.value.violations] in ([], [field])


async def test_without_the_embedder_a_batch_goes_on_by_words(tmp_path: Path) -> None:
    """Each search as it would alone; one that is dense fails the batch by its path."""
    async with callers(tmp_path, embedder=None) as (alice, _):
        await fill(alice)
        for response in await batch(alice, {"query": "dogs"}, {"query": "cats"}):
            assert [(left.stage, left.reason) for left in response.degradations] == [("dense", "PEER_UNAVAILABLE")]
            assert len(response.hits) == 1
        with pytest.raises(Unavailable) as caught:
            await batch(alice, {"query": "dogs"}, {"query": "cats", "mode": "SEARCH_MODE_DENSE"})
    assert caught.value.metadata == {"peer": "embedder", "field": "searches[1]"}


async def test_an_embedder_that_hangs_costs_a_share_of_the_time(alice: Caller, embedder: SmallEmbedder) -> None:
    """A hybrid search goes on by words in time for its caller, and the embedder is told that nobody waits."""
    await fill(alice)
    embedder.answers.clear()
    request = retriever_pb2.SearchRequest(collection="collections/kb", query="dogs bark")
    with peer_errors():
        response = await alice.retriever.Search(request, timeout=1)
    assert [(left.stage, left.reason) for left in response.degradations] == [("dense", "PEER_UNAVAILABLE")]
    assert [hit.chunk.text for hit in response.hits] == [DOGS]
    async with asyncio.timeout(5):
        while not embedder.left:
            await asyncio.sleep(0)


async def test_a_chunk_is_read_with_its_neighbours(alice: Caller) -> None:
    """As it was written; one that is not there is CHUNK_NOT_FOUND."""
    await fill(alice)
    name = "collections/kb/documents/animals/chunks/1"
    response = await alice.retriever.GetChunk(retriever_pb2.GetChunkRequest(name=name, window=5))
    assert response.chunk.text == DOGS
    assert [chunk.text for chunk in response.window] == [CATS, BIRDS]
    with pytest.raises(NotFound) as caught, peer_errors():
        await alice.retriever.GetChunk(retriever_pb2.GetChunkRequest(name=name.replace("/1", "/7")))
    assert caught.value.reason == "CHUNK_NOT_FOUND"


async def test_chunks_are_listed_in_pages(alice: Caller) -> None:
    """In order, each once; the last page has no token."""
    await alice.put()
    texts = [f"number {place}" for place in range(7)]
    await alice.write("long", texts)
    listed, token, pages = [], "", 0
    while token or not pages:
        request = retriever_pb2.ListChunksRequest(parent="collections/kb/documents/long", page_size=3, page_token=token)
        page = await alice.retriever.ListChunks(request)
        listed += [chunk.text for chunk in page.chunks]
        token, pages = page.next_page_token, pages + 1
    assert (listed, pages) == (texts, 3)
