"""What a generation costs: the engine called directly, generator_svc, the whole mesh, and vLLM's own server.

All four run vLLM with the same engine arguments, write answers of the same length to the same chats, and are measured
in turn while the engines of the others are idle. `engine` is AsyncLLM called in this process, the floor;
`generator_svc` is called over gRPC; `mesh` is the same generator_svc behind the gateway and Envoy; `vllm-serve` is
vLLM's OpenAI server with OpenAI's client. The mesh's search is left out of the first token's time.

`cpu_us_per_token` is the CPU time of the serving processes at 32 streams, the engine's process and the caller's left
out; for `engine` it is this process, caller and frontend in one.

MODEL names a model, a folder or a name; without it a tiny random one is made. ROUNDS is the number of rounds.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import uvloop
from openai import AsyncOpenAI

from bench.engine import Engine, open_engine
from bench.harness import Benchmark, Reading, quantile, rounds
from bench.serving import COLLECTION, PASSAGE, Edge, engine_of, open_edge, open_generator, open_vllm_serve
from bench.streams import Heard, Subject, cancel_to_free_ms, load
from deploy.local import services
from deploy.local.settings import HOST, Ports
from gateway import prompting
from gateway.generation import Passage
from ragmesh.gateway.v1 import answers_pb2, answers_pb2_grpc, events_pb2
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from tests.tiny_model import make_tiny_model

BURSTS = {1: 20, 8: 4, 32: 4, 128: 2}
"""How often so many questions are asked at once in a round."""
TOKENS, CPU_STREAMS, CANCELS, CANCELLED_TOKENS = 64, 32, 25, 512
IDENTITY = (("x-ragmesh-tenant", "local"), ("x-ragmesh-subject", "bench"), ("x-ragmesh-scopes", "ask search"))
_TIMEOUT_S = 120.0
_WORDS = {
    "ttft_p50_ms": "first token p50, ms",
    "ttft_p99_ms": "first token p99, ms",
    "itl_p50_ms": "between tokens p50, ms",
    "itl_p99_ms": "between tokens p99, ms",
    "tokens_per_s": "tokens/s",
}
WORDS = {f"{metric}_{n}": f"{words}, at {n}" for n in BURSTS for metric, words in _WORDS.items()} | {
    "cpu_us_per_token": "CPU a token outside the engine, us",
    "ttft_added_ms_1": "first token, added to the floor, ms",
    "cancel_to_free_p99_ms": "from cancel to idle engine p99, ms",
}


async def measure() -> None:
    """Runs the rounds, prints the table and writes `build/bench/generate.json`."""
    benchmark = Benchmark("generate", rounds=rounds(3), floor="engine", words=WORDS)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = os.environ.get("MODEL") or str(make_tiny_model(folder / "model", whole_characters=True))
        subjects = await stack.enter_async_context(_subjects(model, folder))
        for streams in BURSTS:
            await benchmark.run({name: partial(_load, subject, streams) for name, subject in subjects.items()})
        await benchmark.run({name: partial(_cancels, subject) for name, subject in subjects.items()})
    _compare(benchmark)
    print(benchmark.report())


async def _load(subject: Subject, streams: int) -> Mapping[str, Reading]:
    done = await load(subject, streams, BURSTS[streams], TOKENS)
    readings = done.readings(streams)
    if streams == CPU_STREAMS:
        readings["cpu_us_per_token"] = Reading(done.cpu_s / done.tokens * 1e6, "us")
    return readings


async def _cancels(subject: Subject) -> Mapping[str, Reading]:
    times_ms = [await cancel_to_free_ms(subject, CANCELLED_TOKENS) for _ in range(CANCELS)]
    return {"cancel_to_free_p99_ms": Reading(quantile(times_ms, 0.99), "ms")}


def _compare(benchmark: Benchmark) -> None:
    """What each subject adds to the floor's first token, round by round."""
    readings, floor = benchmark.readings, benchmark.readings["ttft_p50_ms_1", "engine"]
    for (metric, subject), own in list(readings.items()):
        if metric == "ttft_p50_ms_1" and subject != "engine":
            pairs = zip(own, floor, strict=True)
            readings["ttft_added_ms_1", subject] = [Reading(mine.value - base.value, "ms") for mine, base in pairs]


