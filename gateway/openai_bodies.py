"""The bodies of OpenAI's API that the gateway takes: what it knows of them; the rest is ignored."""

import json
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import PydanticCustomError

from gateway.answers import CachePolicy, Exchange, Planning, Question
from gateway.generation import Sampling, StructuredOutput, Writing
from gateway.openai_tools import CalledTool, FunctionTool, NamedTool, ToolChoice
from gateway.tools import Tool, ToolExchange
from meshkit.errors import FieldViolation, InvalidArgument

_COLLECTION = r"^[a-z0-9][a-z0-9._-]{0,62}(/.{1,256})?$"
_MAX_QUESTION_BYTES = 32768
_MAX_TEXTS = 2048
_MAX_STOPS = 16
_MAX_TOOLS = 128


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _TextPart(_Body):
    type: Literal["text"]
    text: str


def _in_parts(content: object) -> object:
    if content is None:
        return ()
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class ChatMessage(_Body):
    """Something said; content in parts may be text only."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[tuple[_TextPart, ...], BeforeValidator(_in_parts)] = ()
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str = ""

    def text(self) -> str:
        return "".join(part.text for part in self.content)


class StreamOptions(_Body):
    """What a stream has beside the answer."""

    include_usage: bool = False


class JsonSchema(_Body):
    """The schema of a `json_schema` response format."""

    schema_: dict[str, JsonValue] = Field(alias="schema")


class ResponseFormat(_Body):
    """The form that the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def form(self) -> StructuredOutput | None:
        if self.type == "json_object":
            return StructuredOutput("json_object", True)
        if self.type == "text":
            return None
        if self.json_schema is None:
            raise invalid_body("response_format.json_schema", "is missing")
        return StructuredOutput("json_schema", json.dumps(self.json_schema.schema_))


