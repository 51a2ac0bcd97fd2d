"""What a question asks for."""

import pytest

from generator_svc.question import Kind, Question


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("How many days of leave are there?", Kind.NUMBER),
        ("What was the population of Warsaw?", Kind.NUMBER),
        ("When did the war begin?", Kind.DATE),
        ("In what year did the war begin?", Kind.DATE),
        ("Who led the expedition?", Kind.NAME),
        ("Which British general led it?", Kind.NAME),
        ("Where is the theatre?", Kind.PLACE),
        ("Why did they leave?", Kind.REASON),
        ("What is a Pod?", Kind.OTHER),
        ("夏季剧院在哪里？", Kind.OTHER),
    ],
)
def test_its_words_say_what_kind_of_thing_answers(text: str, kind: Kind) -> None:
    """Where they say nothing the kind is OTHER."""
    assert Question.read(text).kind is kind


def test_what_the_question_names_itself_is_no_answer() -> None:
    """A sentence names something of the kind only if the question does not."""
    question = Question.read("When did the war of 1812 end?")

    assert question.names_kind("It ended in February 1815.")
    assert not question.names_kind("The war of 1812 was long.")
    assert not Question.read("What is a Pod?").names_kind("A Pod is a group of containers.")


def test_a_sentence_without_the_numbers_lacks_them() -> None:
    """The share is of the question's numbers; a question without any lacks none."""
    question = Question.read("What was the price in March 1974 and in 1979?")

    assert question.lacking_numbers("It rose in 1974.") == pytest.approx(0.5)
    assert Question.read("What was the price?").lacking_numbers("It rose.") == 0
