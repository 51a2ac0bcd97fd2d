"""Which quotes support an answer."""

from generator_svc.engine import Passage
from generator_svc.evidence import choose, weigh, weigh_again
from generator_svc.terms import terms

LEAVE = Passage(1, "Every employee has thirty days of paid leave a year. Unused leave ends in March.", "Leave", 0.9)
TRAVEL = Passage(2, "Train journeys are booked in second class. Short flights are not reimbursed.", "Travel", 0.4)


def _best(question: str, *passages: Passage) -> list[str]:
    return [candidate.quote.text for candidate in choose(weigh(question, passages), 0.25)]


def test_the_sentence_that_shares_the_rare_words_is_best() -> None:
    """A question is answered from the sentence about it, whatever the order of the passages."""
    question = "How many days of leave does an employee have?"

    assert _best(question, LEAVE, TRAVEL)[0] == _best(question, TRAVEL, LEAVE)[0]
    assert _best(question, LEAVE, TRAVEL)[0].startswith("Every employee has thirty days")


def test_nothing_is_chosen_where_nothing_supports_an_answer() -> None:
    """A question about something else, or of stop words only, has no answer; nor has one without passages."""
    assert _best("Who painted the Mona Lisa?", LEAVE, TRAVEL) == []
    assert _best("What is it?", LEAVE) == []
    assert _best("How many days of leave?") == []


def test_chosen_quotes_say_different_things() -> None:
    """The same sentence in two passages is quoted once."""
    copy = Passage(3, LEAVE.text, LEAVE.title, 0.8)

    assert len(_best("How many days of leave does an employee have?", LEAVE, copy)) == 1


def test_a_title_counts_for_the_sentences_under_it() -> None:
    """Of two alike sentences the one under the title that the question names is best."""
    pods = Passage(1, "It can be deleted with one command.", "Pods")
    nodes = Passage(2, "It can be deleted with one command.", "Nodes")

    ranked = weigh("How can nodes be deleted?", [pods, nodes])

    assert ranked[0].passage.title == "Nodes"


def test_a_better_passage_decides_between_alike_sentences() -> None:
    """The search's score tips the scales when the words do not."""
    low, high = Passage(1, "Flights are cheap.", "", 0.1), Passage(2, "Flights are cheap.", "", 0.7)

    assert weigh("Are flights cheap?", [low, high])[0].passage.number == 2


def test_chinese_is_compared_by_signs_and_pairs() -> None:
    """A question without spaces finds its sentence."""
    passage = Passage(1, "华沙位于维斯瓦河畔。夏季剧院位于萨克森花园中。", "华沙")

    assert _best("夏季剧院在哪里？", passage)[0] == "夏季剧院位于萨克森花园中。"


def test_terms_are_light_stems() -> None:
    """Forms of one word have one stem; stop words have none."""
    assert terms("The running policies of employees") == terms("running policy employee")
    assert terms("booked") == terms("booking") == terms("books")
    assert terms("is it the") == []


def test_support_is_a_probability_that_follows_the_answer() -> None:
    """The sentence that answers has most of it; a question about something else has next to none."""
    answered = weigh("How many days of leave does an employee have?", [LEAVE, TRAVEL])[0].support
    strange = weigh("Who painted the Mona Lisa?", [LEAVE, TRAVEL])[0].support

    assert 0 <= strange < 0.25 < answered <= 1


def test_meaning_decides_where_words_do_not() -> None:
    """Of sentences that share as much with the question, the one that the encoder finds nearer is best."""
    passage = Passage(1, "The oak was felled in spring. The oak was planted in spring.")
    ranked = weigh("What became of the oak?", [passage])

    again = weigh_again(ranked, [0.2, 0.8])

    assert again[0].quote == ranked[1].quote
    assert again[0].support > again[1].support
