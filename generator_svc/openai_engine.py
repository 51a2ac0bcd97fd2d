"""The engine that asks an OpenAI-compatible upstream: vLLM's server, llama.cpp's, Ollama, a vendor."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal

import httpcore
from h2.exceptions import ProtocolError
from pydantic import SecretStr
from pydantic_core import from_json

from generator_svc.engine import Card, Delta, EngineKind, Input, Request, Work, unsupported
from generator_svc.gathering import Gathering
from generator_svc.openai_errors import (
    engine_unavailable,
    failure,
    malformed,
    overloaded,
    read_error,
    read_refusal,
    to_error,
)
from generator_svc.openai_outputs import EventReader, Progress
from generator_svc.openai_requests import Upstream, body, counted, path
from generator_svc.reset_pool import ResetPool
from meshkit.errors import MeshError, ResourceExhausted, Unavailable, map_exceptions

logger = logging.getLogger(__name__)

_DONE = b"[DONE]"
# Some have no list of models, and one that is too busy to answer is there.
_REACHABLE = (HTTPStatus.OK, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.TOO_MANY_REQUESTS)
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_KEEPALIVE_S = 30.0
_END_TIMEOUT_S = 1.0
# A pooled connection that the upstream closed while the request was on its way: on a new one it goes well.
_STALE = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
_FAILURES: Mapping[type[Exception], Callable[[Exception], MeshError]] = {
    httpcore.PoolTimeout: lambda _: overloaded("all connections to the upstream are taken"),
    httpcore.ConnectError: lambda _: engine_unavailable("the upstream cannot be reached"),
    httpcore.ConnectTimeout: lambda _: engine_unavailable("the upstream cannot be reached"),
    TimeoutError: lambda _: engine_unavailable("the upstream is silent"),
    httpcore.TimeoutException: lambda _: engine_unavailable("the upstream went away"),
    httpcore.NetworkError: lambda _: engine_unavailable("the upstream went away"),
    httpcore.ProtocolError: lambda _: engine_unavailable("the upstream went away"),
    ProtocolError: lambda _: engine_unavailable("the upstream went away"),
}
_SHAPES: Mapping[type[Exception], Callable[[Exception], MeshError]] = {
    kind: lambda _: malformed() for kind in (AttributeError, IndexError, KeyError, TypeError, ValueError)
}


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Where the upstream is and how it is asked; the service's settings of the same names say what each is."""

    upstream_url: str
    model_name: str = ""
    upstream_model: str = ""
    upstream_api_key: SecretStr = field(default_factory=lambda: SecretStr(""))
    upstream_api: Literal["auto", "openai", "vllm"] = "auto"
    upstream_max_tokens_field: str = "max_tokens"
    upstream_max_model_tokens: int = 0
    upstream_timeout_s: float = 5.0
    upstream_idle_timeout_s: float = 120.0
    upstream_check_interval_s: float = 5.0
    upstream_max_connections: int = 256
    upstream_h2c: bool = False
    gather_max_s: float = 0.0


@asynccontextmanager
async def open_openai_engine(options: OpenAIOptions) -> AsyncIterator["OpenAIEngine"]:
    """The engine, whether or not the upstream answers yet: until it does, `check` fails and the card has no name."""
    pool = ResetPool(
        max_connections=options.upstream_max_connections,
        max_keepalive_connections=options.upstream_max_connections,
        keepalive_expiry=_KEEPALIVE_S,
        http1=not options.upstream_h2c,
        http2=True,
    )
    async with pool:
        engine = OpenAIEngine(pool, options)
        try:
            await engine.check()
        except Unavailable as error:
            logger.warning("the upstream does not answer yet: %s", error.message)
        yield engine


