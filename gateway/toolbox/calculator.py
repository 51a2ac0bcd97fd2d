"""The tool that computes."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from gateway.tools import Tool, tool_failed

_Number = int | float

_MAX_CHARS = 256
# Beyond it a power of a power would take minutes and fill the memory.
_MAX_BITS = 4096
_MAX_DIGITS = 300
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-"})
_NAMES = {"pi": math.pi, "e": math.e}
# Of Python's grammar no more than numbers, signs, calls and names: no texts, attributes, lists or formats.
_NODES = (ast.BinOp, ast.Call, ast.Constant, ast.Name, ast.UnaryOp)


class Calculator:
    """Computes arithmetic, exactly where the numbers are whole; lives as long as the process."""

    tool = Tool(
        "calculator",
        "Computes an arithmetic expression: + - * / // % ** and parentheses, pi, e, sqrt, abs, round, floor, ceil, "
        "min, max, exp, log, log10, log2, sin, cos, tan.",
        {
            "type": "object",
            "properties": {"expression": {"type": "string", "minLength": 1, "maxLength": _MAX_CHARS}},
            "required": ["expression"],
        },
    )

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """`6 * 7 = 42`; raises InvalidArgument TOOL_FAILED for what is no arithmetic or has no small enough result."""
        expression = arguments["expression"].strip()
        try:
            return f"{expression} = {_written(_compute(expression))}"
        except ZeroDivisionError:
            raise tool_failed("calculator", "division by zero") from None
        except (ArithmeticError, ValueError):
            raise tool_failed("calculator", "the expression has no result that is a number small enough") from None
        except (InvalidExpression, SyntaxError, TypeError, RecursionError, MemoryError):
            raise tool_failed("calculator", "the expression is not arithmetic") from None


def _compute(expression: str) -> _Number:
    parsed = ast.parse(expression.translate(_SIGNS).replace("^", "**"), mode="eval").body
    evaluator = SimpleEval(_OPERATORS, _FUNCTIONS, _NAMES)
    evaluator.nodes = {kind: evaluator.nodes[kind] for kind in _NODES}
    return _bounded(evaluator.eval(expression, parsed))


def _bounded(value: object) -> _Number:
    """The value, where it is a number and of a size to go on with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if value.bit_length() > _MAX_BITS if isinstance(value, int) else not math.isfinite(value):
        raise OverflowError
    return value


def _apply(compute: Callable[..., Any], *numbers: object) -> _Number:
    return _bounded(compute(*map(_bounded, numbers)))


def _power(base: _Number, exponent: _Number) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and (base.bit_length() - 1) * exponent > _MAX_BITS:
        raise OverflowError
    return base**exponent


def _round(number: _Number, digits: int = 0) -> _Number:
    """To places behind the point, or before it; Python would compute ten to the power of any number of those."""
    if abs(digits) > _MAX_DIGITS:
        raise OverflowError
    return round(number, digits) if digits else round(number)


_OPERATORS = {
    ast.Add: partial(_apply, operator.add),
    ast.Sub: partial(_apply, operator.sub),
    ast.Mult: partial(_apply, operator.mul),
    ast.Div: partial(_apply, operator.truediv),
    ast.FloorDiv: partial(_apply, operator.floordiv),
    ast.Mod: partial(_apply, operator.mod),
    ast.Pow: partial(_apply, _power),
    ast.UAdd: partial(_apply, operator.pos),
    ast.USub: partial(_apply, operator.neg),
}
_FUNCTIONS = {
    function.__name__.strip("_"): partial(_apply, function)
    for function in (
        _round,
        abs,
        max,
        min,
        math.ceil,
        math.cos,
        math.exp,
        math.floor,
        math.log,
        math.log10,
        math.log2,
        math.sin,
        math.sqrt,
        math.tan,
    )
}


def _written(value: _Number) -> str:
    return str(value) if isinstance(value, int) else f"{value:.12g}"
