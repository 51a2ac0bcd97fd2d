"""What a filter says: AIP-160 text, checked against the fields that may be named, as a tree of conditions."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from meshkit.errors import FieldViolation, InvalidArgument
from retriever_svc.filter_tokens import FilterError, Kind, Token, tokenize

MAX_COMPARISONS = 100
MAX_DEPTH = 32
# The numbers that a float64 and an int64 hold alike.
_MAX_NUMBER = 2.0**53


class FieldType(Enum):
    """The type of a field that filters may name."""

    TEXT = "text"
    NUMBER = "a number"
    INTEGER = "a whole number"
    BOOL = "true or false"
    TEXT_LIST = "a list of texts"


# Fields that every chunk has.
BUILT_IN = {
    "document": FieldType.TEXT,
    "title": FieldType.TEXT,
    "uri": FieldType.TEXT,
    "content_hash": FieldType.TEXT,
    "page": FieldType.INTEGER,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of every chunk or of the documents' metadata."""

    name: str
    type: FieldType
    in_metadata: bool


class Operator(Enum):
    """How a field is compared."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="


Value = str | bool | int | float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The field is there and compares so."""

    field: Field
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class Contains:
    """The list is there and has the value, or, negated, has it not."""

    field: Field
    value: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Present:
    """The field is there, or, negated, is not."""

    field: Field
    negated: bool = False


