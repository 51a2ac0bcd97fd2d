"""The errors that ragmesh sends and receives, free of gRPC.

MeshError
├── InvalidArgument
├── FailedPrecondition
├── OutOfRange
├── Unauthenticated
├── PermissionDenied
├── NotFound
├── AlreadyExists
├── Aborted
├── ResourceExhausted
├── Unavailable
├── DeadlineExceeded
├── Cancelled
├── Unimplemented
├── Internal
└── DataLoss
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, by its path (`texts[3]`), and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Resource:
    """What a call named: its type (`collection`) and its name (`collections/handbook`)."""

    type: str
    name: str


class MeshError(Exception):
    """A failure with a published reason (`ragmesh.common.v1.ErrorReason` without prefix); raise a member.

    The message is for people and crosses the wire, so it holds nothing that the caller may not see.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] = _NOTHING,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        resource: Resource | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata)
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s
        self.resource = resource

    def within(self, path: str) -> "MeshError":
        """The same error of a part of the request: its fields are named from `path` on."""
        field = self.metadata.get("field")
        return type(self)(
            self.reason,
            f"{path}.{self.message}" if field else f"{path}: {self.message}",
            metadata={**self.metadata, "field": f"{path}.{field}" if field else path},
            violations=[FieldViolation(f"{path}.{wrong.field}", wrong.description) for wrong in self.violations],
            retry_after_s=self.retry_after_s,
            resource=self.resource,
        )


class InvalidArgument(MeshError):
    """The request is wrong whatever the state of the mesh."""

    code = "INVALID_ARGUMENT"


class FailedPrecondition(MeshError):
    """The request is right but the state of what it names forbids it; retrying does not help."""

    code = "FAILED_PRECONDITION"


class OutOfRange(MeshError):
    """The request reaches past what there is."""

    code = "OUT_OF_RANGE"


class Unauthenticated(MeshError):
    """Nobody vouches for the caller."""

    code = "UNAUTHENTICATED"


class PermissionDenied(MeshError):
    """The caller is known and may not do this."""

    code = "PERMISSION_DENIED"


class NotFound(MeshError):
    """What the request names is not there, or not the caller's."""

    code = "NOT_FOUND"


class AlreadyExists(MeshError):
    """What the request would create is there."""

    code = "ALREADY_EXISTS"


class Aborted(MeshError):
    """Another call came between; read again and retry."""

    code = "ABORTED"


class ResourceExhausted(MeshError):
    """A quota or a capacity is used up."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(MeshError):
    """Something that the call needs does not answer; retrying may help."""

    code = "UNAVAILABLE"


class DeadlineExceeded(MeshError):
    """The time allowed is used up."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(MeshError):
    """The caller gave up, or somebody for it."""

    code = "CANCELLED"


class Unimplemented(MeshError):
    """The method, or this use of it, is not offered here."""

    code = "UNIMPLEMENTED"


class Internal(MeshError):
    """A fault of ours."""

    code = "INTERNAL"


class DataLoss(MeshError):
    """Stored data is lost or corrupt."""

    code = "DATA_LOSS"


def invalid(field: str, description: str, reason: str = "INVALID_FIELD") -> InvalidArgument:
    """The error for one bad field of the request, named by its path."""
    violations = [FieldViolation(field, description)]
    return InvalidArgument(reason, f"{field}: {description}", metadata={"field": field}, violations=violations)


def not_found(type: str, name: str, reason: str) -> NotFound:
    """The error for a resource that is not there, or not the caller's: the two look alike."""
    return NotFound(reason, f"{type} {name} not found", metadata={type: name}, resource=Resource(type, name))


@contextmanager
def at_field(path: str) -> Iterator[None]:
    """Say of the errors raised in the body which part of the request they are about, by its path."""
    try:
        yield
    except MeshError as error:
        raise error.within(path) from error


@contextmanager
def map_exceptions(table: Mapping[type[Exception], Callable[[Any], MeshError]]) -> Iterator[None]:
    """Turn a driver's exceptions into members of the tree; the first entry that matches counts."""
    try:
        yield
    except tuple(table) as error:
        make = next(make for kind, make in table.items() if isinstance(error, kind))
        raise make(error) from error