@asynccontextmanager
async def _subjects(model: str, folder: Path) -> AsyncGenerator[dict[str, Subject], None]:
    """All four, serving."""
    ports = Ports.free().chosen()
    async with AsyncExitStack() as stack:
        generator = await stack.enter_async_context(open_generator(model, folder, ports))
        edge = await stack.enter_async_context(open_edge(folder, ports))
        # Its port is one that nothing else of this mesh takes.
        vllm = await stack.enter_async_context(open_vllm_serve(model, folder, ports.embedder))
        engine = await stack.enter_async_context(open_engine(model))
        to_generator = await stack.enter_async_context(grpc.aio.insecure_channel(services.address("generator", ports)))
        to_edge = await stack.enter_async_context(grpc.aio.insecure_channel(edge.address))
        client = AsyncOpenAI(base_url=f"http://{HOST}:{ports.embedder}/v1", api_key="none", timeout=_TIMEOUT_S)
        await stack.enter_async_context(client)
        serving = (*(process.pid for process in edge.processes), generator.pid)
        generate = generator_pb2_grpc.GeneratorServiceStub(to_generator)
        yield {
            "engine": Subject(partial(_by_engine, engine), (os.getpid(),), engine_of(os.getpid())),
            "generator_svc": Subject(partial(_by_generator, generate), serving[-1:], engine_of(generator.pid)),
            "mesh": Subject(
                partial(_by_mesh, answers_pb2_grpc.AnswerServiceStub(to_edge), edge), serving, engine_of(generator.pid)
            ),
            "vllm-serve": Subject(partial(_by_openai, client), (vllm.pid,), engine_of(vllm.pid)),
        }


async def _by_engine(engine: Engine, question: str, max_tokens: int, heard: Heard) -> None:
    async with aclosing(engine.generate(request(question, max_tokens))) as pieces:
        async for piece in pieces:
            heard.token(piece.text, piece.tokens)
            heard.total += piece.tokens


async def _by_generator(
    stub: generator_pb2_grpc.GeneratorServiceStub, question: str, max_tokens: int, heard: Heard
) -> None:
    async for part in stub.Generate(request(question, max_tokens), timeout=_TIMEOUT_S, metadata=IDENTITY):
        if part.token_ids:
            heard.token(part.text, len(part.token_ids))
        heard.total = part.usage.completion_tokens or heard.total


async def _by_mesh(
    stub: answers_pb2_grpc.AnswerServiceStub, edge: Edge, question: str, max_tokens: int, heard: Heard
) -> None:
    sampling = generator_pb2.Sampling(temperature=0)
    ask = answers_pb2.AskRequest(
        question=question,
        collection=COLLECTION,
        generation=answers_pb2.GenerationOptions(max_tokens=max_tokens, sampling=sampling),
        cache=answers_pb2.CACHE_POLICY_BYPASS,
    )
    bearer = (("authorization", f"Bearer {edge.token}"),)
    async for response in stub.Ask(ask, timeout=_TIMEOUT_S, metadata=bearer):
        _hear(response.event, heard)


def _hear(event: events_pb2.AnswerEvent, heard: Heard) -> None:
    if event.HasField("token"):
        heard.token(event.token.text, event.token.token_count)
    elif event.HasField("usage"):
        heard.total = event.usage.completion_tokens
    elif event.stage.stage == "retrieve" and event.stage.state == events_pb2.Stage.STATE_DONE:
        heard.search_s = event.stage.duration.ToTimedelta().total_seconds()


async def _by_openai(client: AsyncOpenAI, question: str, max_tokens: int, heard: Heard) -> None:
    system, user = _chat(question)
    stream = await client.chat.completions.create(
        model="model",
        messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    async with stream:
        async for chunk in stream:
            # The first chunk has the role and no token.
            if chunk.choices and not chunk.choices[0].delta.role:
                heard.token(chunk.choices[0].delta.content or "")
            if chunk.usage:
                heard.total = chunk.usage.completion_tokens


def request(question: str, max_tokens: int) -> generator_pb2.GenerateRequest:
    system, user = _chat(question)
    messages = [
        generator_pb2.Message(role=generator_pb2.ROLE_SYSTEM, content=system),
        generator_pb2.Message(role=generator_pb2.ROLE_USER, content=user),
    ]
    return generator_pb2.GenerateRequest(
        chat=generator_pb2.Chat(messages=messages),
        sampling=generator_pb2.Sampling(temperature=0),
        max_tokens=max_tokens,
        ignore_eos=True,
    )


def _chat(question: str) -> tuple[str, str]:
    """The system's and the user's message, as the gateway has them for the question."""
    system, user = prompting.chat(prompting.Parts(question, (Passage(1, PASSAGE, "Leave", 1.0),))).messages
    return system.content, user.content


if __name__ == "__main__":
    uvloop.run(measure())
