"""What a request message must be: bytes of its type, not too large, within the rules of its contract."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import protovalidate
from google.protobuf.message import DecodeError, Message

from meshkit.errors import FieldViolation, InvalidArgument, MeshError


@dataclass(frozen=True, slots=True)
class Rejected:
    """Stands for a message that could not be read: gRPC answers a raising deserialiser with INTERNAL."""

    error: MeshError


def tolerant(deserializer: Callable[[bytes], Message], max_bytes: int) -> Callable[[bytes], Message | Rejected]:
    """A deserialiser that returns Rejected instead of raising."""

    def deserialize(data: bytes) -> Message | Rejected:
        if len(data) > max_bytes:
            return Rejected(_too_large(len(data), max_bytes))
        try:
            return deserializer(data)
        except (DecodeError, UnicodeDecodeError, ValueError):
            return Rejected(_malformed(deserializer))

    return deserialize


def _too_large(size: int, limit: int) -> InvalidArgument:
    metadata = {"limit_bytes": str(limit), "bytes": str(size)}
    return InvalidArgument("TOO_LARGE", "the message is larger than the server takes", metadata=metadata)


def _malformed(deserializer: Any) -> InvalidArgument:
    # Stubs pass `Type.FromString`, a method bound to the message class.
    descriptor = getattr(getattr(deserializer, "__self__", None), "DESCRIPTOR", None)
    name = descriptor.full_name if descriptor else "message"
    metadata = {"type": name}
    return InvalidArgument("MALFORMED_MESSAGE", f"the bytes are not a {name}", metadata=metadata)


class Validation:
    """The rules of the contract's messages, compiled at their first use; lives as long as its server."""

    def __init__(self) -> None:
        self._validator = protovalidate.Validator()

    def check(self, message: Message | Rejected) -> Message:
        """The message, or InvalidArgument with every field that breaks a rule."""
        if isinstance(message, Rejected):
            raise message.error
        broken = self._validator.collect_violations(message)
        if broken:
            raise _invalid([_violation(violation) for violation in broken])
        return message


def _invalid(violations: list[FieldViolation]) -> InvalidArgument:
    first = violations[0]
    text = f"{first.field}: {first.description}" if first.field else first.description
    return InvalidArgument("INVALID_FIELD", text, metadata={"field": first.field}, violations=violations)


def _violation(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    elements = proto.field.elements if proto.field else []
    path = ".".join(_segment(element) for element in elements)
    return FieldViolation(path, proto.message or proto.rule_id or "")


def _segment(element: Any) -> str:
    """One step of a field's path: `texts[3]`, `labels["a"]`, `question`."""
    if element.subscript is None:
        return str(element.field_name)
    key = element.subscript.value
    return f'{element.field_name}["{key}"]' if isinstance(key, str) else f"{element.field_name}[{key}]"
