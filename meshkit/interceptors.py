"""What every call passes on its way in and out, written once and fitted to all four kinds of call."""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias, cast

import grpc

from meshkit import deadline, identity, rpc, status, telemetry
from meshkit.admission import Permits
from meshkit.errors import Aborted, DataLoss, DeadlineExceeded, Internal, MeshError, Unavailable, Unimplemented
from meshkit.settings import ServerSettings
from meshkit.telemetry import Telemetry
from meshkit.validation import Validation, tolerant

logger = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

# Asked by balancers and operators, who have no tenant; a health Watch has no end, so no deadline either.
INFRASTRUCTURE = frozenset(
    {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "ragmesh.common.v1.ServerService",
    }
)

_KINDS = {
    (False, False): ("unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("server_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("client_stream", grpc.stream_unary_rpc_method_handler),
    (True, True): ("bidi_stream", grpc.stream_stream_rpc_method_handler),
}


class Writer(Protocol):
    """Sends the messages of a stream; a write ends when the reader has room for the message."""

    async def write(self, message: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Passage:
    """What happens to the messages of one call; lives as long as the call."""

    received: Callable[[Any], Any]
    sent: Callable[[], None]
    writing: Callable[[], AbstractAsyncContextManager[Writer]]
    admitted: Callable[[], AbstractAsyncContextManager[None]]


Around = Callable[[Context], AbstractAsyncContextManager[Passage]]


class Interceptor(grpc.aio.ServerInterceptor):
    """Telemetry, errors, deadline, identity, validation and admission, in this order from the outside.

    Lives as long as its server. `tasks` holds the tasks that serve calls: each adds and removes itself. Where
    `draining` is set, new calls are refused.
    """

    def __init__(self, settings: ServerSettings, observer: Telemetry, permits: Permits) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.draining = False
        self._settings = settings
        self._telemetry = observer
        self._permits = permits
        self._validation = Validation()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The handler of the method called, with everything around it."""
        path = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return _not_offered(path)
        if path.split("/")[1] in INFRASTRUCTURE:
            return _adapted(handler, self._plain, self._settings.max_message_bytes)
        kind, _ = _KINDS[handler.request_streaming, handler.response_streaming]

        def around(context: Context) -> AbstractAsyncContextManager[Passage]:
            return self._around(path, kind, context)

        return _adapted(handler, around, self._settings.max_message_bytes)

    @asynccontextmanager
    async def _plain(self, context: Context) -> AsyncIterator[Passage]:
        async with _answering(context):
            yield Passage(self._validation.check, lambda: None, lambda: nullcontext(context), nullcontext)

    @asynccontextmanager
    async def _around(self, path: str, kind: str, context: Context) -> AsyncIterator[Passage]:
        metadata = dict(context.invocation_metadata() or ())
        call = rpc.from_wire(path, metadata)
        with self._serving(call), self._telemetry.observe(call, kind, metadata, context) as observation:
            async with _answering(context), _limited(context, self._settings):
                if self.draining:
                    raise Unavailable("DRAINING", "this server is shutting down")

                def received(message: Any) -> Any:
                    observation.received()
                    return self._validation.check(message)

                def writing() -> AbstractAsyncContextManager[Writer]:
                    return _bounded_writes(context, self._settings.max_stall_s)

                with identity.acting_as(identity.from_metadata(context.invocation_metadata() or ())):
                    yield Passage(received, observation.sent, writing, self._permits.take)

    @contextmanager
    def _serving(self, call: rpc.Rpc) -> Iterator[None]:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self.tasks.add(task)
        try:
            with rpc.serving(call):
                yield
        finally:
            self.tasks.discard(task)


@asynccontextmanager
async def _bounded_writes(context: Context, limit_s: float) -> AsyncIterator[Writer]:
    """A writer for the body; a write that takes longer than allowed ends it with READER_STALLED."""
    timer = asyncio.timeout(None)
    writer = _BoundedWriter(context, timer, limit_s)
    try:
        async with timer:
            yield writer
    except TimeoutError as error:
        if not timer.expired():
            raise
        metadata = {"limit_s": f"{limit_s:g}"}
        raise Aborted("READER_STALLED", "the reader took nothing for too long", metadata=metadata) from error
    finally:
        writer.close()


class _BoundedWriter:
    """Notes when each write begins, and looks once in `limit_s` whether the current one has taken that long.

    A timer for the stream rather than for each write, of which there is one a token. Lives as long as its stream.
    """

    def __init__(self, context: Context, timer: asyncio.Timeout, limit_s: float) -> None:
        self._context = context
        self._timer = timer
        self._limit_s = limit_s
        self._began_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._next_look = self._loop.call_later(limit_s, self._look)

    async def write(self, message: Any) -> None:
        self._began_s = self._loop.time()
        await self._context.write(message)
        self._began_s = None

    def close(self) -> None:
        self._next_look.cancel()

    def _look(self) -> None:
        now_s = self._loop.time()
        due_s = (now_s if self._began_s is None else self._began_s) + self._limit_s
        if due_s <= now_s:
            self._timer.reschedule(now_s)
        else:
            self._next_look = self._loop.call_at(due_s, self._look)


@asynccontextmanager
async def _answering(context: Context) -> AsyncIterator[None]:
    """Answer what is raised in the body with its status; what nobody foresaw leaves with fixed words."""
    try:
        yield
    except (grpc.aio.AbortError, asyncio.CancelledError):
        raise
    except MeshError as error:
        if isinstance(error, Internal | DataLoss):
            logger.exception("failed")
        await _abort(context, error)
    except grpc.aio.AioRpcError as error:
        await _abort(context, status.from_rpc_error(error))
    except grpc.aio.InternalError as error:
        # A message could not be written: its reader is gone, and the cancellation that says so is on its way.
        raise asyncio.CancelledError from error
    except Exception as error:
        if _unwritten(error, context):
            await _abort(context, _unimplemented())
        logger.exception("unexpected error")
        trace_id, _ = telemetry.trace_ids()
        await _abort(context, Internal("INTERNAL_ERROR", "internal error", metadata={"trace_id": trace_id}))


async def _abort(context: Context, error: MeshError) -> NoReturn:
    answer = status.to_status(error)
    details = (status.DETAILS_KEY, answer.SerializeToString())
    # Trailers that the servicer has set, a load report for instance, go with the error.
    await context.abort(status.grpc_code(error), answer.message, (*(context.trailing_metadata() or ()), details))


def _unwritten(error: Exception, context: Context) -> bool:
    """Whether the stub's own method answered, because the servicer has none of that name."""
    return isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED


def _unimplemented() -> Unimplemented:
    call = rpc.current()
    metadata = {"method": call.name if call else ""}
    return Unimplemented("NOT_IMPLEMENTED", "this server does not offer the method yet", metadata=metadata)


@asynccontextmanager
async def _limited(context: Context, settings: ServerSettings) -> AsyncIterator[None]:
    """Make the caller's deadline current, or the default, within the maximum; end the body when it passes."""
    asked_s = cast("float | None", context.time_remaining())
    wanted_s = settings.default_deadline_s if asked_s is None else asked_s
    limit = deadline.Deadline.after(min(wanted_s, settings.max_deadline_s))
    timer = asyncio.timeout(limit.remaining_s())
    try:
        with deadline.using(limit):
            async with timer:
                yield
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise DeadlineExceeded("DEADLINE_EXCEEDED", "the time allowed for the call is used up") from error


def _adapted(handler: Handler, around: Around, max_bytes: int) -> Handler:
    """The handler inside of `around`, of the same kind."""
    _, make = _KINDS[handler.request_streaming, handler.response_streaming]
    fit = _streaming if handler.response_streaming else _single
    # A unary answer is serialised inside of `around`, so that a failure there is an error like any other.
    serializer = handler.response_serializer if handler.response_streaming else None
    return make(fit(handler, around), tolerant(_deserializer(handler), max_bytes), serializer)


def _deserializer(handler: Handler) -> Callable[[bytes], Any]:
    return handler.request_deserializer or bytes


def _behavior(handler: Handler) -> Callable[..., Any]:
    behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return cast("Callable[..., Any]", behavior)


def _single(handler: Handler, around: Around) -> Callable[..., Any]:
    behavior, serialize = _behavior(handler), handler.response_serializer or bytes

    async def answer(raw: Any, context: Context) -> bytes:
        async with around(context) as passage:
            request = _requests(handler, raw, passage)
            async with passage.admitted():
                response = await behavior(request, context)
            passage.sent()
            return serialize(response)

    return answer


def _streaming(handler: Handler, around: Around) -> Callable[..., Any]:
    behavior = _behavior(handler)

    # A coroutine that writes, not a generator: gRPC drops a generator whose caller left during a write, and
    # its clean-up then runs in another task and context. Here `write` raises, and everything closes in its
    # order.
    async def answer(raw: Any, context: Context) -> None:
        async with around(context) as passage:
            request = _requests(handler, raw, passage)
            async with (
                passage.admitted(),
                aclosing(behavior(request, context)) as responses,
                passage.writing() as out,
            ):
                async for response in responses:
                    await out.write(response)
                    passage.sent()

    return answer


def _requests(handler: Handler, raw: Any, passage: Passage) -> Any:
    return _Requests(raw, passage.received) if handler.request_streaming else passage.received(raw)


class _Requests:
    """The messages of a request stream, each checked when it is taken; lives as long as its call."""

    def __init__(self, raw: AsyncIterable[Any], received: Callable[[Any], Any]) -> None:
        self._raw = raw
        self._messages: AsyncIterator[Any] | None = None
        self._received = received

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Any:
        # Not before it is wanted: gRPC's iterator warns where it is made and never used.
        self._messages = self._messages or aiter(self._raw)
        return self._received(await anext(self._messages))


def _not_offered(path: str) -> Handler:
    """Answers a call to a method that no service here has; not counted, since its caller made up the name."""

    async def answer(_requests: Any, context: Context) -> None:
        with rpc.serving(rpc.from_wire(path, {})):
            await _abort(context, _unimplemented())

    return grpc.stream_stream_rpc_method_handler(answer)
