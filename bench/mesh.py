"""What each hop adds to the first token and to every later one: engine, generator_svc, gateway, Envoy gRPC, Envoy SSE.

All five say the same: a tiny random language model on vLLM's CPU build, the same prompt, as many tokens. The gateway
also searches before it generates; `first_token_ms` leaves the search out and `search_ms` shows it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx

from bench.engine import Engine, open_engine
from bench.harness import Benchmark, Reading, rounds, watching
from deploy.local import services
from deploy.local.mesh import Mesh, open_mesh
from deploy.local.settings import LocalSettings, Ports
from gateway import prompting
from gateway.generation import Chat, Passage
from ragmesh.gateway.v1 import answers_pb2, answers_pb2_grpc, events_pb2
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from ragmesh_client import Client
from tests.tiny_model import make_tiny_model

ANSWERS_A_ROUND, TOKENS = 5, 64
_PROCESSES = ("redis", *services.SERVICES, "envoy")
WORDS = {
    **{f"cpu_us_per_token_{name}": f"CPU of {name}, us a token" for name in _PROCESSES},
    **{f"peak_mb_{name}": f"peak memory of {name}, MB" for name in _PROCESSES},
    "first_token_ms": "first token, ms",
    "token_gap_ms": "gap between tokens, ms",
    "tokens": "messages an answer",
    "search_ms": "search, ms",
}
COLLECTION = "collections/bench"
QUESTION = "What is said of the harbour?"
PAGE = "# The harbour\n\nThe harbour opens at six in the morning. Boats are moored by the eastern pier.\n"
IDENTITY = (("x-ragmesh-tenant", "local"), ("x-ragmesh-subject", "bench"), ("x-ragmesh-scopes", "ask search"))


@dataclass
class Heard:
    """When things came, in seconds since the question was sent."""

    began: float = field(default_factory=time.perf_counter)
    tokens_s: list[float] = field(default_factory=list)
    search_s: float = 0.0

    def token(self) -> None:
        """A piece of the text has come."""
        self.tokens_s.append(time.perf_counter() - self.began)

    def event(self, event: events_pb2.AnswerEvent) -> None:
        """An event of an answer has come."""
        if event.HasField("token"):
            self.token()
        if event.stage.stage == "retrieve" and event.stage.state == events_pb2.Stage.STATE_DONE:
            self.search_s = event.stage.duration.ToTimedelta().total_seconds()

    @property
    def first_ms(self) -> float:
        """Until the first token, the search left out."""
        return (self.tokens_s[0] - self.search_s) * 1000

    @property
    def gap_ms(self) -> float:
        """Between two tokens, on average over the answer."""
        return (self.tokens_s[-1] - self.tokens_s[0]) / (len(self.tokens_s) - 1) * 1000


Say = Callable[[], Awaitable[Heard]]
"""Asks once and hears the whole answer."""


async def measure() -> None:
    """Runs the rounds, prints the table and writes `build/bench/mesh.json`."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = make_tiny_model(folder / "model")
        engine = await stack.enter_async_context(open_engine(str(model)))
        mesh = await stack.enter_async_context(_filled_mesh(folder, model))
        subjects = await stack.enter_async_context(_subjects(engine, mesh))
        pids = {name: process.pid for name, process in mesh.processes.items()}
        measured = {name: _round(name, say, pids if name != "engine" else {}) for name, say in subjects.items()}
        benchmark = Benchmark("mesh", rounds=rounds(5), floor="engine", words=WORDS)
        await benchmark.run(measured)
    print(benchmark.report())


def _round(subject: str, say: Say, pids: Mapping[str, int]) -> Callable[[], Awaitable[Mapping[str, Reading]]]:
    async def run() -> Mapping[str, Reading]:
        with watching(pids) as usage:
            answers = [await say() for _ in range(ANSWERS_A_ROUND)]
        readings = {
            "first_token_ms": Reading(statistics.median(heard.first_ms for heard in answers), "ms"),
            "token_gap_ms": Reading(statistics.median(heard.gap_ms for heard in answers), "ms"),
            "tokens": Reading(statistics.median(len(heard.tokens_s) for heard in answers), "messages"),
        }
        if searched := [heard.search_s * 1000 for heard in answers if heard.search_s]:
            readings["search_ms"] = Reading(statistics.median(searched), "ms")
        spoken = sum(len(heard.tokens_s) for heard in answers)
        for name, used in usage.items():
            readings[f"cpu_us_per_token_{name}"] = Reading(used.cpu_s / spoken * 1e6, "us")
            # The same processes serve every subject, so one of them shows their memory.
            if subject == "envoy gRPC":
                readings[f"peak_mb_{name}"] = Reading(used.peak_mb, "MB")
        return readings

    return run


