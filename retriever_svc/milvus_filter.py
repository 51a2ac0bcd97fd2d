"""Conditions as Milvus writes them."""

from retriever_svc.filtering import (
    All,
    Any,
    Comparison,
    Condition,
    Contains,
    Field,
    Operator,
    Present,
    Value,
)
from retriever_svc.index import Scope

_OPERATORS = {operator: "==" if operator is Operator.EQUAL else operator.value for operator in Operator}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


# After the collection's name, in a chunk that waits for its vector; no name holds a slash.
WAITING = "/"


def within(scope: Scope, *conditions: Condition | None, encoded: bool = False) -> str:
    """The expression for the chunks of the scope that meet every condition given; `encoded` for those with a vector.

    The scope's own predicates stand outside and are joined by `and`, so that a condition can only narrow them.
    """
    collection = literal(scope.collection)
    whose = f"== {collection}" if encoded else f"in [{collection}, {literal(scope.collection + WAITING)}]"
    parts = [f"tenant == {literal(scope.tenant)}", f"collection {whose}"]
    parts += [f"({_expression(condition)})" for condition in conditions if condition is not None]
    return " and ".join(parts)


def literal(value: Value) -> str:
    """The value as a literal; text by the escapes that Milvus and Milvus Lite both read."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    return repr(value)


def _expression(condition: Condition) -> str:
    match condition:
        case All(parts):
            return " and ".join(f"({_expression(part)})" for part in parts)
        case Any(parts):
            return " or ".join(f"({_expression(part)})" for part in parts)
        case Comparison(field, operator, value):
            return _comparison(field, operator, value)
        case Contains(field, value, negated):
            asked = f"json_contains({_path(field)}, {literal(value)})"
            return f"exists {_path(field)} and not {asked}" if negated else asked
        case Present(field, negated):
            return f"not (exists {_path(field)})" if negated else f"exists {_path(field)}"


def _comparison(field: Field, operator: Operator, value: Value) -> str:
    expression = f"{_path(field)} {_OPERATORS[operator]} {literal(value)}"
    # Whether what is missing is unequal is Milvus's own matter; here it is not.
    guarded = field.in_metadata and operator is Operator.NOT_EQUAL
    return f"exists {_path(field)} and {expression}" if guarded else expression


def _path(field: Field) -> str:
    return f'metadata["{field.name}"]' if field.in_metadata else field.name
