"""Whether an answer or a turn is lost or doubled when what works on it is killed.

Callers hold conversations through Envoy, a question at a time, while victims in rounds drawn by SEED are sent SIGKILL
at random moments and nobody helps: gateway, generator_svc, retriever_svc, Redis. The model keeps a pace, so that an
answer takes a second or so. One stream in four is broken by its caller, who takes the answer up again, and so does the
client by itself where the edge breaks one. Each stream has to end with a final event or an error with a published
reason, its numbers without gaps; and each conversation to hold every question that was begun once, with what was said.
Ends with exit code 1 where something did not.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.answer_subjects import keep_pace, open_upstream
from bench.harness import Row, document, write
from bench.paced_upstream import Pace
from deploy.local.mesh import Mesh, open_mesh
from deploy.local.settings import LocalSettings, Ports
from ragmesh.common.v1 import error_reason_pb2
from ragmesh.gateway.v1 import events_pb2, sessions_pb2
from ragmesh_client import Client, Failed, Final, NotFoundError, RagmeshError, Started, Token

VICTIMS = ("gateway", "generator", "retriever", "redis")
CALLERS, TURNS = 8, 5
"""Conversations at once, and the questions of each."""
COLLECTION = "handbook"
_PAGE = "# Leave\n\nEvery employee has thirty days of paid leave a year. Parents may take six months of unpaid leave.\n"
_TIMEOUT_S = 60.0
_LINGER_S = 20.0
_PACE = Pace(first_s=0.02, gap_s=0.02)
_REASONS = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118 - an enum of protobuf, which has no other way
_LIMITS = ("ASK_BURST", "ASK_PER_SECOND", "OTHER_BURST", "OTHER_PER_SECOND")


@dataclass
class Asked:
    """A question and what its caller heard."""

    question: str
    answer: str = ""
    sequences: list[int] = field(default_factory=list)
    text: str = ""
    final: events_pb2.Answer | None = None
    error: RagmeshError | None = None
    broken: bool = False
    """Whether the caller broke the stream."""
    failed: bool = False
    """Whether an event told that it failed: that is its end, whatever the reason."""

    @property
    def end(self) -> str:
        """How it ended, in a word."""
        if self.final:
            return f"final, {'taken up' if self.broken else 'one stream'}"
        return self.error.reason or "no reason" if self.error else "nothing"

    def wrong(self) -> list[str]:
        """What the stream should not have been."""
        wrong = []
        if self.sequences != list(range(1, len(self.sequences) + 1)):
            wrong.append(f"numbers {self.sequences}")
        if not self.final and (not self.error or self.error.reason not in _REASONS):
            wrong.append(f"ended with {self.error!r}")
        # Who has read more than the journal of a gateway that died finds the rest in the final event only.
        if self.final and not self.final.text.startswith(self.text):
            wrong.append(f"heard {self.text!r}, final is {self.final.text!r}")
        return [f"{self.question}: {each}" for each in wrong]


@dataclass
class Fire:
    """The killing of victims; `unwell` are the callers who wait until the mesh is whole, for whom it waits."""

    mesh: Mesh
    chance: random.Random
    usual_s: float
    kills: Counter[str] = field(default_factory=Counter)
    unwell: int = 0

    async def rage(self) -> None:
        """Kill one victim after another at a random moment of two answers, for ever; each comes once in a round."""
        waiting: list[str] = []
        while True:
            await asyncio.sleep(self.chance.uniform(0, 2 * self.usual_s))
            waiting = waiting or self.chance.sample(VICTIMS, len(VICTIMS))
            victim = waiting.pop()
            self.mesh.processes[victim].kill()
            self.kills[victim] += 1
            await asyncio.sleep(self.usual_s)
            await self.mesh.processes[victim].serving()
            while self.unwell:  # noqa: ASYNC110 - looked at now and then, by one
                await asyncio.sleep(0.1)

    async def out(self, client: Client, session: str) -> None:
        """Until questions are answered again: who is told that the mesh is away comes back when it is not.

        In a conversation, so that no cache answers, and of something that the model has to write.
        """
        self.unwell += 1
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                while True:
                    try:
                        await client.ask_once("How long is parents' leave?", COLLECTION, session=session)
                        return
                    except RagmeshError:
                        await asyncio.sleep(0.3)
        finally:
            self.unwell -= 1


class Talk:
    """One conversation of a caller's."""

    def __init__(self, fire: Fire, session: str, chance: random.Random) -> None:
        self._fire = fire
        self._mesh = fire.mesh
        self.session = session
        self._chance = chance
        self.asked: list[Asked] = []

    async def hold(self, turns: int) -> None:
        """Ask the questions one after another."""
        async with self._client() as client:
            for number in range(turns):
                asked = Asked(f"{self.session}, question {number}: how many days of leave does an employee have?")
                self.asked.append(asked)
                try:
                    await self._ask(client, asked)
                except (RagmeshError, TimeoutError) as error:
                    asked.error = error if isinstance(error, RagmeshError) else None
                    await self._fire.out(client, f"{self.session}-out")

    async def _ask(self, client: Client, asked: Asked) -> None:
        breaks_at = self._chance.randint(8, 40) if self._chance.random() < 0.25 else 0  # noqa: PLR2004 - one in four
        events = client.ask(asked.question, COLLECTION, session=self.session, linger_s=_LINGER_S, timeout_s=_TIMEOUT_S)
        async with aclosing(events):
            async for event in events:
                _hear(asked, event)
                if asked.answer and len(asked.sequences) == breaks_at and not isinstance(event, Failed | Final):
                    asked.broken = True
                    break
        if asked.broken:
            await asyncio.sleep(self._chance.uniform(0, 1))
            await self._take_up(client, asked)

    async def _take_up(self, client: Client, asked: Asked) -> None:
        """Until it has its end; a mesh that is away is tried again, as the client does by itself."""
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                try:
                    async for event in client.resume_answer(asked.answer, after_sequence=len(asked.sequences)):
                        _hear(asked, event)
                    return
                except RagmeshError as error:
                    if asked.failed or error.reason not in ("PEER_UNAVAILABLE", "DRAINING", "STORE_UNAVAILABLE"):
                        raise
                    await asyncio.sleep(0.3)

    async def wrong(self) -> list[str]:
        """What should not be: of the streams, and of the turns that the conversation has now."""
        turns: dict[str, list[sessions_pb2.Turn]] = {}
        with suppress(NotFoundError):
            async with self._client() as client:
                for turn in (await client.get_session(self.session)).turns:
                    turns.setdefault(turn.question, []).append(turn)
        wrong = [each for asked in self.asked for each in asked.wrong()]
        for asked in self.asked:
            wrong += _wrong_turns(asked, turns.get(asked.question, []))
        return wrong

    def _client(self) -> Client:
        return Client(self._mesh.edge, self._mesh.token(subject=self.session), timeout_s=_TIMEOUT_S)


