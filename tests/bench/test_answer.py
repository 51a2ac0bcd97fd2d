"""What the benchmark of answers rests on."""

import asyncio
import json
from collections.abc import Iterator
from itertools import islice

import pytest

from bench.answer_load import Arrivals, Heard, Load, arriving, closed, distinct
from bench.paced_upstream import Connection, Pace, chunks


class Asked:
    """Answers at once, but for the questions of `failing`; knows what it was asked, by whom, and how many at once."""

    def __init__(self, failing: frozenset[str] = frozenset()) -> None:
        self.questions: list[str] = []
        self.callers: set[int] = set()
        self.running = self.most = 0
        self._failing = failing

    async def __call__(self, question: str, caller: int, heard: Heard) -> None:
        self.questions.append(question)
        self.callers.add(caller)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if question in self._failing:
            raise ConnectionError("gone")
        heard.token()


def numbered() -> Iterator[str]:
    """Questions, more than are asked."""
    return (f"question {number}" for number in range(10_000))


async def test_callers_share_the_questions() -> None:
    """Each question is asked once, no more at a time than there are callers."""
    asked = Asked()
    load = await closed(asked, numbered(), callers=4, count=10, timeout_s=5)
    assert sorted(asked.questions) == sorted(islice(numbered(), 10))
    assert asked.callers == {0, 1, 2, 3}
    assert asked.most == 4
    assert (len(load.heard), load.answered) == (10, 10)


async def test_failures_are_counted_and_leave_the_latencies() -> None:
    """A failure by its words, and what takes too long; neither ends the load."""

    async def ask(question: str, _caller: int, heard: Heard) -> None:
        if question == "question 1":
            await asyncio.Event().wait()
        await Asked(frozenset({"question 0"}))(question, 0, heard)

    load = await closed(ask, numbered(), callers=2, count=4, timeout_s=0.05)
    assert sorted(heard.error for heard in load.heard if heard.error) == ["ConnectionError: gone", "TimeoutError:"]
    readings = load.readings("closed_", 2)
    assert readings["closed_errors_2"].value == 2
    assert readings["closed_total_p99_s_2"].value < 0.05


def test_a_load_without_answers_has_no_latencies() -> None:
    """It still says how many errors there were."""
    load = Load([Heard(error="gone", ended_s=1.0)], wall_s=1.0)
    assert set(load.readings("", 1)) == {"errors_1", "degraded_1", "open_1", "answers_per_s_1"}


def test_arrivals_keep_so_many_open() -> None:
    """By Little's law: as many as arrive in the time of one answer, in order and the same each time."""
    arrivals = Arrivals(streams=500, answer_s=12.0)
    times_s = arrivals.times_s()
    assert times_s == sorted(times_s) == arrivals.times_s()
    assert len(times_s) == pytest.approx(750, rel=0.1)
    assert 0 < times_s[0] < times_s[-1] < arrivals.ends_s == 18.0


async def test_questions_arrive_whatever_goes_on() -> None:
    """Those that come while the others wait count; what is not answered in time is an error."""
    waiting = asyncio.Event()

    async def ask(_question: str, _caller: int, heard: Heard) -> None:
        heard.token()
        await waiting.wait()

    arrivals = Arrivals(streams=20, answer_s=0.05)
    load = await arriving(ask, numbered(), arrivals, grace_s=0.05)
    times_s = arrivals.times_s()
    assert len(load.heard) == len(times_s)
    assert load.answered == 0
    assert load.counted.start == sum(time_s < 0.05 for time_s in times_s)
    assert load.open_streams > load.counted.start


def test_no_question_comes_twice() -> None:
    """Once through, each goes on with a number."""
    assert list(islice(distinct(["Who?", "Why?"]), 5)) == ["Who?", "Why?", "Who? (1)", "Why? (1)", "Who? (2)"]


def test_an_answer_has_the_tokens_asked_for_and_cites() -> None:
    """Words of the last message; the last chunk ends the stream, with the usage where clients look for it."""
    content = "<passage>\nThe harbour opens at six [9].\nBoats are moored.\n</passage>"
    *parts, last = chunks({"messages": [{"role": "user", "content": content}], "max_tokens": 40})
    events = [json.loads(part.split(b"data: ")[1].split(b"\n")[0]) for part in parts]
    texts = [event["choices"][0]["delta"]["content"] for event in events]
    assert len(texts) == 39
    assert "".join(texts[:10]) == " The harbour opens at six Boats are moored. [1] The"
    assert b'"finish_reason": "stop"' in last
    assert b'"completion_tokens": 40' in last
    assert last.endswith(b"data: [DONE]\n\n\r\n")


async def test_a_connection_serves_one_request_after_another() -> None:
    """The list of models, a pace, and an answer that is whole, on one connection."""
    kept = Pace()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(kept), "127.0.0.1", 0)
    async with asyncio.timeout(5), server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: here\r\n\r\n")
        assert b'"id": "paced"' in await reader.readuntil(b"]}")
        pace = b'{"first_s": 0.001, "gap_s": 0.002}'
        writer.write(b"POST /pace HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(pace) + pace)
        assert pace in await reader.readuntil(b"}")
        assert kept == Pace(first_s=0.001, gap_s=0.002)
        chat = b'{"messages": [{"content": "boats"}], "max_tokens": 3}'
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(chat) + chat)
        said = await reader.readuntil(b"\r\n0\r\n\r\n")
        assert said.count(b'"content"') == 3
        writer.close()
        await writer.wait_closed()
