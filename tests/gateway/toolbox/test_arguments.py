"""What a tool is given is checked against its schema, whatever the schema is."""

from typing import Any

import pytest

from gateway.toolbox.arguments import check_arguments
from gateway.toolbox.calculator import Calculator
from gateway.tools import Tool
from meshkit.errors import InvalidArgument

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "days": {"type": "integer", "maximum": 7},
        "unit": {"enum": ["C", "F"]},
    },
    "required": ["city"],
}
_BOMB = {"$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}}


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({}, {"anything": 1}),
        (WEATHER, {"city": "Bonn"}),
        (WEATHER, {"city": "Bonn", "days": 3.0, "unit": "C", "more": None}),
        ({"properties": {"s": {"pattern": "^(a+)+$"}}}, {"s": "a" * 40 + "b"}),
        ({**_BOMB, "$ref": "#/$defs/d0"}, {}),
        ({"$ref": "https://example.com/schema"}, {}),
    ],
)
def test_what_the_schema_allows_passes(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Patterns and references, whose cost has no bound, are left to the tool."""
    check_arguments(Tool("weather", "", schema), arguments)


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        (WEATHER, {}),
        (WEATHER, {"city": ""}),
        (WEATHER, {"city": 7}),
        (WEATHER, {"city": "Bonn", "days": 8}),
        (WEATHER, {"city": "Bonn", "unit": "K"}),
        ({"type": "nothing"}, {}),
        ({"properties": 5}, {}),
        ({"properties": {"a": 5}}, {"a": 1}),
        ({"properties": {"a": {"minimum": "b"}}}, {"a": 1}),
        ({"properties": {"a": {"multipleOf": 0}}}, {"a": 1}),
        ({"properties": {"a": {"enum": 5}}}, {"a": 1}),
        ({"anyOf": 5}, {}),
        ({"required": 5}, {}),
        (Calculator.tool.parameters_schema, {"expression": "1+" * 200 + "1"}),
    ],
)
def test_what_the_schema_does_not_allow_fails(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    """So does a schema that is none."""
    with pytest.raises(InvalidArgument) as raised:
        check_arguments(Tool("weather", "", schema), arguments)
    assert raised.value.reason == "TOOL_FAILED"
    assert "weather" in raised.value.message
