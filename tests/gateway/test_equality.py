"""Equal questions."""

from dataclasses import replace

import pytest

from gateway.answers import Exchange, Planning, Question, Retrieval
from gateway.equality import normalised, question_key
from gateway.generation import Sampling, StructuredOutput, Writing
from gateway.tools import Tool, ToolCall, ToolExchange, ToolResult
from meshkit.identity import Identity

ALICE = Identity("acme", "alice", frozenset({"ask", "search"}))
BOB = Identity("acme", "bob", frozenset({"search", "ask"}))
QUESTION = Question("How long is leave?", "collections/handbook")
KEY = question_key(QUESTION, ALICE)


@pytest.mark.parametrize(
    "text", ["how long is  leave", " How long\nis leave ?!", "\uff28\uff4fw long is leave？", "HOW LONG IS LEAVE..."]
)
def test_the_form_of_a_text_does_not_matter(text: str) -> None:
    """Case, spaces, widths and final punctuation do not tell questions apart."""
    assert question_key(replace(QUESTION, text=text), ALICE) == KEY


@pytest.mark.parametrize("text", ["What is -5 + 3?", "2.5", "C++", "naïve", "¿Qué?"])
def test_what_carries_sense_stays(text: str) -> None:
    """Signs and accents within a text stay, so that only itself is equal to it."""
    assert normalised(text) == text.casefold().strip(" ?¿")


def test_callers_of_a_tenant_with_the_same_scopes_share_it() -> None:
    """The subject does not matter, nor do the request's id, its patience and its policy."""
    other = replace(QUESTION, request_id="r", linger_s=5.0)
    assert question_key(other, BOB) == KEY


@pytest.mark.parametrize(
    "change",
    [
        {"text": "How long is sick leave?"},
        {"collection": "collections/other"},
        {"model": "tiny"},
        {"history": (Exchange("q", "a"),)},
        {"retrieval": Retrieval(top_k=3)},
        {"retrieval": Retrieval(filter='lang = "en"')},
        {"writing": Writing(instructions="Answer in verse.")},
        {"writing": Writing(sampling=Sampling(temperature=0.0))},
        {"writing": Writing(structured_output=StructuredOutput("choice", ("yes", "no")))},
        {"planning": Planning(hyde=True)},
        {"planning": Planning(search_collections=("collections/other",))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_an_answer_changes_the_key(change: dict[str, object]) -> None:
    """Each option, the conversation, the collection and the text tell questions apart."""
    assert question_key(replace(QUESTION, **change), ALICE) not in (KEY, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "owner", [Identity("other", "alice", ALICE.scopes), Identity("acme", "alice", frozenset({"ask"}))]
)
def test_tenants_and_scopes_share_nothing(owner: Identity) -> None:
    """Callers who may see other things have other keys."""
    assert question_key(QUESTION, owner) != KEY


@pytest.mark.parametrize(
    "change",
    [
        {"session": "s1"},
        {"tools": (Tool("weather", "tells it"),)},
        {"tool_exchanges": (ToolExchange(ToolCall("1", "weather", {}), ToolResult("1", "rain")),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_only_its_caller_knows_is_equal_to_nothing(change: dict[str, object]) -> None:
    """A kept session and tools of the caller's make a question their own."""
    assert question_key(replace(QUESTION, **change), ALICE) == ""  # type: ignore[arg-type]
