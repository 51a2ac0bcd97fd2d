"""Conditions as LanceDB writes them: SQL over the columns of a collection's own table."""

from retriever_svc.filtering import All, Any, Comparison, Condition, Contains, Field, FieldType, Present, Value

_PREFIXES = {
    FieldType.TEXT: "text_",
    FieldType.NUMBER: "number_",
    FieldType.INTEGER: "integer_",
    FieldType.BOOL: "bool_",
    FieldType.TEXT_LIST: "list_",
}
# Every live row has a document; what is left of a replacement cut off by a crash has none.
LIVE = "document IS NOT NULL"
# A chunk that waits for its vector has none.
ENCODED = "vector IS NOT NULL"


def where(*conditions: Condition | None) -> str:
    """The expression for the rows that meet every condition given."""
    parts = [f"({_expression(condition)})" for condition in conditions if condition is not None]
    return " AND ".join([LIVE, *parts])


def narrowed(condition: Condition | None) -> str | None:
    """The expression for a search, which finds live rows only; None where it takes them all."""
    return None if condition is None else _expression(condition)


def column(name: str, type_: FieldType) -> str:
    """The column of a field of the metadata; under another type the same name is another column."""
    return _PREFIXES[type_] + name


def field_of(column: str) -> tuple[str, FieldType] | None:
    """The name and type of the field whose column it is; None for a column that every table has."""
    for type_, prefix in _PREFIXES.items():
        if column.startswith(prefix):
            return column.removeprefix(prefix), type_
    return None


def literal(value: Value) -> str:
    """The value as a literal; in a text only the quote is special, and stands doubled."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        doubled = value.replace("'", "''")
        return f"'{doubled}'"
    return repr(value)


def _expression(condition: Condition) -> str:
    match condition:
        case All(parts):
            return " AND ".join(f"({_expression(part)})" for part in parts)
        case Any(parts):
            return " OR ".join(f"({_expression(part)})" for part in parts)
        case Comparison(field, operator, value):
            return f"{_column(field)} {operator.value} {literal(value)}"
        case Contains(field, value, negated):
            asked = f"array_has({_column(field)}, {literal(value)})"
            return f"{_present(field)} AND NOT coalesce({asked}, false)" if negated else asked
        case Present(field, negated):
            return f"NOT {_present(field)}" if negated else _present(field)


def _present(field: Field) -> str:
    return f"array_has(names, {literal(field.name)})"


def _column(field: Field) -> str:
    return column(field.name, field.type) if field.in_metadata else field.name