class OpenAIEngine:
    """A model behind an upstream; made by `open_openai_engine`, lives on one event loop."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, options: OpenAIOptions) -> None:
        self._pool = pool
        self._options = options
        self._url = options.upstream_url.rstrip("/")
        self._secret = options.upstream_api_key.get_secret_value()
        self._gathering = Gathering(options.gather_max_s)
        self._upstream: Upstream | None = None
        # The last check, which calls that come together share: its outcome and until when it holds.
        self._checking = asyncio.Lock()
        self._ill = ""
        self._checked_until_s = 0.0

    @property
    def card(self) -> Card:
        """What is known of the upstream; a bound where prompts can be counted, as without a count it is of no use."""
        upstream = self._upstream or Upstream(self._options.upstream_model)
        counts = "" if upstream.vllm else " It does not count tokens: it alone judges whether a prompt is too long."
        return Card(
            model=self._options.model_name or upstream.model,
            kind=EngineKind.LANGUAGE_MODEL,
            engine="openai",
            description=f"A language model, run by an OpenAI-compatible server.{counts}",
            max_model_tokens=upstream.max_model_tokens if upstream.vllm else 0,
            structured_output=True,
            lora_adapters=upstream.lora_adapters,
        )

    @property
    def cache_use(self) -> float:
        """Unknown from here."""
        return 0.0

    async def prepare(self, request: Request) -> Work:
        """The body to post; what only the upstream can judge, the length of the prompt too, `generate` raises."""
        arrived_s = time.monotonic()
        posted = path(request.input)
        written = body(request, await self._known(), self._options.upstream_max_tokens_field)
        return Work(request, arrived_s, max_tokens=request.max_tokens, payload=(posted, written))

    async def generate(self, work: Work) -> AsyncGenerator[Delta, None]:
        """The deltas as they come, among other streams joined; closing the generator ends the upstream's request."""
        wanted = asyncio.Event()
        wanted.set()
        with self._gathering.stream():
            async with (
                aclosing(self._heard(work, wanted)) as heard,
                aclosing(self._gathering.joined(heard, wanted)) as deltas,
            ):
                async for delta in deltas:
                    yield delta

    async def _heard(self, work: Work, wanted: asyncio.Event) -> AsyncGenerator[Delta, None]:
        """The deltas one by one, read when they are wanted."""
        progress = Progress(work)
        async with aclosing(self._events(work, wanted)) as events:
            async for event in events:
                if event == _DONE:
                    break
                for delta in self._deltas(event, progress, work.request):
                    yield delta
            yield progress.end()
            wanted.set()
            # The connection can be used again when the response is read to its end.
            with suppress(MeshError, TimeoutError):
                async with asyncio.timeout(_END_TIMEOUT_S):
                    await anext(events, None)

    async def count_tokens(self, given: Input) -> int:
        """As vLLM's server counts; raises UNSUPPORTED_BY_ENGINE where the upstream is another."""
        upstream = await self._known()
        if not upstream.vllm:
            raise unsupported("count_tokens", "the upstream does not count tokens")
        url = self._url.removesuffix("/v1") + "/tokenize"
        status, answer = await self._ask("POST", url, counted(given, upstream))
        if status != HTTPStatus.OK:
            refusal = read_refusal(status, answer, "", self._secret)
            raise to_error(refusal, Request("", given))
        with _readable():
            return int(from_json(answer)["count"])

    async def check(self) -> None:
        """Ask the upstream for its models, at most once in `upstream_check_interval_s`; raises Unavailable."""
        async with self._checking:
            if time.monotonic() >= self._checked_until_s:
                self._ill = await self._examine()
                self._checked_until_s = time.monotonic() + self._options.upstream_check_interval_s
        if self._ill:
            raise engine_unavailable(self._ill)

    async def _examine(self) -> str:
        """What is wrong with the upstream, if anything; what it says of itself is kept, the first time."""
        try:
            status, answer = await self._ask("GET", f"{self._url}/models")
            if status not in _REACHABLE:
                raise failure(read_refusal(status, answer, "", self._secret))
            with _readable():
                models = from_json(answer)["data"] if status == HTTPStatus.OK else []
                if status != HTTPStatus.TOO_MANY_REQUESTS:
                    self._upstream = self._upstream or _describe(models, self._options)
        except Unavailable as error:
            return error.message
        except ResourceExhausted:
            logger.info("the upstream is not asked for its models: all connections have work")
        return "" if self._upstream else "the upstream does not say which model it has"

    async def _known(self) -> Upstream:
        if self._upstream is None:
            await self.check()
        if self._upstream is None:
            raise engine_unavailable(self._ill)
        return self._upstream

    def _deltas(self, event: bytes, progress: Progress, request: Request) -> list[Delta]:
        # Not `_readable`: here is each token, and a context takes as long as reading one.
        try:
            chunk = from_json(event)
            if error := chunk.get("error"):
                raise to_error(read_error(error, self._secret), request)
            return list(progress.deltas(chunk))
        except tuple(_SHAPES) as error:
            raise malformed() from error

    async def _events(self, work: Work, wanted: asyncio.Event) -> AsyncGenerator[bytes, None]:
        """The data of the events; raises what an upstream that refuses, falls silent or goes away amounts to."""
        reader, idle_s = EventReader(), self._options.upstream_idle_timeout_s
        posted, written = work.payload
        with _upstream_errors():
            async with self._posted(posted, written) as response:
                if response.status != HTTPStatus.OK:
                    raise await self._refused(response, work.request)
                received = aiter(response.aiter_stream())
                # Over HTTP/2 one stream's reader reads for all of them.
                shared = response.extensions["http_version"] == b"HTTP/2"
                while True:
                    if not shared:
                        await wanted.wait()
                    async with asyncio.timeout(idle_s):
                        data = await anext(received, None)
                    if data is None:
                        return
                    for event in reader.feed(data):
                        yield event

    @asynccontextmanager
    async def _posted(self, posted: str, written: Mapping[str, Any]) -> AsyncIterator[httpcore.Response]:
        """The response, from when its head is there; a request that met a stale connection is sent once more."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(self._options.upstream_idle_timeout_s):
                try:
                    response = await stack.enter_async_context(self._call("POST", self._url + posted, written))
                except _STALE:
                    response = await stack.enter_async_context(self._call("POST", self._url + posted, written))
            yield response

    async def _refused(self, response: httpcore.Response, request: Request) -> MeshError:
        retry_after = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
        async with asyncio.timeout(self._options.upstream_timeout_s):
            said = await _read(response)
        refusal = read_refusal(response.status, said, retry_after.decode("latin-1"), self._secret)
        if refusal.too_long:
            # What it says is a bound, or nothing.
            with suppress(MeshError):
                refusal = replace(refusal, prompt_tokens=await self.count_tokens(request.input))
        return to_error(refusal, request)

    async def _ask(self, method: str, url: str, content: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        """Status and body of the answer to a short question."""
        with _upstream_errors():
            async with asyncio.timeout(self._options.upstream_timeout_s), self._call(method, url, content) as response:
                return response.status, await _read(response)

    def _call(
        self, method: str, url: str, content: Mapping[str, Any] | None
    ) -> AbstractAsyncContextManager[httpcore.Response]:
        headers = {"accept-encoding": "identity", "content-type": "application/json"}
        if self._secret:
            headers["authorization"] = f"Bearer {self._secret}"
        bounds = dict.fromkeys(("connect", "write", "pool"), self._options.upstream_timeout_s)
        data = None if content is None else json.dumps(content).encode()
        return self._pool.stream(
            method, url, headers=list(headers.items()), content=data, extensions={"timeout": bounds}
        )


def _describe(models: list[Mapping[str, Any]], options: OpenAIOptions) -> Upstream | None:
    """What the list of models tells of the one that is asked; None where neither it nor the options name one."""
    name = options.upstream_model or next((model["id"] for model in models), "")
    if not name:
        return None
    listed = next((model for model in models if model["id"] == name), {})
    tells = options.upstream_api == "auto" and listed.get("owned_by") == "vllm"
    return Upstream(
        model=name,
        vllm=tells or options.upstream_api == "vllm",
        max_model_tokens=options.upstream_max_model_tokens or listed.get("max_model_len") or 0,
        lora_adapters=tuple(model["id"] for model in models if model.get("parent") == name),
    )


async def _read(response: httpcore.Response) -> bytes:
    data = b""
    async for received in response.aiter_stream():
        data += received
        if len(data) > _MAX_ANSWER_BYTES:
            raise malformed()
    return data


@contextmanager
def _upstream_errors() -> Iterator[None]:
    """Our errors for what goes wrong on the way to the upstream and back."""
    with map_exceptions(_FAILURES):
        yield


@contextmanager
def _readable() -> Iterator[None]:
    """Around the reading of what the upstream sent, which may be of any shape."""
    with map_exceptions(_SHAPES):
        yield
