"""The form of vLLM's output, held by the grammar: the model's weights are random."""

import asyncio
import json
import re
import time
from collections import Counter
from random import Random
from typing import Any

import jsonschema
import pytest

from meshkit.errors import InvalidArgument
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from tests.generator_svc.json_schemas import random_schema
from tests.generator_svc.serving import read, request, text

# The first test waits for the engine's start, which takes half a minute on a busy machine.
pytestmark = pytest.mark.timeout(240)

Stub = generator_pb2_grpc.GeneratorServiceStub

SCHEMAS = 200
AT_ONCE = 8
SUM = """\
root ::= term (" + " term){1,3}
term ::= [1-9] [0-9]{0,2}
"""


async def test_answers_to_random_schemas_validate(stub: Stub) -> None:
    """Every answer to 200 schemas is JSON, ends by itself and validates, eight at a time."""
    schemas = [random_schema(Random(seed)) for seed in range(SCHEMAS)]
    places = asyncio.Semaphore(AT_ONCE)
    began = time.monotonic()

    async def answer(seed: int) -> tuple[str, int]:
        async with places:
            return await _drawn(stub, {"json_schema": json.dumps(schemas[seed])}, seed)

    answers = await asyncio.gather(*map(answer, range(SCHEMAS)))

    print(f"{SCHEMAS} schemas in {time.monotonic() - began:.0f} s")
    for schema, (document, ended) in zip(schemas, answers, strict=True):
        assert ended == generator_pb2.FINISH_REASON_STOP, (schema, document)
        jsonschema.Draft202012Validator(schema).validate(json.loads(document))
    assert len({document for document, _ in answers}) > SCHEMAS * 0.8


async def test_a_regular_expression_holds(stub: Stub) -> None:
    """The whole text matches, whatever the draw."""
    pattern = r"(GET|POST) /[a-z]{1,8}(/[0-9]{1,3})? HTTP/(1\.1|2)"

    for seed in range(5):
        line, _ = await _drawn(stub, {"regex": pattern}, seed)
        assert re.fullmatch(pattern, line)


async def test_a_choice_holds(stub: Stub) -> None:
    """One of the texts, word for word, be they prefixes of each other or not English."""
    texts = ["yes", "yes and no", "größer", 'say "no"', "a\\b"]

    drawn = Counter([(await _drawn(stub, {"choice": {"texts": texts}}, seed))[0] for seed in range(12)])

    assert drawn.keys() <= set(texts)
    assert len(drawn) > 1


async def test_a_grammar_holds(stub: Stub) -> None:
    """The text is of the language that the grammar describes."""
    for seed in range(5):
        total, _ = await _drawn(stub, {"grammar": SUM}, seed)
        assert re.fullmatch(r"[1-9][0-9]{0,2}( \+ [1-9][0-9]{0,2}){1,3}", total)


async def test_a_json_object_is_one(stub: Stub) -> None:
    """Any object will do; random weights may find no end to it, and then what came is the beginning of one."""
    drawn = await asyncio.gather(*(_drawn(stub, {"json_object": True}, seed, max_tokens=200) for seed in range(8)))
    for document, finish in drawn:
        assert document.startswith("{")
        if finish == generator_pb2.FINISH_REASON_STOP:
            assert isinstance(json.loads(document), dict)


REFUSED: list[dict[str, Any]] = [
    {"regex": "((("},
    {"regex": "[z-a]"},
    {"regex": r"(?<=a)b\1"},
    {"json_schema": "{"},
    {"json_schema": '"object"'},
    {"json_schema": '{"type": "nonsense"}'},
    {"json_schema": '{"type": "array", "uniqueItems": true}'},
    {"json_schema": '{"type": "array", "contains": {"const": 1}}'},
    {"json_schema": '{"$ref": "#/$defs/missing"}'},
    {"json_schema": '{"type": "string", "format": "nonsense"}'},
    {"json_schema": '{"type": "integer", "minimum": 5, "maximum": 1}'},
    {"json_schema": '{"not": {"type": "string"}}'},
    {"grammar": "nonsense ::"},
    {"grammar": "root ::= missing"},
    {"grammar": 'start: "a'},
]


@pytest.mark.parametrize("form", REFUSED, ids=str)
async def test_a_form_that_cannot_hold_is_the_callers_fault(stub: Stub, form: dict[str, str]) -> None:
    """The field is named, no path of the engine's source is told, and the engine lives on."""
    with pytest.raises(InvalidArgument) as caught:
        await read(stub.Generate(request(prompt="A mesh", max_tokens=5, structured_output=form)))

    assert (caught.value.reason, caught.value.violations[0].field) == ("INVALID_FIELD", "structured_output")
    assert ".cc" not in caught.value.message
    assert (await _drawn(stub, {"choice": {"texts": ["alive"]}}, 0))[0] == "alive"


async def _drawn(stub: Stub, form: dict[str, Any], seed: int, max_tokens: int = 0) -> tuple[str, int]:
    """The text drawn by this seed, and why it ended."""
    asked = request(prompt="A mesh", structured_output=form, sampling={"seed": seed}, max_tokens=max_tokens)
    messages = await read(stub.Generate(asked))
    return text(messages), messages[-1].finish_reason
