"""What an engine is: it takes a request and gives deltas."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias

from meshkit.errors import InvalidArgument

UNKNOWN_TOKEN = -1


class EngineKind(Enum):
    """Whether an engine writes or quotes."""

    LANGUAGE_MODEL = "language model"
    EXTRACTIVE = "extractive"


class FinishReason(Enum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    ABSTAINED = "abstained"


@dataclass(frozen=True, slots=True)
class Card:
    """What an engine says of itself; `max_model_tokens` bounds prompt and output together, 0 for no bound.

    `cache_tokens` is how many tokens its KV cache holds, 0 where it has none or does not say.
    """

    model: str
    kind: EngineKind
    engine: str
    description: str
    max_model_tokens: int = 0
    structured_output: bool = False
    cache_tokens: int = 0
    lora_adapters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a chat; `role` is `system`, `user`, `assistant` or `tool`."""

    role: str
    content: str
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat, oldest message first, and variables for the model's template."""

    messages: Sequence[Message]
    template_arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, taken as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that an answer cites by its number; a higher score is better."""

    number: int
    text: str
    title: str = ""
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Grounded:
    """A question and the passages to answer it from, best first."""

    question: str
    passages: Sequence[Passage]


Input: TypeAlias = Chat | Prompt | Grounded


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; None takes the model's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """The form that the output must have; exactly one field is set."""

    json_schema: str | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None
    json_object: bool | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate, and for whom; `max_tokens` 0 means as many as fit."""

    id: str
    input: Input
    owner: str = ""
    sampling: Sampling = Sampling()
    max_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    form: Form | None = None
    n: int = 1
    logprobs: int = 0
    priority: int = 0
    lora_adapter: str = ""
    ignore_eos: bool = False

    @property
    def key(self) -> str:
        """What tells it from all others: ids are chosen by callers, and two owners may choose the same."""
        return f"{self.owner}/{self.id}"


@dataclass(frozen=True, slots=True)
class Work:
    """A request that its engine has read and found right.

    `prompt_tokens` and `max_tokens` (of each sequence) are 0 where the engine does not count; `arrived_s` is of
    `time.monotonic`; `payload` is the engine's own form of the request.
    """

    request: Request
    arrived_s: float
    prompt_tokens: int = 0
    max_tokens: int = 0
    payload: Any = None

    @property
    def tokens(self) -> int:
        """The tokens that it comes to at most: the prompt, which its sequences share, and all outputs."""
        return self.prompt_tokens + self.request.n * self.max_tokens


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability; its id is UNKNOWN_TOKEN where the engine does not say."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Logprobs:
    """A token drawn, and the likeliest ones at its place, best first."""

    token: TokenLogprob
    top: Sequence[TokenLogprob]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the prompt, those of them found in the engine's prefix cache, and tokens made."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a generation: `queue`, `prefill`, `first_token` or `decode`; in seconds from its arrival."""

    name: str
    start_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Delta:
    """What one of the sequences is continued by; `finish` on its last, `usage` and `stages` on the last of all."""

    text: str
    tokens: int
    index: int = 0
    token_ids: Sequence[int] = ()
    logprobs: Sequence[Logprobs] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None
    stages: Sequence[Stage] = ()


class Engine(Protocol):
    """Makes tokens for many requests at once; whoever opened it closes it.

    Errors are of `meshkit.errors`; when the engine has died they are Unavailable with ENGINE_UNAVAILABLE.
    """

    @property
    def card(self) -> Card:
        """What it is; the same for as long as it lives."""

    @property
    def cache_use(self) -> float:
        """The share of its KV cache in use, 0 to 1."""

    async def prepare(self, request: Request) -> Work:
        """Read the request; raises InvalidArgument, PROMPT_TOO_LONG among them, before it waits for anything."""

    def generate(self, work: Work) -> AsyncGenerator[Delta, None]:
        """The deltas in the order in which they are made; closing the generator frees what the request held.

        Deltas that nobody has taken yet may be joined, so a slow reader costs no memory beyond its text.
        """

    async def count_tokens(self, given: Chat | Prompt) -> int:
        """The tokens of a prompt, exactly as `generate` would have them."""

    async def check(self) -> None:
        """Return if the engine takes requests, raise Unavailable if not."""


def unsupported(option: str, description: str) -> InvalidArgument:
    """The error for an input or option that the engine does not take, by the name of its field."""
    return InvalidArgument("UNSUPPORTED_BY_ENGINE", f"{option}: {description}", metadata={"option": option})
