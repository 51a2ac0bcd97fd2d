"""The error tree and its form on the wire."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from meshkit import errors, status
from ragmesh.common.v1 import error_reason_pb2

ROOT = Path(__file__).parents[2]
MEMBERS = errors.MeshError.__subclasses__()
PREFIX = "ERROR_REASON_"


def received(error: errors.MeshError) -> errors.MeshError:
    """The error as a caller gets it."""
    trailer = (status.DETAILS_KEY, status.to_status(error).SerializeToString())
    return status.from_rpc_error(failure(status.grpc_code(error), error.message, trailer))


def failure(code: grpc.StatusCode, details: str, *trailers: tuple[str, Any]) -> grpc.aio.AioRpcError:
    """What gRPC raises for such a status."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details=details)


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member(member: type[errors.MeshError]) -> None:
    """Each member has a status code of its own name, and comes back from the wire as itself."""
    error = member("INVALID_FIELD", "words", metadata={"field": "a"})
    assert status.grpc_code(error).name == member.code
    assert type(received(error)) is member
    assert vars(received(error)) == vars(error)


def test_codes_are_all_there() -> None:
    """Every canonical code has a member, except OK and UNKNOWN, which no server of ours sends."""
    assert {member.code for member in MEMBERS} == {code.name for code in grpc.StatusCode} - {"OK", "UNKNOWN"}


def test_details() -> None:
    """The details are the standard messages, each present only where it applies."""
    plain = status.to_status(errors.Unavailable("STORE_UNAVAILABLE", "no store"))
    assert [detail.TypeName() for detail in plain.details] == ["google.rpc.ErrorInfo"]
    rich = status.to_status(
        errors.ResourceExhausted(
            "QUOTA_EXHAUSTED",
            "used up",
            metadata={"quota": "tokens_per_minute"},
            violations=[errors.FieldViolation("a", "b")],
            retry_after_s=2.5,
            resource=errors.Resource("collection", "collections/a"),
        )
    )
    names = [detail.TypeName().removeprefix("google.rpc.") for detail in rich.details]
    assert names == ["ErrorInfo", "BadRequest", "RetryInfo", "QuotaFailure", "ResourceInfo"]
    info, quota = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    assert rich.details[0].Unpack(info)
    assert rich.details[3].Unpack(quota)
    assert (info.reason, info.domain) == ("QUOTA_EXHAUSTED", "ragmesh")
    assert quota.violations[0].subject == "tokens_per_minute"


@pytest.mark.parametrize(
    ("code", "member", "reason"),
    [
        ("UNAVAILABLE", errors.Unavailable, "PEER_UNAVAILABLE"),
        ("INTERNAL", errors.Unavailable, "PEER_UNAVAILABLE"),
        ("UNKNOWN", errors.Unavailable, "PEER_UNAVAILABLE"),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded, "DEADLINE_EXCEEDED"),
        ("CANCELLED", errors.Cancelled, "CANCELLED"),
        ("UNIMPLEMENTED", errors.Unimplemented, "NOT_IMPLEMENTED"),
        ("RESOURCE_EXHAUSTED", errors.ResourceExhausted, "OVERLOADED"),
        ("UNAUTHENTICATED", errors.Unauthenticated, "IDENTITY_MISSING"),
        ("PERMISSION_DENIED", errors.Internal, "INTERNAL_ERROR"),
    ],
)
def test_status_without_details(code: str, member: type[errors.MeshError], reason: str) -> None:
    """A status that is not a server's of ours gets fixed words, whatever it says."""
    error = status.from_rpc_error(failure(grpc.StatusCode[code], "connect to 10.0.0.7: password"), "retriever")
    assert (type(error), error.reason, error.metadata) == (member, reason, {"peer": "retriever"})
    assert "password" not in error.message


@pytest.mark.parametrize(
    "trailer", [b"\xff\xff", b"", status.to_status(errors.Internal("A", "b")).SerializeToString()[:-3]]
)
def test_broken_details(trailer: bytes) -> None:
    """Details that cannot be read count as none."""
    error = status.from_rpc_error(failure(grpc.StatusCode.NOT_FOUND, "secret", (status.DETAILS_KEY, trailer)))
    assert (error.code, error.message) == ("INTERNAL", "internal error")


def test_details_of_another_domain() -> None:
    """ErrorInfo of somebody else's domain is not taken for ours."""
    sent = status.to_status(errors.NotFound("COLLECTION_NOT_FOUND", "secret"))
    info = error_details_pb2.ErrorInfo(reason="X", domain="example.com")
    sent.details[0].Pack(info)
    trailer = (status.DETAILS_KEY, sent.SerializeToString())
    assert status.from_rpc_error(failure(grpc.StatusCode.NOT_FOUND, "secret", trailer)).reason == "INTERNAL_ERROR"


