"""What answers: the embedded mesh through Envoy, and a LangChain application under uvicorn, over the same chunks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import grpc
import httpx

from bench.answer_load import Heard
from bench.ingest_peers import LANGCHAIN
from bench.labelled import Document
from bench.paced_upstream import MODEL, Pace
from deploy.local.mesh import Mesh, open_mesh
from deploy.local.settings import HOST, LocalSettings, Ports
from deploy.local.supervisor import Process, Program, keep_running
from embedder_svc import weights
from ragmesh.gateway.v1 import answers_pb2, answers_pb2_grpc, events_pb2
from ragmesh.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from ragmesh_client import Client

COLLECTION = "collections/bench"
TOP_K = 8
_STREAMS_A_CHANNEL = 100
"""Envoy lets a connection have 256 at once, and a browser or a product has its own."""
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that answers: the processes that do its work, by name, and its callers."""

    pids: Mapping[str, int]
    callers: RagmeshCallers | LangchainCallers


class RagmeshCallers:
    """So many users of the mesh, each with a token of its own, a hundred to a connection."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], tokens: Sequence[str]) -> None:
        self._stubs = [answers_pb2_grpc.AnswerServiceStub(channel) for channel in channels]
        self._metadata = [(("authorization", f"Bearer {token}"),) for token in tokens]

    async def ask(
        self, question: str, caller: int, heard: Heard, max_tokens: int = 0, cache: str = "CACHE_POLICY_BYPASS"
    ) -> events_pb2.Answer:
        """The answer to that user; raises RuntimeError where the stream ends without."""
        user = caller % len(self._metadata)
        request = answers_pb2.AskRequest(
            question=question,
            collection=COLLECTION,
            cache=answers_pb2.CachePolicy.Value(cache),
            generation=answers_pb2.GenerationOptions(max_tokens=max_tokens),
        )
        stub, metadata = self._stubs[user % len(self._stubs)], self._metadata[user]
        final = None
        async for response in stub.Ask(request, timeout=600, metadata=metadata):
            match response.event.WhichOneof("event"):
                case "token":
                    heard.token()
                case "final":
                    final = response.event.final
        if final is None:
            raise RuntimeError("the stream has no final event")
        heard.degraded = bool(final.degradations)
        return final


class LangchainCallers:
    """Callers of the LangChain application."""

    def __init__(self, web: httpx.AsyncClient) -> None:
        self._web = web

    async def ask(self, question: str, caller: int, heard: Heard, max_tokens: int = 0) -> None:  # noqa: ARG002 - nobody has a name here
        """Ask; raises RuntimeError for an answer without an end."""
        body = {"question": question, "max_tokens": max_tokens}
        event = ""
        async with self._web.stream("POST", "/answers", json=body) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if line.startswith("event:"):
                    event = line.removeprefix("event:").strip()
                    if event == "token":
                        heard.token()
        if event != "end":
            raise RuntimeError("the stream has no end")


@asynccontextmanager
async def open_upstream(folder: Path) -> AsyncIterator[str]:
    """The URL of an OpenAI-compatible server that keeps a pace."""
    port = Ports.free().chosen().gateway
    arguments = [sys.executable, "-m", "bench.paced_upstream", str(port)]
    serves = partial(_serves, f"http://{HOST}:{port}/v1/models")
    async with _running(Program("upstream", arguments, serves), folder):
        yield f"http://{HOST}:{port}/v1"


async def keep_pace(upstream: str, pace: Pace) -> None:
    """Have the server answer at that pace from now on."""
    async with httpx.AsyncClient(trust_env=False) as web:
        (await web.post(upstream.removesuffix("/v1") + "/pace", json=asdict(pace))).raise_for_status()


@asynccontextmanager
async def open_ragmesh(
    folder: Path, documents: Sequence[Document], users: int, variables: Mapping[str, str]
) -> AsyncIterator[tuple[Subject, Mesh]]:
    """The mesh with the documents in it; `variables` are of its services' environment. Raises StartError."""
    settings = LocalSettings(data_dir=folder, ports=Ports.free())
    async with AsyncExitStack() as stack:
        with _environment(variables):
            mesh = await stack.enter_async_context(open_mesh(settings))
        await _fill(mesh, documents)
        # Without a pool of its own each channel would share the first one's connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(mesh.edge, options))
            for _ in range(0, users, _STREAMS_A_CHANNEL)
        ]
        tokens = [mesh.token(subject=f"user{number}", scopes=["ask"]) for number in range(users)]
        pids = {name: process.pid for name, process in mesh.processes.items()}
        yield Subject(pids, RagmeshCallers(channels, tokens)), mesh


async def _fill(mesh: Mesh, documents: Sequence[Document]) -> None:
    """Take the documents in, those of a title as one."""
    texts: dict[str, list[str]] = {}
    for document in documents:
        texts.setdefault(document.title, []).append(document.text)
    async with Client(mesh.edge, mesh.token()) as client:
        await client.create_collection(COLLECTION)
        for title, parts in texts.items():
            content = f"# {title}\n\n" + "\n\n".join(parts)
            async for step in client.upload(content.encode(), COLLECTION, title=title, uri=f"{title}.md"):
                if step.HasField("error"):
                    raise RuntimeError(step.error.message)


async def chunks_of(mesh: Mesh) -> list[str]:
    """The texts of all chunks that the mesh has made."""
    metadata = (("authorization", f"Bearer {mesh.token()}"),)
    texts: list[str] = []
    async with Client(mesh.edge, mesh.token()) as client:
        stub = retriever_pb2_grpc.RetrieverServiceStub(client.channel)
        async for document in client.list_documents(COLLECTION):
            request = retriever_pb2.ListChunksRequest(parent=document.name, page_size=_PAGE)
            texts += [chunk.text for chunk in (await stub.ListChunks(request, metadata=metadata)).chunks]
    return texts


@asynccontextmanager
async def open_langchain(folder: Path, chunks: Sequence[str], upstream: str) -> AsyncIterator[Subject]:
    """The application, serving, with the chunks in its store. Raises StartError."""
    port = Ports.free().chosen().gateway
    (folder / "chunks.json").write_text(json.dumps(chunks))
    environment = {
        "CHUNKS": str(folder / "chunks.json"),
        "DATABASE": str(folder / "milvus.db"),
        "EMBEDDINGS": str(weights.locate(weights.BUNDLED_MODEL)),
        "TOP_K": str(TOP_K),
        "OPENAI_API_BASE": upstream,
        "MODEL": MODEL,
        "HF_HUB_OFFLINE": "1",
    }
    arguments = [str(LANGCHAIN / "bin/python"), "-m", "uvicorn", "--app-dir", "bench/peers", "langchain_answer:app"]
    arguments += ["--host", HOST, "--port", str(port), "--no-access-log", "--log-level", "warning"]
    program = Program("langchain", arguments, partial(_serves, f"http://{HOST}:{port}/health"), environment)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        _running(program, folder) as process,
        httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=600, limits=limits) as web,
    ):
        yield Subject({"langchain": process.pid}, LangchainCallers(web))


@asynccontextmanager
async def _running(program: Program, folder: Path) -> AsyncIterator[Process]:
    async with keep_running(program, folder / f"{program.name}.log", LocalSettings(data_dir=folder)) as process:
        await process.serving()
        yield process


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables that programs started in the body inherit."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def _serves(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=1.0, trust_env=False) as web:
            return (await web.get(url)).is_success
    except httpx.TransportError:
        return False
