"""Two running meshes, Envoy included: one quotes, one has a language model made on the spot."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.local.mesh import Mesh, open_mesh
from deploy.local.settings import LocalSettings, Ports
from ragmesh_client import Client
from tests import tiny_model

COLLECTION = "handbook"
PAGES = {
    "leave.md": "# Leave\n\nEvery employee has thirty days of paid leave a year. "
    "Leave that is not taken ends on the last day of March.\n\n"
    "## Parents\n\nParents may take six months of unpaid leave after the birth of a child.\n",
    "travel.md": "# Travel\n\nTrain journeys are booked in second class. "
    "Flights under six hundred kilometres are not reimbursed.\n",
    "security.html": "<html><head><title>Security</title></head><body><main><h1>Security</h1>"
    "<p>Lost badges are reported to the front desk within one hour. "
    "Visitors are accompanied at all times.</p></main></body></html>",
}


@asynccontextmanager
async def running(data: Path, model: str = "") -> AsyncIterator[Mesh]:
    """A mesh on free ports with the pages ingested for the local tenant."""
    # Some tests ask without pause; the limits have tests of their own.
    limits = ("ASK_BURST", "ASK_PER_SECOND", "OTHER_BURST", "OTHER_PER_SECOND")
    edge = dict.fromkeys(limits, "100000")
    settings = LocalSettings(data_dir=data, ports=Ports.free(), generator_model=model, edge=edge)
    async with open_mesh(settings) as mesh:
        await fill(mesh, data / "pages")
        yield mesh


async def fill(mesh: Mesh, folder: Path) -> None:
    """Ingest the pages into the collection."""
    folder.mkdir()
    for name, text in PAGES.items():
        (folder / name).write_text(text)
    async with client(mesh) as caller:
        await caller.create_collection(COLLECTION)
        ended = [step async for step in caller.ingest([folder], COLLECTION) if step.ended]
    assert [step.error for step in ended] == [None] * len(PAGES)


def client(mesh: Mesh, tenant: str = "local", *, timeout_s: float = 30.0) -> Client:
    """A client of the tenant's, through Envoy."""
    return Client(mesh.edge, mesh.token(tenant), timeout_s=timeout_s)


@pytest.fixture(scope="session")
def _quiet() -> Iterator[None]:
    """The generator logs each call, with the time that it was given; settings of the caller's own do not leak in."""
    own = {name for name in os.environ if name.startswith("RAGMESH_")}
    with pytest.MonkeyPatch.context() as patch:
        for name in own:
            patch.delenv(name)
        patch.setenv("RAGMESH_GENERATOR_LOG_LEVEL", "DEBUG")
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory, _quiet: None) -> AsyncIterator[Mesh]:
    """A mesh with the extractive engine."""
    async with running(tmp_path_factory.mktemp("mesh") / "data") as mesh:
        yield mesh


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def llm_mesh(tmp_path_factory: pytest.TempPathFactory, _quiet: None) -> AsyncIterator[Mesh]:
    """A mesh with vLLM and a tiny random model."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model.make_tiny_model(folder)
    async with running(tmp_path_factory.mktemp("llm-mesh") / "data", str(folder)) as mesh:
        yield mesh
