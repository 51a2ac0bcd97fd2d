"""What the gateway asks of the generator and gets from it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A numbered passage that an answer may cite as `[number]`; `heading` is its place, outermost first."""

    number: int
    text: str
    title: str
    score: float
    heading: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt for a language model, oldest message first."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Grounded:
    """A prompt for an extractive engine: the question and its passages, best first."""

    question: str
    passages: tuple[Passage, ...]


Prompt = Chat | Grounded


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
class StructuredOutput:
    """A form that the output must have: text for most, choices, or True for any JSON object."""

    form: Literal["json_schema", "regex", "choice", "grammar", "json_object"]
    value: str | tuple[str, ...] | bool


@dataclass(frozen=True, slots=True)
class Writing:
    """How to write an answer; `max_tokens` 0 leaves the most tokens to the gateway."""

    max_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    structured_output: StructuredOutput | None = None
    instructions: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """A prompt for a model and how to answer it; `session` is the conversation that it goes on with, "" for none."""

    model: str
    prompt: Prompt
    writing: Writing
    max_tokens: int
    session: str = ""


class Ending(Enum):
    """Why the engine stopped; the values are the contract's numbers."""

    STOP = 1
    LENGTH = 2
    ABSTAINED = 3
    TOOL_CALL = 4


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the model that wrote."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """The next part of a generation; `ending` and `usage` come with the last ones."""

    text: str = ""
    token_count: int = 0
    ending: Ending | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model and what it can do; `max_model_tokens` is 0 where there is no bound."""

    name: str
    extractive: bool
    max_model_tokens: int = 0
    engine: str = ""
    description: str = ""
    ready: bool = True
    structured_output: bool = False
    lora_adapters: tuple[str, ...] = ()


class Generator(Protocol):
    """Writes text; its methods raise MeshError."""

    def generate(self, generation: Generation) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """The deltas as they are made, within a body whose end frees the engine's slot."""
        ...

    async def count_tokens(self, model: str, prompt: Chat) -> int:
        """The tokens of the prompt, as `generate` would count them; for language models only."""
        ...

    async def list_models(self) -> Sequence[Model]:
        """The models served, the default one first."""
        ...
