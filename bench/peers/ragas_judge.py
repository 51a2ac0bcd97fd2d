"""Ragas as judge: reads answers from standard input, {question, text, passages} a line, and writes their mean scores.

It has an environment of its own (bench/ragas.txt) and none of the project. JUDGE_URL, JUDGE_MODEL and JUDGE_KEY name
the language model, at an OpenAI-compatible endpoint.
"""

import asyncio
import json
import os
import sys

from openai import AsyncOpenAI
from ragas.llms import llm_factory
from ragas.metrics.collections import ContextPrecisionWithoutReference, Faithfulness

_AT_ONCE = 4


async def main() -> None:
    """Score every line and write {metric: [scores]} as one JSON object; a line that cannot be scored is left out."""
    client = AsyncOpenAI(base_url=os.environ["JUDGE_URL"], api_key=os.environ.get("JUDGE_KEY") or "none")
    llm = llm_factory(os.environ["JUDGE_MODEL"], client=client)
    metrics = {"faithfulness": Faithfulness(llm=llm), "context precision": ContextPrecisionWithoutReference(llm=llm)}
    slots = asyncio.Semaphore(_AT_ONCE)

    async def score(metric: Faithfulness | ContextPrecisionWithoutReference, line: str) -> float | None:
        asked = json.loads(line)
        async with slots:
            try:
                result = await metric.ascore(
                    user_input=asked["question"], response=asked["text"], retrieved_contexts=asked["passages"]
                )
            except Exception as error:  # noqa: BLE001 - whatever a model's reply did to it
                print(f"ragas: {error!r}", file=sys.stderr)
                return None
        return float(result.value)

    lines = sys.stdin.read().splitlines()
    found = {}
    for name, metric in metrics.items():
        scores = await asyncio.gather(*(score(metric, line) for line in lines))
        found[name] = [each for each in scores if each is not None and each == each]  # noqa: PLR0124 - not a number
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