@dataclass(frozen=True, slots=True)
class All:
    """Every part is met."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Any:
    """At least one part is met."""

    parts: tuple["Condition", ...]


# NOT does not occur: it is moved down to the comparisons, where a field that is not there meets neither a comparison
# nor its opposite. So every index gives one answer, whatever its own logic of missing values.
Condition = Comparison | Contains | Present | All | Any

_OPPOSITES = {
    Operator.EQUAL: Operator.NOT_EQUAL,
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.LESS: Operator.GREATER_EQUAL,
    Operator.GREATER_EQUAL: Operator.LESS,
    Operator.GREATER: Operator.LESS_EQUAL,
    Operator.LESS_EQUAL: Operator.GREATER,
}


def parse(text: str, metadata_fields: Mapping[str, FieldType], collection: str = "") -> Condition | None:
    """The condition that the filter states, None for an empty one.

    A document of `collection` (`collections/{collection}`) may be named in full, and is its id in the condition.
    As in AIP-160, OR binds closer than AND. Raises InvalidArgument (INVALID_FILTER) with the position, in code
    points from 0, where the text is no filter, names another field, or compares one with a value of another type.
    """
    fields = {name: Field(name, type_, in_metadata=True) for name, type_ in metadata_fields.items()}
    fields |= {name: Field(name, type_, in_metadata=False) for name, type_ in BUILT_IN.items()}
    if not text.strip():
        return None
    try:
        return _Parser(tokenize(text), fields, f"{collection}/documents/").parse()
    except FilterError as error:
        raise invalid_filter(str(error), error.position) from None


def invalid_filter(description: str, position: int) -> InvalidArgument:
    """The error for a filter, with the position of what is wrong."""
    words = f"{description} (at position {position})"
    metadata = {"field": "filter", "position": str(position)}
    violations = [FieldViolation("filter", words)]
    return InvalidArgument("INVALID_FILTER", f"filter: {words}", metadata=metadata, violations=violations)


def negate(condition: Condition) -> Condition:
    """What is met where the condition is not, but for missing fields."""
    match condition:
        case All(parts):
            return Any(tuple(map(negate, parts)))
        case Any(parts):
            return All(tuple(map(negate, parts)))
        case Comparison(field, operator, value):
            return Comparison(field, _OPPOSITES[operator], value)
        case Contains(field, value, negated):
            return Contains(field, value, not negated)
        case Present(field, negated):
            return Present(field, not negated)


class _Parser:
    """One run over the tokens, one method a rule of the grammar; the depth of parentheses bounds the recursion."""

    def __init__(self, tokens: list[Token], fields: Mapping[str, Field], documents: str) -> None:
        self._tokens = tokens
        self._fields = fields
        self._documents = documents
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    def parse(self) -> Condition:
        condition = self._all()
        if self._next.kind is not Kind.END:
            raise FilterError("expected AND, OR or the end", self._next.position)
        return condition

    def _all(self) -> Condition:
        return self._joined(self._any, "AND", All)

    def _any(self) -> Condition:
        return self._joined(self._term, "OR", Any)

    def _joined(
        self, part: Callable[[], Condition], word: str, kind: Callable[[tuple[Condition, ...]], Condition]
    ) -> Condition:
        parts = [part()]
        while self._take_word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else kind(tuple(parts))

    def _term(self) -> Condition:
        negated = self._take_word("NOT") or self._take(Kind.MINUS) is not None
        condition = self._composite() if self._next.kind is Kind.OPEN else self._restriction()
        return negate(condition) if negated else condition

    def _composite(self) -> Condition:
        opening = self._expect(Kind.OPEN, "expected (")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterError(f"more than {MAX_DEPTH} parentheses deep", opening.position)
        condition = self._all()
        self._expect(Kind.CLOSE, "expected )")
        self._depth -= 1
        return condition

    def _restriction(self) -> Condition:
        name = self._expect(Kind.TEXT, "expected a field's name")
        field = self._fields.get(name.text)
        if field is None:
            known = ", ".join(sorted(self._fields))
            raise FilterError(f"{name.text[:64]!r} may not be named; the fields are: {known}", name.position)
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise FilterError(f"more than {MAX_COMPARISONS} comparisons", name.position)
        comparator = self._expect(Kind.COMPARATOR, f"expected a comparator after {field.name}")
        value = self._value()
        if field.name == "document" and not field.in_metadata:
            value = replace(value, text=value.text.removeprefix(self._documents))
        return _restriction(field, comparator, value)

    def _value(self) -> Token:
        minus = self._take(Kind.MINUS)
        token = self._next
        if token.kind not in (Kind.TEXT, Kind.QUOTED) or (minus and token.kind is Kind.QUOTED):
            raise FilterError("expected a value", token.position)
        self._at += 1
        return Token(token.kind, "-" + token.text, minus.position) if minus else token

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self, kind: Kind) -> Token | None:
        token = self._next
        if token.kind is not kind:
            return None
        self._at += 1
        return token

    def _take_word(self, word: str) -> bool:
        return self._next.text == word and self._take(Kind.WORD) is not None

    def _expect(self, kind: Kind, otherwise: str) -> Token:
        token = self._take(kind)
        if token is None:
            raise FilterError(otherwise, self._next.position)
        return token


def _restriction(field: Field, comparator: Token, value: Token) -> Condition:
    if comparator.text == ":":
        return _has(field, comparator, value)
    if field.type is FieldType.TEXT_LIST:
        raise FilterError(f'{field.name} is a list: ask {field.name}:"value"', comparator.position)
    operator = Operator(comparator.text)
    if field.type is FieldType.BOOL and operator not in (Operator.EQUAL, Operator.NOT_EQUAL):
        raise FilterError(f"{field.name} is true or false: compare it by = or !=", comparator.position)
    return Comparison(field, operator, _typed(field, value))


def _has(field: Field, comparator: Token, value: Token) -> Condition:
    if value.kind is Kind.TEXT and value.text == "*" and field.in_metadata:
        return Present(field)
    if field.type is not FieldType.TEXT_LIST:
        raise FilterError(f"{field.name} is no list: compare it by =", comparator.position)
    return Contains(field, value.text)


def _typed(field: Field, value: Token) -> Value:
    """The value as the field's type; raises FilterError where it is none of that."""
    if field.type is FieldType.TEXT:
        return value.text
    if value.kind is Kind.TEXT:
        if field.type is FieldType.BOOL and value.text in ("true", "false"):
            return value.text == "true"
        number = _number(value.text) if field.type is not FieldType.BOOL else None
        if number is not None and (field.type is FieldType.NUMBER or isinstance(number, int)):
            return number
    raise FilterError(f"{field.name} is {field.type.value}", value.position)


def _number(text: str) -> int | float | None:
    try:
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    if not abs(number) <= _MAX_NUMBER:  # also not a number
        return None
    return int(number) if number.is_integer() else number
