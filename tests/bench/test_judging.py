"""A judge over an OpenAI-compatible endpoint."""

from dataclasses import replace

import pytest

from bench.judging import Judge, drawn, judged
from tests.bench.test_eval_answers import QUOTED, SILENT
from tests.generator_svc.scripted_upstream import Exchange, scripted_upstream

REPLIES = {
    "One?": '{"faithfulness": 5, "relevance": 3}',
    "Two?": '{"faithfulness": 3, "relevance": 1}',
    "Three?": "Very good.",
    "Four?": '{"faithfulness": 9, "relevance": 1}',
}


async def _reply(exchange: Exchange) -> None:
    """Grade by the question."""
    shown = exchange.body["messages"][-1]["content"]
    reply = next(reply for question, reply in REPLIES.items() if f"<question>{question}</question>" in shown)
    await exchange.refuse(200, {"choices": [{"message": {"content": reply}}]})


async def test_answers_are_graded_by_the_model() -> None:
    """The mean of the grades on a scale of 0 to 1; replies in another form count for nothing."""
    answers = [replace(QUOTED, question=question) for question in REPLIES]
    async with scripted_upstream(_reply) as upstream:
        rows = await judged(Judge(upstream.url, "judge", "secret"), "s", answers)
    assert [(row.metric, row.value, row.rounds) for row in rows] == [
        ("judged faithfulness", 0.75, 2),
        ("judged relevance", 0.25, 2),
    ]
    asked = upstream.asked[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.body["model"] == "judge"
    assert asked.body["response_format"]["json_schema"]["schema"]["required"] == ["faithfulness", "relevance"]
    assert QUOTED.passages[0] in asked.body["messages"][-1]["content"]
    assert QUOTED.text in asked.body["messages"][-1]["content"]


async def test_no_usable_reply_gives_no_figure() -> None:
    """Rather than one that means nothing."""
    async with scripted_upstream(_reply) as upstream:
        assert await judged(Judge(upstream.url, "judge"), "s", [replace(QUOTED, question="Three?")]) == []


def test_judge_is_shown_so_many_answers_that_were_given() -> None:
    """Always the same ones; an abstention says nothing to be graded."""
    judge = Judge("http://judge/v1", "judge", count=2)
    answers = [SILENT, *(replace(QUOTED, question=str(n)) for n in range(9))]
    assert len(drawn(judge, answers)) == 2
    assert SILENT not in drawn(replace(judge, count=99), answers)
    assert drawn(judge, answers) == drawn(judge, answers)


def test_judge_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None where there is no address or no model."""
    monkeypatch.delenv("JUDGE_URL", raising=False)
    monkeypatch.setenv("JUDGE_MODEL", "m")
    assert Judge.from_environment() is None
    monkeypatch.setenv("JUDGE_URL", "http://judge/v1")
    monkeypatch.setenv("JUDGED", "7")
    assert Judge.from_environment() == Judge("http://judge/v1", "m", "", 7)
