"""What a server does around its handlers, for each kind of call."""

import asyncio
import logging
from typing import Any

import grpc
import pytest

from meshkit import deadline, errors, identity
from meshkit.channel import peer_errors
from meshkit.settings import ServerSettings
from meshkit.testing import connect, serve
from tests.meshkit.probe import ALICE, KINDS, METHODS, NAME, Echo, app_of, invoke

SETTINGS: dict[str, Any] = {"metrics_listen": "", "drain_grace_s": 0.2}


async def refused(wire: Any, servicer: Echo, kind: str, request: Any, **settings: Any) -> errors.MeshError:
    """The error that a call of the kind to the servicer ends with."""
    options = ServerSettings(**{**SETTINGS, **settings})
    async with serve(app_of(wire, servicer), options) as address, connect(address, ALICE) as channel:
        with pytest.raises(errors.MeshError) as caught, peer_errors():
            await invoke(channel, wire, kind, request)
    return caught.value


class Failing(Echo):
    """Fails every request with the error given."""

    def __init__(self, wire: Any, error: BaseException) -> None:
        super().__init__(wire)
        self.error = error

    async def seen(self, request: Any, context: Any) -> Any:
        raise self.error


class Slow(Echo):
    """Takes longer than any test and notes that it was ended."""

    ended = False

    async def seen(self, request: Any, context: Any) -> Any:
        try:
            await asyncio.sleep(30)
        finally:
            self.ended = True


@pytest.mark.parametrize("kind", KINDS)
async def test_answers(wire: Any, kind: str) -> None:
    """A call of each kind reaches its handler and its answer comes back."""
    async with serve(app_of(wire, Echo(wire))) as address, connect(address, ALICE) as channel:
        responses = await invoke(channel, wire, kind, wire.ProbeRequest(text="hello", number=1))
    assert [response.text for response in responses] == ["hello"]


@pytest.mark.parametrize("kind", KINDS)
async def test_unknown_error(wire: Any, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody foresaw leaves with fixed words and its trace id, which is also in the log."""
    error = await refused(wire, Failing(wire, ValueError("password=hunter2")), kind, wire.ProbeRequest())
    assert isinstance(error, errors.Internal)
    assert (error.reason, error.message) == ("INTERNAL_ERROR", "internal error")
    assert "hunter2" not in repr(vars(error))
    assert len(error.metadata["trace_id"]) == 32
    logged = [record for record in caplog.records if record.exc_info and "hunter2" in str(record.exc_info[1])]
    assert [record.levelno for record in logged] == [logging.ERROR]


@pytest.mark.parametrize("kind", KINDS)
async def test_details(wire: Any, kind: str) -> None:
    """An error of the tree arrives as the same member with everything that it held."""
    raised = errors.ResourceExhausted(
        "OVERLOADED",
        "full",
        metadata={"running": "3"},
        violations=[errors.FieldViolation("texts[0]", "too long")],
        retry_after_s=1.5,
        resource=errors.Resource("collection", "collections/a"),
    )
    error = await refused(wire, Failing(wire, raised), kind, wire.ProbeRequest())
    assert type(error) is errors.ResourceExhausted
    assert vars(error) == vars(raised)


@pytest.mark.parametrize("letter", ["x", "ä", "\n", "\ud800"])
async def test_details_are_bounded(wire: Any, letter: str) -> None:
    """However much an error holds, it arrives: its texts are cut and its lists are shortened."""
    long = letter * 10_000
    raised = errors.InvalidArgument(
        "INVALID_FIELD",
        long,
        metadata={f"key{number}{long}": long for number in range(100)},
        violations=[errors.FieldViolation(long, long)] * 1000,
        retry_after_s=1.0,
        resource=errors.Resource(long, long),
    )
    error = await refused(wire, Failing(wire, raised), "unary", wire.ProbeRequest())
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert error.violations
    assert 100 < len(error.message.encode()) < 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"\x0a\x02\xff\xfe", b"\x0a\x7fshort"], ids=["bad UTF-8", "truncated"])
async def test_malformed(wire: Any, kind: str, data: bytes) -> None:
    """Bytes that are not a message are INVALID_ARGUMENT with the type expected, and reach no handler."""
    servicer = Echo(wire)
    error = await refused(wire, servicer, kind, data)
    assert isinstance(error, errors.InvalidArgument)
    assert error.reason == "MALFORMED_MESSAGE"
    assert error.metadata == {"type": "meshkit.test.v1.ProbeRequest"}
    assert servicer.calls == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_too_large(wire: Any, kind: str) -> None:
    """A message over the limit is INVALID_ARGUMENT with the limit and its own size."""
    request = wire.ProbeRequest(text="x" * 600)
    error = await refused(wire, Echo(wire), kind, request, max_message_bytes=500)
    assert isinstance(error, errors.InvalidArgument)
    assert error.reason == "TOO_LARGE"
    assert error.metadata == {"limit_bytes": "500", "bytes": str(request.ByteSize())}


@pytest.mark.parametrize("kind", KINDS)
async def test_far_too_large(wire: Any, kind: str) -> None:
    """A message over gRPC's own limit, which cuts it off unread, still has a reason for the caller."""
    error = await refused(wire, Echo(wire), kind, b"\x0a" + b"x" * 5000, max_message_bytes=500)
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "TOO_LARGE")


