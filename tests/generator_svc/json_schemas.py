"""Random JSON schemas, every document of which is short."""

from collections.abc import Callable
from random import Random
from typing import Any

Schema = dict[str, Any]

_NAMES = ("id", "name", "kind", "größe", "is-open", "two words", "a.b", "$price", 'quo"te', "zip")


def random_schema(random: Random, depth: int = 3) -> Schema:
    """An object at the top, nested at most `depth` deep."""
    return _object(random, depth)


def _any(random: Random, depth: int) -> Schema:
    leaves: list[Callable[[Random], Schema]] = [_string, _integer, _number, _enum, _const, _plain, _formatted]
    nested: list[Callable[[Random, int], Schema]] = [_object, _array, _any_of]
    if depth and random.random() < 0.5:
        return random.choice(nested)(random, depth - 1)
    return random.choice(leaves)(random)


def _object(random: Random, depth: int) -> Schema:
    names = random.sample(_NAMES, random.randint(1, 4))
    return {
        "type": "object",
        "properties": {name: _any(random, depth) for name in names},
        "required": random.sample(names, random.randint(0, len(names))),
        "additionalProperties": False,
    }


def _array(random: Random, depth: int) -> Schema:
    least = random.randint(0, 2)
    return {"type": "array", "items": _any(random, depth), "minItems": least, "maxItems": least + random.randint(0, 2)}


def _any_of(random: Random, depth: int) -> Schema:
    return {"anyOf": [_any(random, depth) for _ in range(random.randint(2, 3))]}


def _string(random: Random) -> Schema:
    least = random.randint(0, 4)
    return {"type": "string", "minLength": least, "maxLength": least + random.randint(0, 12)}


def _integer(random: Random) -> Schema:
    least = random.randint(-1000, 1000)
    return {"type": "integer", "minimum": least, "maximum": least + random.randint(0, 5000)}


def _number(random: Random) -> Schema:
    least = round(random.uniform(-50, 50), random.randint(0, 2))
    return {"type": "number", "minimum": least, "maximum": round(least + random.uniform(1, 100), random.randint(0, 2))}


def _enum(random: Random) -> Schema:
    return {"enum": random.sample(["yes", "no", "", "a b", 'say "x"', 0, -7, 2.5, True, None], random.randint(1, 4))}


def _const(random: Random) -> Schema:
    return {"const": random.choice(["fixed", 42, False, None])}


def _plain(random: Random) -> Schema:
    return {"type": random.choice(["boolean", "null", ["boolean", "null"]])}


def _formatted(random: Random) -> Schema:
    return random.choice(
        [
            {"type": "string", "format": "date"},
            {"type": "string", "format": "uuid"},
            {"type": "string", "format": "ipv4"},
            {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"},
        ]
    )