def _hear(asked: Asked, event: object) -> None:
    match event:
        case Started():
            asked.answer = event.answer
        case Token():
            asked.text += event.text
        case Final():
            asked.final = event.answer
        case Failed():
            asked.failed = True
    asked.sequences.append(getattr(event, "sequence", 0))


def _wrong_turns(asked: Asked, turns: Sequence[sessions_pb2.Turn]) -> list[str]:
    if len(turns) > 1:
        return [f"{asked.question}: {len(turns)} turns"]
    if not turns:
        return [f"{asked.question}: no turn, {asked.end}"] if asked.final or asked.text else []
    (turn,) = turns
    told = asked.final and any(left.stage == "session" for left in asked.final.degradations)
    if asked.final and not told and turn.text != asked.final.text:
        return [f"{asked.question}: the turn has {turn.text!r}"]
    return []


async def measure(answers: int, seed: int) -> bool:
    """Has so many answers given under fire, prints what became of them, writes `build/bench/answer-faults.json`."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    talks: list[Talk] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with open_upstream(folder) as upstream:
            await keep_pace(upstream, _PACE)
            # For as long as the mesh runs: a process that is started again inherits them too.
            os.environ["RAGMESH_GENERATOR_UPSTREAM_URL"] = upstream
            settings = LocalSettings(
                data_dir=folder / "mesh", ports=Ports.free(), edge=dict.fromkeys(_LIMITS, "100000")
            )
            async with open_mesh(settings) as mesh:
                await _fill(mesh)
                fire = Fire(mesh, chance, await _usual_s(mesh))
                killing = asyncio.create_task(fire.rage())
                await _talk(fire, answers, talks)
                killing.cancel()
                await asyncio.wait({killing})
                for process in mesh.processes.values():
                    await process.serving()
                # What could not be kept while Redis was away is kept a moment after.
                await asyncio.sleep(2)
                wrong = [each for talk in talks for each in await talk.wrong()]
    _report(talks, fire, wrong)
    return not wrong


async def _talk(fire: Fire, answers: int, talks: list[Talk]) -> None:
    """Some conversations at once until there are so many answers."""
    left = iter(range(-(-answers // TURNS)))

    async def caller() -> None:
        for number in left:
            talk = Talk(fire, f"talk-{number}", random.Random(fire.chance.random()))  # noqa: S311
            talks.append(talk)
            await talk.hold(TURNS)
            print(f"{talk.session}: {dict(Counter(asked.end for asked in talk.asked))}", file=sys.stderr)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())


async def _usual_s(mesh: Mesh) -> float:
    """Seconds that an answer takes when nobody disturbs it, after the first one, which warms up."""
    talk = Talk(Fire(mesh, random.Random(0), 0.0), "undisturbed", random.Random(0))  # noqa: S311
    await talk.hold(1)
    began_s = time.monotonic()
    await talk.hold(1)
    return time.monotonic() - began_s


async def _fill(mesh: Mesh) -> None:
    async with Client(mesh.edge, mesh.token()) as client:
        await client.create_collection(COLLECTION)
        async for _ in client.upload(_PAGE.encode(), COLLECTION, uri="leave.md"):
            pass


def _report(talks: Sequence[Talk], fire: Fire, wrong: Sequence[str]) -> None:
    asked = [each for talk in talks for each in talk.asked]
    ends = Counter(each.end for each in asked)
    table = Table("answers ended with", "times")
    for end, count in ends.most_common():
        table.add_row(end, str(count))
    console = Console(width=120)
    console.print(table)
    console.print(
        f"{len(asked)} answers in {len(talks)} conversations; killed: {dict(fire.kills)}; wrong: {len(wrong)}"
    )
    for words in wrong:
        console.print(words, markup=False)
    rows = [Row("answers", "ragmesh", len(asked), "answers", 1), Row("wrong", "ragmesh", len(wrong), "answers", 1)]
    rows += [Row(f"ended: {end}", "ragmesh", count, "answers", 1) for end, count in ends.items()]
    rows += [Row(f"killed: {victim}", "ragmesh", fire.kills[victim], "times", 1) for victim in VICTIMS]
    write("answer-faults", rows)
    document("answer-faults", rows)


if __name__ == "__main__":
    whole = asyncio.run(measure(int(os.environ.get("ANSWERS", "200")), int(os.environ.get("SEED", "1"))))
    raise SystemExit(0 if whole else 1)
