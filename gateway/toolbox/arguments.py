"""Checks what a tool is given against the JSON schema of its arguments."""

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import UnknownType
from jsonschema.validators import create

from gateway.tools import Tool, tool_failed

# What a caller's schema costs to check is bounded by its size: no references, which multiply, and no patterns, which
# may take for ever.
_KEYWORDS = (
    "allOf",
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "properties",
    "required",
    "type",
)
# What a schema that is none makes of the check; to check it first would cost sixty times as much.
_NO_SCHEMA = (ArithmeticError, AttributeError, RecursionError, TypeError, UnknownType, ValueError)
_MAX_WORDS_CHARS = 500
_Validator = create(
    meta_schema=Draft202012Validator.META_SCHEMA,
    validators={keyword: Draft202012Validator.VALIDATORS[keyword] for keyword in _KEYWORDS},
    type_checker=Draft202012Validator.TYPE_CHECKER,
)


def check_arguments(tool: Tool, arguments: Mapping[str, Any]) -> None:
    """Raise InvalidArgument TOOL_FAILED where the tool does not take the arguments, or its schema is none."""
    try:
        wrong = next(_Validator({"type": "object", **tool.parameters_schema}).iter_errors(dict(arguments)), None)
    except _NO_SCHEMA:
        raise tool_failed(tool.name, "its parameters_schema is no JSON schema") from None
    if wrong:
        raise tool_failed(tool.name, f"{wrong.json_path}: {wrong.message[:_MAX_WORDS_CHARS]}")