@pytest.mark.parametrize("kind", KINDS)
async def test_violations(wire: Any, kind: str) -> None:
    """Every field that breaks a rule of the contract is named by its path."""
    servicer = Echo(wire)
    error = await refused(wire, servicer, kind, wire.ProbeRequest(number=-1, tags=["a", ""]))
    assert isinstance(error, errors.InvalidArgument)
    assert (error.reason, error.metadata) == ("INVALID_FIELD", {"field": "number"})
    assert [violation.field for violation in error.violations] == ["number", "tags[1]"]
    assert all(violation.description for violation in error.violations)
    assert servicer.calls == 0


async def test_later_message_of_a_stream(wire: Any) -> None:
    """The messages of a request stream are checked one by one: the good ones before a bad one are served."""
    servicer = Echo(wire)
    async with serve(app_of(wire, servicer)) as address, connect(address, ALICE) as channel:
        call = wire.ProbeServiceStub(channel).Chat(
            iter([wire.ProbeRequest(text="good"), wire.ProbeRequest(number=-1), wire.ProbeRequest()])
        )
        assert (await call.read()).text == "good"
        with pytest.raises(errors.InvalidArgument, match="INVALID_FIELD"), peer_errors():
            await call.read()
    assert servicer.calls == 1


async def test_many_violations(wire: Any) -> None:
    """More violations than an HTTP/2 trailer holds are cut, not lost with the whole error."""
    error = await refused(wire, Echo(wire), "unary", wire.ProbeRequest(tags=[""] * 5000))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert 1 <= len(error.violations) < 5000


@pytest.mark.parametrize("kind", KINDS)
async def test_identity_missing(wire: Any, kind: str) -> None:
    """A call without an identity is UNAUTHENTICATED and reaches no handler."""
    servicer = Echo(wire)
    async with serve(app_of(wire, servicer)) as address, connect(address) as channel:
        with pytest.raises(errors.Unauthenticated, match="IDENTITY_MISSING"), peer_errors():
            await invoke(channel, wire, kind, wire.ProbeRequest())
    assert servicer.calls == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x-ragmesh-tenant", "No Such"),
        ("x-ragmesh-tenant", "-a"),
        ("x-ragmesh-subject", ""),
        ("x-ragmesh-tenant", "a" * 64),
    ],
)
async def test_identity_invalid(wire: Any, key: str, value: str) -> None:
    """An identity that is not of its form is UNAUTHENTICATED and names the header."""
    metadata = {"x-ragmesh-tenant": "acme", "x-ragmesh-subject": "alice"} | {key: value}
    async with serve(app_of(wire, Echo(wire))) as address, connect(address) as channel:
        with pytest.raises(errors.Unauthenticated) as caught, peer_errors():
            await invoke(channel, wire, "unary", wire.ProbeRequest(), metadata=tuple(metadata.items()))
    assert (caught.value.reason, caught.value.metadata) == ("IDENTITY_INVALID", {"header": key})


