"""What LlamaIndex's OpenAILike makes of the mesh, as one JSON object."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import openai
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

QUESTION, COLLECTION = sys.argv[1:]
ACCESS: dict[str, Any] = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}


def main() -> None:
    """Ask in every way and print what was heard."""
    model = _model(COLLECTION)
    question = ChatMessage(role="user", content=QUESTION)
    whole = model.chat([question])
    parts = list(model.stream_chat([question], stream_options={"include_usage": True}, extra_body={"cache": "bypass"}))
    past = [ChatMessage(role=role, content=text) for role, text in _PAST]
    encoder = OpenAILikeEmbedding(model_name="all-MiniLM-L6-v2", **ACCESS)
    heard = {
        "whole": _describe(whole.message.content, whole.raw.usage, whole.raw.choices[0].message),
        "streamed": _describe(parts[-1].message.content, parts[-1].raw.usage, parts[-2].raw.choices[0].delta)
        | {"pieces": len(parts)},
        "conversation": model.chat([*past, question]).message.content,
        "vectors": encoder.get_text_embedding_batch(["leave", "travel"]),
        "errors": {
            "collection": _error(lambda: _model("nowhere").chat([question])),
            "model": _error(lambda: _model(f"{COLLECTION}/gpt-9").chat([question])),
            "token": _error(lambda: _model(COLLECTION, api_key="x").chat([question])),
            "value": _error(lambda: model.chat([question], temperature=9)),
            "form": _error(lambda: model.chat([question], response_format={"type": "json_object"})),
        },
    }
    print(json.dumps(heard))


_PAST = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hello.")]


def _model(name: str, **changes: str) -> OpenAILike:
    return OpenAILike(model=name, is_chat_model=True, max_retries=0, **(ACCESS | changes))


def _describe(text: str, usage: Any, message: Any) -> dict[str, Any]:
    notes = message.to_dict()["annotations"]
    cited = [(note["url_citation"]["title"], note["url_citation"]["end_index"]) for note in notes]
    return {"text": text, "tokens": usage.total_tokens, "cited": cited}


def _error(call: Callable[[], object]) -> dict[str, Any]:
    try:
        call()
    except openai.APIStatusError as error:
        return {"kind": type(error).__name__, "code": error.code, "param": error.param}
    return {}


main()