@asynccontextmanager
async def _filled_mesh(folder: Path, model: Path) -> AsyncGenerator[Mesh, None]:
    settings = LocalSettings(data_dir=folder / "data", ports=Ports.free(), generator_model=str(model))
    async with open_mesh(settings) as mesh:
        async with Client(mesh.edge, mesh.token()) as client:
            await client.create_collection(COLLECTION.removeprefix("collections/"))
            async for step in client.upload(PAGE.encode(), COLLECTION, uri="harbour.md"):
                if step.HasField("error"):
                    raise RuntimeError(step.error.message)
        yield mesh


@asynccontextmanager
async def _subjects(engine: Engine, mesh: Mesh) -> AsyncGenerator[dict[str, Say], None]:
    """The five subjects, each with a connection of its own that stays open."""
    async with AsyncExitStack() as stack:
        to_generator = await stack.enter_async_context(grpc.aio.insecure_channel(mesh.addresses["generator"]))
        to_gateway = await stack.enter_async_context(grpc.aio.insecure_channel(mesh.addresses["gateway"]))
        to_edge = await stack.enter_async_context(grpc.aio.insecure_channel(mesh.edge))
        web = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{mesh.edge}", timeout=60))
        bearer = (("authorization", f"Bearer {mesh.token()}"),)
        yield {
            "engine": lambda: _by_engine(engine),
            "generator_svc": lambda: _by_generator(generator_pb2_grpc.GeneratorServiceStub(to_generator)),
            "gateway": lambda: _by_ask(answers_pb2_grpc.AnswerServiceStub(to_gateway), IDENTITY),
            "envoy gRPC": lambda: _by_ask(answers_pb2_grpc.AnswerServiceStub(to_edge), bearer),
            "envoy SSE": lambda: _by_sse(web, dict(bearer)),
        }


async def _by_engine(engine: Engine) -> Heard:
    heard = Heard()
    async with aclosing(engine.generate(_request())) as deltas:
        async for piece in deltas:
            if piece.text:
                heard.token()
    return heard


async def _by_generator(stub: generator_pb2_grpc.GeneratorServiceStub) -> Heard:
    heard = Heard()
    async for part in stub.Generate(_request(), timeout=60, metadata=IDENTITY):
        if part.text:
            heard.token()
    return heard


async def _by_ask(stub: answers_pb2_grpc.AnswerServiceStub, metadata: tuple[tuple[str, str], ...]) -> Heard:
    heard = Heard()
    async for response in stub.Ask(_ask(), timeout=60, metadata=metadata):
        heard.event(response.event)
    return heard


async def _by_sse(web: httpx.AsyncClient, headers: dict[str, str]) -> Heard:
    heard = Heard()
    body = {
        "question": QUESTION,
        "cache": "CACHE_POLICY_BYPASS",
        "collection": COLLECTION,
        "generation": {"max_tokens": TOKENS, "sampling": {"temperature": 0}},
    }
    async with web.stream("POST", "/v1/answers:sse", json=body, headers=headers) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            if line.startswith("data:"):
                event = json.loads(line.removeprefix("data:"))["event"]
                if "token" in event:
                    heard.token()
                if event.get("stage", {}).get("stage") == "retrieve" and event["stage"]["state"] == "STATE_DONE":
                    heard.search_s = float(event["stage"]["duration"].rstrip("s"))
    return heard


def _ask() -> answers_pb2.AskRequest:
    sampling = generator_pb2.Sampling(temperature=0)
    generation = answers_pb2.GenerationOptions(max_tokens=TOKENS, sampling=sampling)
    fresh = answers_pb2.CACHE_POLICY_BYPASS
    return answers_pb2.AskRequest(question=QUESTION, collection=COLLECTION, generation=generation, cache=fresh)


def _request() -> generator_pb2.GenerateRequest:
    """What the gateway asks of the generator for the question."""
    roles = {"system": generator_pb2.ROLE_SYSTEM, "user": generator_pb2.ROLE_USER}
    messages = [
        generator_pb2.Message(role=roles[message.role], content=message.content) for message in _chat().messages
    ]
    return generator_pb2.GenerateRequest(
        chat=generator_pb2.Chat(messages=messages),
        sampling=generator_pb2.Sampling(temperature=0),
        max_tokens=TOKENS,
    )


def _chat() -> Chat:
    passage = Passage(1, PAGE.split("\n\n")[1].strip(), "The harbour", 1.0)
    return prompting.chat(prompting.Parts(QUESTION, (passage,)))


if __name__ == "__main__":
    asyncio.run(measure())
