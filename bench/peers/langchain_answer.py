"""Answers over a few documents with LangChain as its documentation has it: FastAPI, a retriever, a chat model, SSE.

`uvicorn --app-dir bench/peers langchain_answer:app` reads CHUNKS (a JSON list of texts), DATABASE (a Milvus Lite file),
EMBEDDINGS (a sentence-transformers model), TOP_K, and OPENAI_API_BASE and MODEL of the model that writes.
It runs in an environment of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_huggingface import HuggingFaceEmbeddings
from langchain_milvus import Milvus
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from sse_starlette import EventSourceResponse

BATCH = 128
"""Chunks added in one call: Milvus Lite drops a connection over which nothing was sent for some 30 seconds."""
RULES = """\
You answer questions from numbered passages. Use only what they say, and cite them by their numbers in square brackets,
like [1]. If they do not hold the answer, say that you do not know."""
PROMPT = ChatPromptTemplate.from_messages([("system", RULES), ("human", "{context}\n\nQuestion: {question}")])


class Asked(BaseModel):
    """A question, and the most tokens of its answer."""

    question: str
    max_tokens: int


def open_store() -> Milvus:
    """The chunks in Milvus Lite."""
    store = Milvus(
        embedding_function=HuggingFaceEmbeddings(model_name=os.environ["EMBEDDINGS"]),
        connection_args={"uri": os.environ["DATABASE"]},
    )
    chunks = json.loads(Path(os.environ["CHUNKS"]).read_text())
    for first in range(0, len(chunks), BATCH):
        store.add_texts(chunks[first : first + BATCH])
    return store


app = FastAPI()
retriever = open_store().as_retriever(search_kwargs={"k": int(os.environ["TOP_K"])})
model = ChatOpenAI(model=os.environ["MODEL"], api_key="none", stream_usage=True)


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that it serves."""
    return {"status": "ok"}


@app.post("/answers")
async def answer(asked: Asked) -> EventSourceResponse:
    """Stream the answer: its sources, its tokens, its end."""
    return EventSourceResponse(_events(asked))


async def _events(asked: Asked) -> AsyncIterator[dict[str, str]]:
    found = await retriever.ainvoke(asked.question)
    yield {"event": "sources", "data": json.dumps([document.page_content for document in found])}
    chain = PROMPT | model.bind(max_tokens=asked.max_tokens) | StrOutputParser()
    async for token in chain.astream({"context": _numbered(found), "question": asked.question}):
        if token:
            yield {"event": "token", "data": json.dumps(token)}
    yield {"event": "end", "data": "{}"}


def _numbered(documents: list[Document]) -> str:
    return "\n\n".join(f"[{number}] {document.page_content}" for number, document in enumerate(documents, start=1))
