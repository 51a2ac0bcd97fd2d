"""What LangChain's ChatOpenAI makes of the mesh, as one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import openai
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

QUESTION, COLLECTION = sys.argv[1:]


def main() -> None:
    """Ask in every way and print what was heard."""
    model = ChatOpenAI(model=COLLECTION)
    whole = model.invoke(QUESTION)
    parts = list(model.stream(QUESTION, stream_usage=True, extra_body={"cache": "bypass"}))
    streamed = sum(parts[1:], parts[0])
    assert isinstance(streamed, AIMessageChunk)
    said = [SystemMessage("Be brief."), HumanMessage("Hello"), AIMessage("Hello."), HumanMessage(QUESTION)]
    heard = {
        "whole": _describe(whole),
        "streamed": _describe(streamed) | {"pieces": len(parts)},
        "conversation": model.invoke(said).content,
        "vectors": OpenAIEmbeddings(model="all-MiniLM-L6-v2", check_embedding_ctx_length=False).embed_documents(
            ["leave", "travel"]
        ),
        "errors": {
            "collection": _error(lambda: ChatOpenAI(model="nowhere").invoke(QUESTION)),
            "model": _error(lambda: ChatOpenAI(model=f"{COLLECTION}/gpt-9").invoke(QUESTION)),
            "token": _error(lambda: ChatOpenAI(model=COLLECTION, api_key="x").invoke(QUESTION)),
            "value": _error(lambda: ChatOpenAI(model=COLLECTION, temperature=9).invoke(QUESTION)),
            "form": _error(lambda: model.with_structured_output(_FORM, method="json_schema").invoke(QUESTION)),
            "token ids": _error(lambda: openai.OpenAI().embeddings.create(model="all-MiniLM-L6-v2", input=[1, 2])),
        },
    }
    print(json.dumps(heard))


_FORM = {"title": "Leave", "type": "object", "properties": {"days": {"type": "string"}}, "required": ["days"]}


def _describe(message: AIMessage) -> dict[str, Any]:
    used = message.usage_metadata
    return {"text": message.content, "tokens": used and used["total_tokens"]}


def _error(call: Callable[[], object]) -> dict[str, Any]:
    try:
        call()
    except openai.APIStatusError as error:
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "openai")
        return {"kind": kind, "code": error.code, "param": error.param}
    return {}


main()
