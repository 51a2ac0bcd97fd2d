"""Questions and answers, and where answers are kept."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from gateway.failures import Failure
from gateway.generation import Usage, Writing
from gateway.retrieval import Degradation, SearchMode, Span
from gateway.tools import Tool, ToolCall, ToolExchange
from meshkit.errors import not_found
from meshkit.identity import Identity


@dataclass(frozen=True, slots=True)
class Exchange:
    """An earlier question of a conversation and the text that answered it."""

    question: str
    text: str


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How to search; `top_k` 0 leaves the number of chunks to the gateway."""

    mode: SearchMode = SearchMode.HYBRID
    top_k: int = 0
    filter: str = ""
    rerank: bool = False
    diversity: float = 0.0
    window: int = 0


@dataclass(frozen=True, slots=True)
class Planning:
    """How to plan; None leaves a matter to the gateway.

    `server_tools` names the mesh's own tools that may be called, ("none",) for none of them; `search_collections` the
    other collections that its search may look in. `must_call` asks for a call of one of the caller's tools, whatever
    the question; without `parallel_calls` the caller runs one at a time.
    """

    rewrite: bool | None = None
    hyde: bool | None = None
    decompose: bool | None = None
    max_retrieval_rounds: int | None = None
    server_tools: tuple[str, ...] = ()
    search_collections: tuple[str, ...] = ()
    must_call: bool = False
    parallel_calls: bool = True


class CachePolicy(Enum):
    """Whether an earlier answer may be sent again; the values are the contract's numbers."""

    USE = 1
    REFRESH = 2
    BYPASS = 3


@dataclass(frozen=True, slots=True)
class Question:
    """A question and how to answer it.

    `session` is the id of the conversation, "" to begin one, None for a caller who keeps the conversation and
    hands its `history` over, oldest first. `tools` are the caller's own, `tool_exchanges` what they have answered to
    this question already. `linger_s` is how long the answer goes on for a caller who is gone. The same
    `request_id` gives the same answer again; "" for none.
    """

    text: str
    collection: str
    session: str | None = ""
    history: tuple[Exchange, ...] = ()
    model: str = ""
    retrieval: Retrieval = field(default_factory=Retrieval)
    writing: Writing = field(default_factory=Writing)
    planning: Planning = field(default_factory=Planning)
    tools: tuple[Tool, ...] = ()
    tool_exchanges: tuple[ToolExchange, ...] = ()
    cache: CachePolicy = CachePolicy.USE
    linger_s: float = 0.0
    request_id: str = ""


class FinishReason(Enum):
    """Why an answer ended; the values are the contract's numbers."""

    STOP = 1
    LENGTH = 2
    ABSTAINED = 3
    INTERRUPTED = 4
    FAILED = 5
    TOOL_CALL = 6


class Abstention(Enum):
    """Why an answer was not given; the values are the contract's numbers."""

    NONE = 0
    NO_RELEVANT_CHUNKS = 1
    INSUFFICIENT_SUPPORT = 2
    CONFLICTING_SOURCES = 3
    OUT_OF_TIME = 4


@dataclass(frozen=True, slots=True)
class Citation:
    """A claim of an answer (`answer`, a span of its text) and the place in a document that supports it."""

    number: int
    answer: Span
    chunk: str
    document: str
    source: Span
    title: str = ""
    uri: str = ""
    page: int = 0
    heading_path: tuple[str, ...] = ()
    quote: str = ""
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """When a stage began, in seconds from the arrival of the question, and how long it took."""

    stage: str
    start_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Grounding:
    """How well a sentence of an answer (`answer`, a span of its text) is supported, from 0 to 1, and by which hits."""

    answer: Span
    score: float
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, whole or as far as it came; `session` is "" where the caller keeps the conversation."""

    id: str
    session: str
    collection: str
    question: str
    text: str
    finish_reason: FinishReason
    model: str = ""
    abstention: Abstention = Abstention.NONE
    citations: tuple[Citation, ...] = ()
    failure: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    timings: tuple[Timing, ...] = ()
    degradations: tuple[Degradation, ...] = ()
    grounding: tuple[Grounding, ...] = ()
    cached: bool = False
    tool_calls: tuple[ToolCall, ...] = ()


class AnswerStore(Protocol):
    """Keeps answers for a while, each for the caller who asked; raises Unavailable STORE_UNAVAILABLE."""

    async def save(self, owner: Identity, answer: Answer) -> None: ...

    async def load(self, owner: Identity, id: str) -> Answer | None: ...


async def load_answer(answers: AnswerStore, owner: Identity, name: str) -> Answer:
    """The owner's answer of that name; raises NotFound ANSWER_NOT_FOUND."""
    answer = await answers.load(owner, name.removeprefix("answers/"))
    if answer is None:
        raise not_found("answer", name, "ANSWER_NOT_FOUND")
    return answer
