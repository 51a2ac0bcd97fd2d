"""The engine that quotes."""

import pytest

from generator_svc.engine import (
    Chat,
    Delta,
    EngineKind,
    FinishReason,
    Form,
    Grounded,
    Message,
    Passage,
    Prompt,
    Request,
)
from generator_svc.extractive_engine import ExtractiveEngine
from meshkit.errors import InvalidArgument

QUESTION = "How many days of paid leave does an employee have?"
PASSAGES = (
    Passage(1, "Train journeys are booked in second class."),
    Passage(4, "Every employee has thirty days of paid leave a year. It ends in March."),
)


def _engine() -> ExtractiveEngine:
    return ExtractiveEngine("extractive", min_support=0.25)


def _asked(question: str = QUESTION, passages: tuple[Passage, ...] = PASSAGES, **fields: object) -> Request:
    return Request("one", Grounded(question, passages), **fields)  # type: ignore[arg-type]


async def _deltas(request: Request) -> list[Delta]:
    engine = _engine()
    return [delta async for delta in engine.generate(await engine.prepare(request))]


async def test_it_quotes_some_words_at_a_time_and_cites() -> None:
    """The sentence comes verbatim, its first word alone, with its passage's number behind it."""
    found = await _deltas(_asked())

    assert "".join(delta.text for delta in found) == "Every employee has thirty days of paid leave a year. [4]"
    assert [delta.text for delta in found][:2] == ["Every", " employee has thirty days of paid leave a"]
    assert found[-1].finish is FinishReason.STOP
    assert found[-1].usage
    assert found[-1].usage.completion_tokens == sum(delta.tokens for delta in found) == 11
    assert {stage.name for stage in found[-1].stages} == {"queue", "prefill", "first_token", "decode"}


async def test_it_abstains_without_a_word() -> None:
    """A question that the passages do not answer gets one delta without text."""
    (only,) = await _deltas(_asked("Who painted the Mona Lisa?"))

    assert (only.text, only.finish, only.tokens) == ("", FinishReason.ABSTAINED, 0)


async def test_code_stands_on_its_own_lines() -> None:
    """The marker comes after the closing fence, on the next line, and the next quote after a blank one."""
    passage = Passage(
        1, "To list secrets run:\n\n```\nkubectl get secrets\n```\n\nThey hold the keys that pods run with."
    )

    found = await _deltas(_asked("How do I list secrets?", (passage,)))

    text = "".join(delta.text for delta in found)
    assert text.startswith("To list secrets run:\n\n```\nkubectl get secrets\n```\n[1]")


async def test_stop_texts_and_max_tokens_end_it() -> None:
    """A stop text is not part of the answer; a word counts as a token."""
    stopped = await _deltas(_asked(stop=("thirty", "leave")))
    short = await _deltas(_asked(max_tokens=3))

    assert "".join(delta.text for delta in stopped).strip() == "Every employee has"
    assert stopped[-1].finish is FinishReason.STOP
    assert "".join(delta.text for delta in short) == "Every employee has"
    assert short[-1].finish is FinishReason.LENGTH


async def test_chinese_streams_some_signs_at_a_time() -> None:
    """A language without spaces streams as well."""
    found = await _deltas(_asked("夏季剧院在哪里？", (Passage(2, "夏季剧院位于萨克森花园中。"),)))

    assert [delta.text for delta in found][:2] == ["夏", "季剧院位于萨克森"]
    assert "".join(delta.text for delta in found) == "夏季剧院位于萨克森花园中。 [2]"


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        (Request("one", Prompt("Hello")), "prompt"),
        (Request("one", Chat([Message("user", "Hello")])), "chat"),
        (_asked(form=Form(regex="a")), "structured_output"),
        (_asked(logprobs=1), "logprobs"),
        (_asked(n=2), "n"),
        (_asked(stop_token_ids=(1,)), "stop_token_ids"),
        (_asked(ignore_eos=True), "ignore_eos"),
    ],
)
async def test_what_only_a_language_model_does_is_refused(request_: Request, option: str) -> None:
    """The error names the option."""
    with pytest.raises(InvalidArgument) as caught:
        await _deltas(request_)

    assert (caught.value.reason, caught.value.metadata) == ("UNSUPPORTED_BY_ENGINE", {"option": option})


async def test_it_says_that_it_is_no_language_model() -> None:
    """The card is honest, and counting tokens is refused."""
    assert _engine().card.kind is EngineKind.EXTRACTIVE
    assert "No language model" in _engine().card.description
    with pytest.raises(InvalidArgument, match="UNSUPPORTED_BY_ENGINE"):
        await _engine().count_tokens(Prompt("Hello"))
