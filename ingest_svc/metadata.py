"""Documents' metadata against the fields that a collection declares filterable."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ingest_svc.catalog import FilterableField
from meshkit.errors import FieldViolation, InvalidArgument, invalid


def check(metadata: Mapping[str, Any], fields: Sequence[FilterableField], max_bytes: int, field: str) -> None:
    """Raise INVALID_FIELD for metadata that is too large, or has a declared field of another type.

    `field` is the request's field that holds the metadata.
    """
    size = len(json.dumps(metadata).encode())
    if size > max_bytes:
        raise invalid(field, f"has {size} bytes as JSON, more than {max_bytes}")
    violations = [
        FieldViolation(f"{field}.{declared.field}", f"is not of the declared type {declared.type}")
        for declared in fields
        if declared.field in metadata and not _fits(metadata[declared.field], declared.type)
    ]
    if violations:
        first = violations[0]
        message = f"{first.field}: {first.description}"
        details = {"field": first.field}
        raise InvalidArgument("INVALID_FIELD", message, metadata=details, violations=violations)


def declared(found: Mapping[str, Any], fields: Sequence[FilterableField]) -> dict[str, Any]:
    """Of the fields that a document itself carries, those that are declared and of the declared type."""
    return {
        field.field: found[field.field]
        for field in fields
        if field.field in found and _fits(found[field.field], field.type)
    }


def _fits(value: Any, type: str) -> bool:
    if type == "BOOL":
        return isinstance(value, bool)
    if type == "NUMBER":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if type == "STRING":
        return isinstance(value, str)
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
