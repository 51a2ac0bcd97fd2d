"""What the openai package for Python makes of the mesh, as one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam

QUESTION, COLLECTION = sys.argv[1:]
ENCODER = "all-MiniLM-L6-v2"


def main() -> None:
    """Ask in every way and print what was heard."""
    client = openai.OpenAI()
    ask = client.chat.completions.create
    whole = ask(model=COLLECTION, messages=said(QUESTION))
    with client.chat.completions.stream(
        model=COLLECTION, messages=said(QUESTION), stream_options={"include_usage": True}, extra_body=_ANEW
    ) as stream:
        pieces = sum(event.type == "content.delta" for event in stream)
        streamed = stream.get_final_completion()
    heard = {
        "whole": _describe(whole),
        "streamed": _describe(streamed) | {"pieces": pieces},
        "conversation": ask(model=COLLECTION, messages=[*_PAST, *said(QUESTION)]).choices[0].message.content,
        "vectors": [row.embedding for row in client.embeddings.create(model=ENCODER, input=["leave", "travel"]).data],
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve(f"{COLLECTION}/extractive").id,
        "errors": {
            "collection": _error(lambda: ask(model="nowhere", messages=said(QUESTION))),
            "model": _error(lambda: ask(model=f"{COLLECTION}/gpt-9", messages=said(QUESTION))),
            "token": _error(client.with_options(api_key="x").models.list),
            "value": _error(lambda: ask(model=COLLECTION, messages=said(QUESTION), temperature=9)),
            "form": _error(lambda: ask(model=COLLECTION, messages=said(QUESTION), response_format=_FORM)),
            "token ids": _error(lambda: client.embeddings.create(model=ENCODER, input=[1, 2])),
        },
    }
    print(json.dumps(heard))


def said(text: str) -> list[ChatCompletionMessageParam]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


_PAST: list[ChatCompletionMessageParam] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello."},
]
_ANEW = {"cache": "bypass"}
_FORM: Any = {"type": "json_schema", "json_schema": {"name": "leave", "schema": {"type": "object"}}}


def _describe(reply: openai.types.chat.ChatCompletion) -> dict[str, Any]:
    message = reply.choices[0].message
    cited = [(note.url_citation.title, note.url_citation.end_index) for note in message.annotations or ()]
    used = reply.usage
    return {"text": message.content, "tokens": used and used.total_tokens, "cited": cited}


def _error(call: Callable[[], object]) -> dict[str, Any]:
    try:
        call()
    except openai.APIStatusError as error:
        return {"kind": type(error).__name__, "code": error.code, "param": error.param}
    return {}


main()