def test_invalid() -> None:
    """`invalid` names the field as a violation and in the metadata."""
    error = errors.invalid("texts[3]", "is too long")
    assert error.violations == (errors.FieldViolation("texts[3]", "is too long"),)
    assert (error.reason, error.metadata) == ("INVALID_FIELD", {"field": "texts[3]"})


def test_not_found() -> None:
    """`not_found` names the resource."""
    error = errors.not_found("collection", "collections/a", "COLLECTION_NOT_FOUND")
    assert error.resource == errors.Resource("collection", "collections/a")
    assert error.metadata == {"collection": "collections/a"}


def test_at_field() -> None:
    """Fields are named from the part on; an error without one is about the part, and stays what it was."""
    with pytest.raises(errors.InvalidArgument) as wrong, errors.at_field("searches[3]"):
        raise errors.invalid("filter", "is empty", reason="INVALID_FILTER")
    assert wrong.value.message == "searches[3].filter: is empty"
    assert wrong.value.metadata == {"field": "searches[3].filter"}
    assert [violation.field for violation in wrong.value.violations] == ["searches[3].filter"]
    with pytest.raises(errors.ResourceExhausted) as refused, errors.at_field("searches[3]"):
        raise errors.ResourceExhausted("OVERLOADED", "full", metadata={"limit": "8"}, retry_after_s=2)
    assert (refused.value.reason, refused.value.message) == ("OVERLOADED", "searches[3]: full")
    assert refused.value.metadata == {"limit": "8", "field": "searches[3]"}
    assert refused.value.retry_after_s == 2


def test_map_exceptions() -> None:
    """A driver's exception becomes what the first matching entry makes, with its cause; others pass."""
    table: dict[type[Exception], Any] = {
        ConnectionError: lambda _: errors.Unavailable("STORE_UNAVAILABLE", "no store"),
        OSError: lambda _: errors.DataLoss("STORE_UNAVAILABLE", "broken store"),
    }
    with pytest.raises(errors.Unavailable) as caught, errors.map_exceptions(table):
        raise ConnectionResetError
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    with pytest.raises(errors.DataLoss), errors.map_exceptions(table):
        raise FileNotFoundError
    with pytest.raises(KeyError), errors.map_exceptions(table):
        raise KeyError


def documented() -> Iterator[tuple[str, str]]:
    """Each reason in the contract with the comment above it."""
    text = (ROOT / "protos/ragmesh/common/v1/error_reason.proto").read_text()
    for comment, reason in re.findall(r"((?: *//[^\n]*\n)+) *ERROR_REASON_(\w+) = \d+;", text):
        yield reason, comment


@pytest.mark.parametrize(("reason", "comment"), [pair for pair in documented() if pair[0] != "UNSPECIFIED"])
def test_reason_is_documented(reason: str, comment: str) -> None:
    """Each published reason says when it is sent and shows an ErrorInfo that has it."""
    said, _, example = comment.partition("Example:")
    assert len(said.replace("/", "").split()) >= 3
    shown = ast.literal_eval(example.replace("//", "").strip())
    assert (shown["reason"], shown["domain"]) == (reason, status.DOMAIN)
    assert all(isinstance(value, str) for value in shown["metadata"].values())


def test_reasons_are_all_documented() -> None:
    """No value of the enum is without a comment."""
    values = [name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name]
    assert [reason for reason, _ in documented()] == values


def raised_reasons() -> Iterator[tuple[str, str]]:
    """Each reason that the source gives to an error literally, and where."""
    makers = {member.__name__ for member in MEMBERS}
    for path in sorted(ROOT.glob("*/*.py")):
        if path.parts[-2] in {"gateway", "meshkit"} or path.parts[-2].endswith("_svc"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and _called(node) in makers and node.args:
                    reason = node.args[0]
                    if isinstance(reason, ast.Constant):
                        yield str(reason.value), f"{path.parts[-2]}/{path.name}:{node.lineno}"


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def test_reasons_are_published() -> None:
    """Every reason that the source raises is in the contract's enum."""
    published = {name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name}
    raised = list(raised_reasons())
    assert ("OVERLOADED", "admission.py") in {(reason, place.split("/")[1].split(":")[0]) for reason, place in raised}
    assert [(reason, place) for reason, place in raised if reason not in published] == []