async def test_identity_twice(wire: Any) -> None:
    """A second tenant beside the first, as a forging client would send, is refused."""
    metadata = (("x-ragmesh-tenant", "acme"), ("x-ragmesh-subject", "alice"), ("x-ragmesh-tenant", "other"))
    async with (
        serve(app_of(wire, Echo(wire))) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        with pytest.raises(errors.Unauthenticated, match="IDENTITY_INVALID"), peer_errors():
            await invoke(channel, wire, "unary", wire.ProbeRequest(), metadata=metadata)


@pytest.mark.parametrize("kind", KINDS)
async def test_identity_in_the_handler(wire: Any, kind: str) -> None:
    """The handler of each kind sees the caller's identity as the current one."""

    class Named(Echo):
        async def seen(self, request: Any, context: Any) -> Any:
            identity.require_scope("ask")
            return self.wire.ProbeResponse(text=repr(identity.current()))

    async with serve(app_of(wire, Named(wire))) as address, connect(address, ALICE) as channel:
        responses = await invoke(channel, wire, kind, wire.ProbeRequest())
    assert responses[0].text == repr(ALICE)


@pytest.mark.parametrize("kind", KINDS)
async def test_maximum_deadline(wire: Any, kind: str) -> None:
    """A call past the server's maximum ends DEADLINE_EXCEEDED, and its handler with it."""
    servicer = Slow(wire)
    error = await refused(wire, servicer, kind, wire.ProbeRequest(), max_deadline_s=0.1)
    assert isinstance(error, errors.DeadlineExceeded)
    assert error.reason == "DEADLINE_EXCEEDED"
    assert servicer.ended


@pytest.mark.parametrize("kind", KINDS)
async def test_callers_deadline(wire: Any, kind: str) -> None:
    """When the caller's deadline passes the handler ends too."""
    servicer = Slow(wire)
    async with serve(app_of(wire, servicer)) as address, connect(address, ALICE) as channel:
        with pytest.raises(errors.DeadlineExceeded), peer_errors():
            await invoke(channel, wire, kind, wire.ProbeRequest(), timeout=0.1)
        await asyncio.sleep(0.1)
        assert servicer.ended


async def test_default_deadline(wire: Any) -> None:
    """A call that brings no deadline gets the server's default, and its handler can read it."""

    class Timed(Echo):
        async def seen(self, request: Any, context: Any) -> Any:
            limit = deadline.current()
            return self.wire.ProbeResponse(number=round(limit.remaining_s() * 1000) if limit else 0)

    settings = ServerSettings(**SETTINGS, default_deadline_s=5.0)
    async with (
        serve(app_of(wire, Timed(wire)), settings) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        metadata = identity.to_metadata(ALICE)
        (response,) = await invoke(channel, wire, "unary", wire.ProbeRequest(), metadata=metadata)
    assert 4000 < response.number <= 5000


async def test_handlers_own_timeout(wire: Any) -> None:
    """A TimeoutError of the handler's own making is a fault, not the caller's deadline."""
    error = await refused(wire, Failing(wire, TimeoutError()), "unary", wire.ProbeRequest())
    assert isinstance(error, errors.Internal)


@pytest.mark.parametrize("kind", KINDS)
async def test_admission(wire: Any, kind: str) -> None:
    """Past the limit a call is refused at once with RetryInfo; a call that leaves gives its permit back."""
    servicer = Slow(wire)
    settings = ServerSettings(**SETTINGS, max_concurrent_rpcs=1, overload_retry_after_s=2.5)
    async with serve(app_of(wire, servicer), settings) as address, connect(address, ALICE) as channel:
        running = asyncio.create_task(invoke(channel, wire, kind, wire.ProbeRequest()))
        await asyncio.sleep(0.1)
        with pytest.raises(errors.ResourceExhausted) as caught, peer_errors():
            await invoke(channel, wire, kind, wire.ProbeRequest())
        running.cancel()
        await asyncio.sleep(0.1)
        with pytest.raises(errors.DeadlineExceeded), peer_errors():
            await invoke(channel, wire, kind, wire.ProbeRequest(), timeout=0.05)
    assert caught.value.reason == "OVERLOADED"
    assert caught.value.metadata == {"running": "1", "limit": "1"}
    assert caught.value.retry_after_s == 2.5


@pytest.mark.parametrize("kind", KINDS)
async def test_method_not_offered(wire: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that the server does not have is UNIMPLEMENTED and named."""
    monkeypatch.setitem(METHODS, kind, "Missing")
    error = await refused(wire, Echo(wire), kind, wire.ProbeRequest())
    assert isinstance(error, errors.Unimplemented)
    assert (error.reason, error.metadata) == ("NOT_IMPLEMENTED", {"method": f"{NAME}/Missing"})


@pytest.mark.parametrize("kind", KINDS)
async def test_method_not_written(wire: Any, kind: str) -> None:
    """A method that the servicer leaves to its stub is UNIMPLEMENTED with the reason, too."""
    error = await refused(wire, wire.ProbeServiceServicer(), kind, wire.ProbeRequest())
    assert isinstance(error, errors.Unimplemented)
    assert (error.reason, error.metadata) == ("NOT_IMPLEMENTED", {"method": f"{NAME}/{METHODS[kind]}"})


async def test_wrong_answer(wire: Any) -> None:
    """An answer of the wrong type is a fault like any other: its text stays here."""

    class Wrong(Echo):
        async def seen(self, request: Any, context: Any) -> Any:
            return "secret"

    for kind in KINDS:
        error = await refused(wire, Wrong(wire), kind, wire.ProbeRequest())
        assert (error.code, error.message) == ("INTERNAL", "internal error")
