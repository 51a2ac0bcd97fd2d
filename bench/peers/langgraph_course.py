"""The course of an answer as a LangGraph graph: plan, retrieve, write, with peers that answer at once.

`python langgraph_course.py ANSWERS TOKENS [checkpoint]` prints a JSON object: the CPU seconds of so many answers of so
many tokens, and the events of one. With `checkpoint` the state is kept in memory after each step, as a graph that
remembers a conversation has it. It runs in an environment of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

QUESTION = "How long is leave?"
HITS = ["Employees get 25 days of leave.", "Ask in the portal."]


class Course(TypedDict, total=False):
    """What the steps know of an answer."""

    question: str
    tokens: int
    action: str
    hits: list[str]
    text: str
    citations: list[int]


async def plan(_course: Course) -> Course:
    """Every question is searched for."""
    emit = get_stream_writer()
    emit({"started": uuid.uuid4().hex})
    emit({"stage": "plan", "state": "started"})
    emit({"stage": "plan", "state": "done"})
    return {"action": "retrieve"}


def planned(course: Course) -> str:
    """The step that the plan asks for."""
    return course["action"]


async def retrieve(_course: Course) -> Course:
    """Find the chunks."""
    emit = get_stream_writer()
    emit({"stage": "retrieve", "state": "started"})
    await asyncio.sleep(0)
    emit({"retrieved": HITS})
    emit({"stage": "retrieve", "state": "done"})
    return {"hits": HITS}


def found(course: Course) -> str:
    """Whether there is anything to write from."""
    return "write" if course["hits"] else END


async def write(course: Course) -> Course:
    """Have the answer written, token by token."""
    emit = get_stream_writer()
    emit({"stage": "prompt", "state": "started"})
    emit({"stage": "prompt", "state": "done"})
    emit({"stage": "generate", "state": "started"})
    said: list[str] = []
    async for text in generate(course["tokens"]):
        said.append(text)
        emit({"token": text})
    emit({"citation": 1})
    emit({"stage": "generate", "state": "done"})
    emit({"final": "".join(said)})
    return {"text": "".join(said), "citations": [1]}


async def generate(tokens: int) -> AsyncIterator[str]:
    """So many tokens, the last of which cites."""
    for _ in range(tokens - 1):
        await asyncio.sleep(0)
        yield "leave "
    yield "[1]"


def build(*, checkpoint: bool) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph, compiled."""
    graph = StateGraph(Course)
    graph.add_node("plan", plan)
    graph.add_node("retrieve", retrieve)
    graph.add_node("write", write)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", planned, ["retrieve"])
    graph.add_conditional_edges("retrieve", found, ["write", END])
    graph.add_edge("write", END)
    return graph.compile(checkpointer=InMemorySaver() if checkpoint else None)


async def answer(graph: CompiledStateGraph[Any, Any, Any, Any], tokens: int) -> int:
    """Answer once and return the number of events."""
    config: RunnableConfig = {"configurable": {"thread_id": uuid.uuid4().hex}}
    given: Course = {"question": QUESTION, "tokens": tokens}
    return sum([1 async for _ in graph.astream(given, config, stream_mode="custom")])


async def main() -> None:
    """Answer as often as asked and say what it took."""
    answers, tokens = int(sys.argv[1]), int(sys.argv[2])
    graph = build(checkpoint="checkpoint" in sys.argv)
    events = [await answer(graph, tokens) for _ in range(20)][-1]
    began_s = time.process_time()
    for _ in range(answers):
        await answer(graph, tokens)
    print(json.dumps({"cpu_s": time.process_time() - began_s, "events": events}))


if __name__ == "__main__":
    asyncio.run(main())
