"""What the course of an answer costs by itself: the gateway's state machine beside the same steps in LangGraph.

Peers answer at once, so that nothing but the course is measured: its steps, their events handed to a reader through a
queue, the answer kept in memory. An answer of one token has what an answer costs, one of many what a token adds.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from bench.harness import Benchmark, Reading, rounds
from bench.ingest_peers import LANGCHAIN
from gateway.answers import Answer
from gateway.events import Event
from gateway.generation import Delta, Ending
from tests.gateway.in_memory import World

ANSWERS, TOKENS = 500, 101
_WARM_ANSWERS = 20
_SCRIPT = "bench/peers/langgraph_course.py"
WORDS = {
    "answer_us": "an answer of one token, us",
    "token_us": "each further token, us",
    "events": "events of an answer of one token",
}


Run = Callable[[int], Awaitable[tuple[float, int]]]
"""Answers of so many tokens: the CPU seconds of all, and the events of one."""


async def measure() -> None:
    """Runs the rounds, prints the table and writes `build/bench/course.json`."""
    subjects = {
        "ragmesh": partial(_figures, _ours),
        "langgraph": partial(_figures, _langgraph),
        "langgraph, checkpoints": partial(_figures, partial(_langgraph, options=("checkpoint",))),
    }
    benchmark = Benchmark("course", rounds=rounds(3), floor="ragmesh", words=WORDS)
    await benchmark.run(subjects)
    print(benchmark.report())


async def _figures(run: Run) -> Mapping[str, Reading]:
    """CPU microseconds of an answer and of a token."""
    short_s, events = await run(1)
    long_s, _ = await run(TOKENS)
    return {
        "answer_us": Reading(short_s / ANSWERS * 1e6, "us"),
        "token_us": Reading((long_s - short_s) / ANSWERS / (TOKENS - 1) * 1e6, "us"),
        "events": Reading(events, "events"),
    }


async def _ours(tokens: int) -> tuple[float, int]:
    """CPU seconds of the answers, and the events of one."""
    world = World()
    world.generator.deltas = [*[Delta("leave ", 1)] * (tokens - 1), Delta("[1]", 1, Ending.STOP)]
    events = [await _answer(world) for _ in range(_WARM_ANSWERS)][-1]
    began_s = time.process_time()
    for _ in range(ANSWERS):
        await _answer(world)
    return time.process_time() - began_s, events


async def _answer(world: World) -> int:
    """Answer once, read event by event, and return their number."""
    queue: asyncio.Queue[Event] = asyncio.Queue(64)
    running = asyncio.create_task(world.begin().run(queue.put))
    events = 1
    while not isinstance(await queue.get(), Answer):
        events += 1
    await running
    return events


async def _langgraph(tokens: int, options: tuple[str, ...] = ()) -> tuple[float, int]:
    """The same by the graph, in its own environment; raises RuntimeError where it fails."""
    process = await asyncio.create_subprocess_exec(
        *(
            "setpriv",
            "--pdeathsig",
            "KILL",
            str(LANGCHAIN / "bin/python"),
            _SCRIPT,
            str(ANSWERS),
            str(tokens),
            *options,
        ),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "LANGSMITH_TRACING": "false"},
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the LangGraph script failed")
    figures = json.loads(said.splitlines()[-1])
    return figures["cpu_s"], figures["events"]


if __name__ == "__main__":
    asyncio.run(measure())
