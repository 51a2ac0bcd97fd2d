"""Questions put to the mesh's gateway, and what of their answers is judged."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.retrieval import TENANT, Served, each, open_served
from deploy.local import services
from meshkit.channel import open_channel, peer_errors
from meshkit.identity import Identity
from ragmesh.gateway.v1 import answers_pb2, answers_pb2_grpc, events_pb2

# Quality is judged, not speed: on busy cores, too, no stage is left out for want of time.
_PATIENT = {"RAGMESH_GENERATOR_ENCODER_TIMEOUT_S": "60", "RAGMESH_RETRIEVER_EMBED_TIMEOUT_S": "60"}
NAMES = ("embedder", "generator", "retriever", "ingest", "gateway")
_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its answer.

    `cited` are the documents cited by their ids in the set and `claims` what they are cited for, in the order of the
    text; `grounding` are the sentences' scores, `passages` the chunks found, best first, `scores` theirs.
    """

    question: str
    text: str
    abstained: bool
    claims: tuple[str, ...]
    cited: tuple[str, ...]
    grounding: tuple[float, ...]
    passages: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def confidence(self) -> float:
        """How sure the answer is of itself: 0 where it abstained, else the best grounding and the best hit's score."""
        if self.abstained or not self.grounding:
            return 0.0
        return max(self.grounding) + max(self.scores, default=0.0)


class Asking:
    """Asks the gateway; `open_asking` starts and stops the mesh."""

    def __init__(self, served: Served, stub: answers_pb2_grpc.AnswerServiceStub) -> None:
        self.served = served
        self._stub = stub

    async def ask(self, questions: Mapping[str, str], collection: str) -> dict[str, Asked]:
        """The answers by the questions' keys."""
        asked = await each(self._asked(question, collection) for question in questions.values())
        return dict(zip(questions, asked, strict=True))

    async def _asked(self, question: str, collection: str) -> Asked:
        request = answers_pb2.AskRequest(
            question=question, collection=f"collections/{collection}", cache=answers_pb2.CACHE_POLICY_BYPASS
        )
        hits: Sequence[tuple[str, float]] = ()
        with peer_errors():
            async for response in self._stub.Ask(request, timeout=_TIMEOUT_S):
                if response.event.WhichOneof("event") == "retrieved":
                    hits = [(hit.chunk.text, hit.score) for hit in response.event.retrieved.hits]
        return _read(question, response.event.final, hits)


def _read(question: str, answer: events_pb2.Answer, hits: Sequence[tuple[str, float]]) -> Asked:
    text = answer.text.encode()
    return Asked(
        question=question,
        text=answer.text,
        abstained=answer.finish_reason == events_pb2.FINISH_REASON_ABSTAINED,
        claims=tuple(text[cited.answer.start : cited.answer.end].decode() for cited in answer.citations),
        cited=tuple(cited.uri for cited in answer.citations),
        grounding=tuple(grade.score for grade in answer.grounding),
        passages=tuple(passage for passage, _ in hits),
        scores=tuple(score for _, score in hits),
    )


@asynccontextmanager
async def open_asking(folder: Path, variables: Mapping[str, str] | None = None) -> AsyncIterator[Asking]:
    """The mesh without its edge, with its data and logs in the folder; raises StartError."""
    asker = Identity(TENANT.tenant, TENANT.subject, TENANT.scopes | {"ask"})
    async with open_served(folder, {**_PATIENT, **(variables or {})}, NAMES) as served:
        address = services.address("gateway", served.ports)
        async with open_channel(address, identity=asker) as channel:
            yield Asking(served, answers_pb2_grpc.AnswerServiceStub(channel))


def keep(asked: Mapping[str, Asked], file: Path) -> None:
    """Write the answers as they are, to be looked into; one JSON object a line."""
    file.write_text("".join(json.dumps({"id": key, **asdict(one)}) + "\n" for key, one in asked.items()))
