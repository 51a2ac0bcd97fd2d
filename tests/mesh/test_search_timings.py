"""Searches through Envoy as a command-line client makes them: by bare gRPC, all that it prints, and by REST."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.json_format import ParseDict

from deploy.local.mesh import Mesh
from ragmesh.retriever.v1 import retriever_pb2
from tests.mesh.conftest import COLLECTION

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]
SERVICE = "/ragmesh.retriever.v1.RetrieverService"
STAGES = {"embed", "dense", "sparse", "fuse", "read"}
SEARCH = {"collection": f"collections/{COLLECTION}", "query": "paid leave"}


@pytest.mark.parametrize("method", ["Search", "BatchSearch"])
async def test_timings_reach_a_bare_client(method: str, mesh: Mesh) -> None:
    """In the trailers of the call, stage by stage in milliseconds, for whoever knows nothing of the messages."""
    search = ParseDict(SEARCH, retriever_pb2.SearchRequest())
    request = search if method == "Search" else retriever_pb2.BatchSearchRequest(searches=[search, search])
    async with grpc.aio.insecure_channel(mesh.edge) as channel:
        # No serializers: bytes go in and come out.
        bare: Any = channel.unary_unary(f"{SERVICE}/{method}")
        metadata = (("authorization", f"Bearer {mesh.token()}"),)
        call = bare(request.SerializeToString(), metadata=metadata, timeout=30)
        assert await call
        trailers = dict(await call.trailing_metadata())
    entries = dict(entry.split(";dur=") for entry in str(trailers["ragmesh-timings"]).split(", "))
    print(f"\n{method}: {trailers['ragmesh-timings']}")
    assert entries.keys() == STAGES
    assert all(float(milliseconds) >= 0 for milliseconds in entries.values())


async def test_a_batch_by_rest(mesh: Mesh) -> None:
    """Each search has its hits and timings; the error of one names it by its path."""
    headers = {"authorization": f"Bearer {mesh.token()}"}
    async with httpx.AsyncClient(base_url=f"http://{mesh.edge}", headers=headers, timeout=30) as client:
        good = await client.post("/v1/searches:batch", json={"searches": [SEARCH, {**SEARCH, "topK": 1}]})
        bad = await client.post("/v1/searches:batch", json={"searches": [SEARCH, {**SEARCH, "filter": "page >"}]})
    responses = good.json()["responses"]
    assert len(responses[1]["hits"]) == 1
    assert responses[1]["hits"][0] == responses[0]["hits"][0]
    for response in responses:
        assert {timing["stage"] for timing in response["timings"]["timings"]} == STAGES
    assert bad.status_code == 400
    (info,) = (detail for detail in bad.json()["details"] if detail["@type"].endswith("ErrorInfo"))
    assert info["reason"] == "INVALID_FILTER"
    assert info["metadata"]["field"] == "searches[1].filter"
