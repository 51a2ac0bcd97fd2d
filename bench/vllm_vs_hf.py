"""What vLLM gains over plain transformers: requests a second and the first token, at 1, 4, 16 and 64 requests at once.

The same model, chats and lengths, in float32 on one thread. `vllm` is AsyncLLM called directly. `generate` is what a
server of a few lines does: one `generate` at a time, the others wait. `generate, batched` is its best case: all
requests wait for each other and are padded to one batch. Tokens are timed, not text, which transformers' own streamer
holds back until a word ends.

MODEL names a model, a folder or a name; without it a tiny random one is made. ROUNDS is the number of rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from bench.chart import Panel, svg
from bench.engine import Engine, open_engine
from bench.generate import request
from bench.harness import Benchmark, Reading, Row, quantile, rounds
from tests.tiny_model import make_tiny_model

REQUESTS, TOKENS = (1, 4, 16, 64), 64
CHART = Path("docs/vllm-vs-hf.svg")
_TIMEOUT_S = 600.0

Answered = Callable[[Sequence[str]], Any]
"""Answers the questions, all asked at once; awaited, it gives the seconds until the first token of each."""


async def measure() -> list[Row]:
    """Runs the rounds, prints the table, writes `build/bench/vllm_vs_hf.json` and returns its rows."""
    words = {f"requests_per_s_{n}": f"requests/s, at {n}" for n in REQUESTS}
    words |= {f"ttft_p50_ms_{n}": f"first token p50, ms, at {n}" for n in REQUESTS}
    benchmark = Benchmark("vllm_vs_hf", rounds=rounds(3), floor="vllm", words=words)
    with tempfile.TemporaryDirectory() as folder:
        model = os.environ.get("MODEL") or str(make_tiny_model(Path(folder) / "model"))
        async with open_engine(model) as engine:
            plain = Transformers(model)
            subjects: dict[str, Answered] = {
                "vllm": partial(_by_vllm, engine),
                "generate": plain.one_by_one,
                "generate, batched": plain.batched,
            }
            # None is asked the same twice: the prefix cache serves what the prompts share, as it would in earnest.
            numbers = {name: itertools.count() for name in subjects}
            for count in REQUESTS:
                measured = {
                    name: partial(_round, answered, numbers[name], count) for name, answered in subjects.items()
                }
                await benchmark.run(measured, timeout_s=_TIMEOUT_S)
    print(benchmark.report())
    return benchmark.rows()


def chart(rows: Sequence[Row]) -> str:
    """Both figures over the number of requests."""
    panels = [("requests_per_s", "Throughput", "requests/s"), ("ttft_p50_ms", "First token, median", "ms")]
    return svg([Panel(title, unit, _lines(rows, metric)) for metric, title, unit in panels], "requests at once")


def _lines(rows: Sequence[Row], metric: str) -> dict[str, list[tuple[int, float]]]:
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row.metric.startswith(metric):
            lines.setdefault(row.subject, []).append((int(row.metric.rpartition("_")[2]), row.value))
    return lines


async def _round(answered: Answered, numbers: Iterator[int], count: int) -> Mapping[str, Reading]:
    questions = [f"What is said of the harbour in line {number}?" for number in itertools.islice(numbers, count)]
    began_s = time.perf_counter()
    first_s = await answered(questions)
    wall_s = time.perf_counter() - began_s
    return {
        f"requests_per_s_{count}": Reading(count / wall_s, "requests/s"),
        f"ttft_p50_ms_{count}": Reading(quantile(first_s, 0.5) * 1000, "ms"),
    }


async def _by_vllm(engine: Engine, questions: Sequence[str]) -> list[float]:
    began_s = time.perf_counter()

    async def first_s(question: str) -> float:
        at_s = 0.0
        async with aclosing(engine.generate(request(question, TOKENS))) as pieces:
            async for _ in pieces:
                at_s = at_s or time.perf_counter() - began_s
        return at_s

    return await asyncio.gather(*map(first_s, questions))


class Transformers:
    """A model run by `generate`; lives as long as the process."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(self._device)
        # As ignore_eos does.
        self._model.generation_config.eos_token_id = None

    async def one_by_one(self, questions: Sequence[str]) -> list[float]:
        """Each question when the one before is answered."""
        began_s = time.perf_counter()
        return [await asyncio.to_thread(self._generate, [question], began_s) for question in questions]

    async def batched(self, questions: Sequence[str]) -> list[float]:
        """All questions in one padded batch."""
        first_s = await asyncio.to_thread(self._generate, questions, time.perf_counter())
        return [first_s] * len(questions)

    def _generate(self, questions: Sequence[str], began_s: float) -> float:
        chats = [
            [{"role": role, "content": said.content} for role, said in zip(("system", "user"), messages, strict=True)]
            for messages in (request(question, TOKENS).chat.messages for question in questions)
        ]
        rendered = [
            self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats
        ]
        given = self._tokenizer(rendered, return_tensors="pt", padding=True, add_special_tokens=False)
        times = _Times(began_s)
        self._model.generate(**given.to(self._device), max_new_tokens=TOKENS, do_sample=False, streamer=times)
        return times.first_s


class _Times:
    """A streamer, as transformers has them: is given the prompt, then the tokens of each step."""

    def __init__(self, began_s: float) -> None:
        self.first_s = 0.0
        self._began_s = began_s
        self._steps = 0

    def put(self, _tokens: Any) -> None:
        """Takes what a step made."""
        self._steps += 1
        if self._steps == 2:  # noqa: PLR2004 - the prompt is the first
            self.first_s = time.perf_counter() - self._began_s

    def end(self) -> None:
        """There is nothing to end."""


def main() -> None:
    """Measure, and with DOCS=1 draw the chart."""
    rows = asyncio.run(measure())
    if os.environ.get("DOCS") == "1":
        CHART.write_text(chart(rows))


if __name__ == "__main__":
    main()
