"""What plain rules read from a question."""

import pytest

from gateway import rules


@pytest.mark.parametrize(
    "text", ["Hi!", "hello there", "Good morning.", "你好\uff01", "Guten Tag", "¡Hola!", "Thanks a lot 🙂", "谢谢"]
)
def test_courtesies_are_answered(text: str) -> None:
    """A text that greets or thanks and does nothing else has a fixed answer."""
    assert rules.courtesy(text)


@pytest.mark.parametrize(
    "text", ["Hi, how long is leave?", "hello world program", "Who says good morning?", "", "你好吗世界"]
)
def test_questions_are_no_courtesies(text: str) -> None:
    """What asks for more is searched for."""
    assert rules.courtesy(text) == ""


def test_courtesy_is_in_the_language_of_its_caller() -> None:
    """A greeting is answered as it was made."""
    assert rules.courtesy("您好").startswith("你好")
    assert rules.courtesy("Merci beaucoup !") == "Je vous en prie."


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("1+1", "1+1"),
        ("What is 2 + 3 * (4 - 1)?", "2 + 3 * (4 - 1)"),
        ("calculate 1,250.50 × 3 =", "1250.50 * 3"),
        ("How much is 15% of 200?", "15 / 100 * 200"),
        ("2^10", "2**10"),
        ("计算 3*4", "3*4"),
        ("1+1等于几\uff1f", "1+1"),
        ("7 - 12", "7 - 12"),
        ("-3 + 5", "-3 + 5"),
    ],
)
def test_arithmetic_is_an_expression(text: str, expression: str) -> None:
    """What asks for a number and nothing else is in the calculator's signs."""
    assert rules.arithmetic(text) == expression


@pytest.mark.parametrize(
    "text",
    [
        "24/7",
        "What is 9/11?",
        "2026-11-21",
        "555-1234",
        "42",
        "What is 3G + 4G?",
        "What is RAG?",
        "10.0.0.1",
        "3 apples + 2",
        "",
    ],
)
def test_what_only_looks_like_arithmetic_is_none(text: str) -> None:
    """Dates, ranges, numbers alone and expressions among words are searched for."""
    assert rules.arithmetic(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        *["And in Germany?", "What about sick leave?", "Why?", "How long is it?", "When did they introduce that?"],
        *["Can I carry it over?", "In Germany?", "那德国呢\uff1f", "它有多长?", "Und in Berlin?"],
    ],
)
def test_follow_ups_need_the_question_before(text: str) -> None:
    """They say part of what they mean by it."""
    assert rules.follows_up(text)


@pytest.mark.parametrize(
    "text",
    [
        *["How long is parental leave?", "What is RAG?", "Does the company pay for their employees' lunch?"],
        *["Is it possible to work from Spain?", "In which year was the Sorbonne founded?", "年假有多少天?"],
    ],
)
def test_whole_questions_stand_alone(text: str) -> None:
    """What says all that it means is left as it is."""
    assert not rules.follows_up(text)


@pytest.mark.parametrize(
    "text", ["Who wrote it and when was it printed?", "Compare sick leave with holidays.", "What is A1? How old is B2?"]
)
def test_compound_questions(text: str) -> None:
    """Comparisons and questions joined by a word or a mark ask for several things."""
    assert rules.compound(text)


def test_simple_question_is_not_compound() -> None:
    """A word that joins two nouns joins no questions."""
    assert not rules.compound("What do Smith and Jones make?")


def test_parts_are_the_questions() -> None:
    """A text is cut at its marks; what is no question, or says nothing alone, is left out."""
    text = "How long is leave? And who approves it? Really? Thanks."
    assert rules.parts(text) == ("How long is leave?", "And who approves it?")


@pytest.mark.timeout(5)
@pytest.mark.parametrize("sign", ["a", " ", "和", "a?", "\n"])
def test_longest_question_is_read_at_once(sign: str) -> None:
    """However it is made: the process has other answers to give meanwhile."""
    text = sign * 32_768
    rules.parts(text)
    rules.compound(text)
    rules.follows_up(text)


def test_coverage_is_of_telling_words() -> None:
    """Words that every question has do not count; endings hardly do."""
    question = "How long is parental leave for employees?"
    assert rules.coverage(question, ["Every employee may take leave."]) == pytest.approx(2 / 3)
    assert rules.coverage(question, []) == 0
    assert rules.coverage("How is it?", []) == 1