class ChatRequest(_Body):
    """`POST /v1/chat/completions`, what vLLM adds to how tokens are drawn, and `cache`, which is ours.

    What would change the answer and is not offered may hold only what changes nothing.
    """

    model: str = Field(pattern=_COLLECTION)
    messages: list[ChatMessage] = Field(min_length=1, max_length=1024)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=131072)
    max_completion_tokens: int | None = Field(None, ge=1, le=131072)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    top_k: int | None = Field(None, ge=0, lt=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[str, Field(min_length=1)] | list[Annotated[str, Field(min_length=1)]] | None = None
    response_format: ResponseFormat | None = None
    n: Literal[1] | None = 1
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    functions: Annotated[list[JsonValue], Field(max_length=0)] | None = None
    modalities: list[Literal["text"]] | None = None
    web_search_options: None = None
    tools: Annotated[list[FunctionTool], Field(max_length=_MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = True
    cache: Literal["use", "refresh", "bypass"] | None = "use"

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def question(self) -> Question:
        """The last user message as the question, what was said before it as the history.

        Raises InvalidArgument INVALID_BODY where nobody asks anything.
        """
        place = max((i for i, said in enumerate(self.messages) if said.role == "user"), default=-1)
        text = self.messages[place].text() if place >= 0 else ""
        if not text or len(text.encode()) > _MAX_QUESTION_BYTES:
            raise invalid_body("messages", f"the last user message must have 1 to {_MAX_QUESTION_BYTES} bytes")
        collection, _, model = self.model.partition("/")
        return Question(
            text=text,
            collection=f"collections/{collection}",
            session=None,
            history=_exchanges(self.messages[:place]),
            model=model,
            writing=self._writing(),
            planning=Planning(
                must_call=self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool),
                parallel_calls=self.parallel_tool_calls is not False,
            ),
            tools=self._tools(),
            tool_exchanges=_tool_exchanges(self.messages[place:], place),
            cache=CachePolicy[(self.cache or "use").upper()],
        )

    def _tools(self) -> tuple[Tool, ...]:
        """The tools that may be called: by the choice all, none, or the one named."""
        if self.tool_choice == "none":
            return ()
        tools = tuple(offered.tool() for offered in self.tools or ())
        if isinstance(self.tool_choice, NamedTool):
            tools = tuple(tool for tool in tools if tool.name == self.tool_choice.function.name)
        if self.tool_choice not in {None, "auto"} and not tools:
            raise invalid_body("tool_choice", "chooses a tool that is not among `tools`")
        return tools

    def _writing(self) -> Writing:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > _MAX_STOPS:
            raise invalid_body("stop", f"has more than {_MAX_STOPS} texts")
        system = [said.text() for said in self.messages if said.role in ("system", "developer")]
        return Writing(
            max_tokens=self.max_completion_tokens or self.max_tokens or 0,
            sampling=Sampling(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                min_p=self.min_p,
                frequency_penalty=self.frequency_penalty,
                presence_penalty=self.presence_penalty,
                repetition_penalty=self.repetition_penalty,
                seed=self.seed,
            ),
            stop=tuple(stop),
            structured_output=self.response_format.form() if self.response_format else None,
            instructions="\n\n".join(filter(None, system)),
        )


def _exchanges(messages: list[ChatMessage]) -> tuple[Exchange, ...]:
    """Each user message with what the assistant said to it."""
    turns: list[Exchange] = []
    for said in messages:
        if said.role == "user":
            turns.append(Exchange(said.text(), ""))
        elif said.role == "assistant" and turns:
            last = turns.pop()
            turns.append(Exchange(last.question, last.text + said.text()))
    return tuple(turns)


def _tool_exchanges(messages: list[ChatMessage], first: int) -> tuple[ToolExchange, ...]:
    """What tools have answered to the question, which the messages begin with; `first` is its place among all."""
    called = {call.id: call for said in messages for call in said.tool_calls or ()}
    answered: dict[str, str] = {}
    for place, said in enumerate(messages, start=first):
        if said.role == "tool":
            if said.tool_call_id not in called:
                raise invalid_body(f"messages[{place}].tool_call_id", "names no call made since the last user message")
            answered[said.tool_call_id] = said.text()
    if open_calls := called.keys() - answered:
        raise invalid_body("messages", f"the call {min(open_calls)} has no message of role `tool`")
    return tuple(call.exchange(answered[id]) for id, call in called.items())


def _texts(given: object) -> object:
    """Some clients send tokens; they are another tokenizer's, so that nothing can be made of them."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and any(isinstance(each, int | list) for each in given):
        raise PydanticCustomError("token_ids", "must be texts, not token ids")
    return given


class EmbeddingsRequest(_Body):
    """`POST /v1/embeddings`; of its kinds of input, texts."""

    model: str = Field(min_length=1, max_length=256)
    input: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(_texts),
        Field(min_length=1, max_length=_MAX_TEXTS),
    ]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1, le=65536)


_Parsed = TypeVar("_Parsed", bound=_Body)


def parse(body_class: type[_Parsed], data: bytes) -> _Parsed:
    """The body; raises InvalidArgument INVALID_BODY with `param`, the place of the first mistake."""
    try:
        return body_class.model_validate_json(data)
    except ValidationError as error:
        wrong = [
            FieldViolation(_path(e["loc"]), e["msg"]) for e in error.errors(include_input=False, include_url=False)
        ]
    raise _refused(wrong)


def invalid_body(param: str, description: str) -> InvalidArgument:
    """The error for a body that is wrong at `param`."""
    return _refused([FieldViolation(param, description)])


def _refused(wrong: list[FieldViolation]) -> InvalidArgument:
    first = wrong[0]
    text = f"{first.field}: {first.description}" if first.field else first.description
    return InvalidArgument("INVALID_BODY", text, metadata={"param": first.field}, violations=wrong)


def _path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content`; the names of pydantic's own branches are left out."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.isidentifier():
            path += f".{step}" if path else step
    return path
