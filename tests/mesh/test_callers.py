"""Clients of OpenAI's API that others have written, against the running mesh; and docs/openai.md, word for word."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from typing import Any

import httpx
import pytest
import pytest_asyncio

from deploy.local.envoy import REPOSITORY
from deploy.local.mesh import Mesh
from tests.mesh.conftest import COLLECTION

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
QUESTION = "How many days of paid leave does an employee have?"
FOLDER = REPOSITORY / "tests" / "callers"
PYTHON, OTHERS_PYTHON = sys.executable, str(REPOSITORY / "build" / "callers" / "bin" / "python")
NODE = ("node", "--input-type=module")
CALLERS = {
    "openai": (PYTHON, "openai_calls.py"),
    "openai for Node": ("node", "openai_calls.mjs"),
    "LangChain": (OTHERS_PYTHON, "langchain_calls.py"),
    "LlamaIndex": (OTHERS_PYTHON, "llama_index_calls.py"),
}
SNIPPETS = {
    "openai-python": (PYTHON, "-c"),
    "openai-node": (*NODE, "--eval"),
    "langchain": (OTHERS_PYTHON, "-c"),
    "langchain-citations": (OTHERS_PYTHON, "-c"),
    "llama-index": (OTHERS_PYTHON, "-c"),
}
ERRORS = {
    "collection": {"kind": "NotFoundError", "code": "COLLECTION_NOT_FOUND", "param": "model"},
    "model": {"kind": "NotFoundError", "code": "MODEL_NOT_FOUND", "param": "model"},
    "token": {"kind": "AuthenticationError", "code": "IDENTITY_INVALID", "param": None},
    "value": {"kind": "BadRequestError", "code": "INVALID_BODY", "param": "temperature"},
    "form": {"kind": "BadRequestError", "code": "UNSUPPORTED_BY_ENGINE", "param": "response_format"},
    "token ids": {"kind": "BadRequestError", "code": "INVALID_BODY", "param": "input"},
}


async def _run(mesh: Mesh, *command: str) -> str:
    """What the command prints, as a user of this mesh in the callers' folder."""
    access = {"OPENAI_BASE_URL": f"http://{mesh.edge}/v1", "OPENAI_API_KEY": mesh.token()}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=FOLDER, env=os.environ | access, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 150)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def heard(mesh: Mesh) -> dict[str, Any]:
    """What each caller made of the mesh; all call at once."""
    said = await asyncio.gather(*(_run(mesh, *command, QUESTION, COLLECTION) for command in CALLERS.values()))
    return dict(zip(CALLERS, map(json.loads, said), strict=True))


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_caller_hears_the_same_whole_and_streamed(heard: dict[str, Any], caller: str) -> None:
    """Text, tokens and citations are the same both ways, the stream comes in pieces, and the past may be sent along."""
    whole, streamed = heard[caller]["whole"], heard[caller]["streamed"]
    assert "thirty days of paid leave" in whole["text"]
    assert whole["tokens"] > 0
    assert streamed.pop("pieces") > 1
    assert streamed == whole
    assert heard[caller]["conversation"] == whole["text"]


@pytest.mark.parametrize("caller", [caller for caller in CALLERS if caller != "LangChain"])
async def test_a_caller_reads_citations_as_annotations(heard: dict[str, Any], caller: str) -> None:
    """The clients' own types have the title and where the claim ends; LangChain's have no place for them."""
    ((title, end),) = heard[caller]["whole"]["cited"]
    assert (title, end) == ("Leave", len("Every employee has thirty days of paid leave a year."))


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_caller_gets_vectors(heard: dict[str, Any], caller: str) -> None:
    """Two texts have two vectors, as numbers or in base64 as the client would have it; they are the same for all."""
    assert [len(row) for row in heard[caller]["vectors"]] == [384, 384]
    expected = [number for row in heard["openai"]["vectors"] for number in row]
    assert [number for row in heard[caller]["vectors"] for number in row] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_caller_raises_its_own_errors(heard: dict[str, Any], caller: str) -> None:
    """Each failure is the client's exception for its status, with the published reason as its code."""
    raised = heard[caller]["errors"]
    assert raised == {name: ERRORS[name] for name in raised}
    assert len(raised) >= 5


@pytest.mark.parametrize("caller", ["openai", "openai for Node"])
async def test_a_caller_lists_models_and_reads_one(heard: dict[str, Any], caller: str) -> None:
    """Each collection is there by itself and with each model, and a name with a slash can be read."""
    # Other tests of the same mesh have collections of their own.
    named = [name for name in heard[caller]["models"] if name.partition("/")[0] == COLLECTION]
    assert named == [COLLECTION, f"{COLLECTION}/extractive"]
    assert heard[caller]["model"] == f"{COLLECTION}/extractive"


@pytest.mark.parametrize("snippet", SNIPPETS)
async def test_the_documents_snippets_run_as_they_stand(mesh: Mesh, snippet: str) -> None:
    """Each prints the answer or what it cites."""
    page = (REPOSITORY / "docs" / "openai.md").read_text()
    (code,) = re.findall(rf"<!-- snippet:{snippet} -->\n```\w+\n(.*?)```", page, re.DOTALL)
    printed = await _run(mesh, *SNIPPETS[snippet], code)
    assert "six months of unpaid leave" in printed
    if snippet != "langchain":
        assert "leave.md" in printed


async def test_what_open_webui_sends_is_answered(mesh: Mesh) -> None:
    """It lists models, then streams, with content in parts and fields of its own; pictures are refused."""
    bearer = {"authorization": f"Bearer {mesh.token()}"}
    async with httpx.AsyncClient(base_url=f"http://{mesh.edge}/v1", headers=bearer, timeout=30) as client:
        (model, *_) = (await client.get("/models")).json()["data"]
        parts: list[Any] = [{"type": "text", "text": QUESTION}]
        body = {
            "model": model["id"],
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "system", "content": ""}, {"role": "user", "content": parts}],
            "chat_id": "c",
            "metadata": {"task": "x"},
            "reasoning_effort": "low",
            "top_k": 40,
            "user": "ann",
        }
        frames = (await client.post("/chat/completions", json=body)).text.split("\n\n")
        parts.append({"type": "image_url", "image_url": {"url": "data:image/png;base64,"}})
        refused = await client.post("/chat/completions", json=body)
    assert frames[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert chunks[-2]["choices"][0]["delta"]["annotations"][0]["url_citation"]["url"] == "leave.md"
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[1].content[1].type")
