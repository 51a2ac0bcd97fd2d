"""The guard: which questions ask the same."""

import pytest

from gateway.likeness import same_sense, sense_of

SAME = [
    ("When did the 1973 oil crisis begin?", "when did the 1973 oil crisis start"),
    ("What's the capital of France?", "Please tell me what is the capital of France."),
    ("What is Nexus?", "What’s Nexus?"),
    ("Who led the attack?", "Could you please tell me: who led the attack?"),
    ("In what year was Acme founded?", "Acme was founded in what year?"),
    ("In which year was Acme founded?", "In what year was Acme founded?"),
    ("In 1990, who won the cup?", "Who won the cup in 1990?"),
    ("Which teams don't play?", "what team does not play?"),
    ("Waht is teh price of oil?", "What is the price of oil?"),
    ("How many vacation days are there?", "how mnay vacation day are there"),
    ("What are 1,000 items called?", "What are 1000 items called?"),
    ("How do twelve men vote?", "How do 12 men vote?"),
    ("WHO IS THE KING?", "Who is the king?"),
    ("What brought the downfall of filmmaking?", "What brought downfall of filmmaking?"),
    ('What does "fork" mean?', "What does “fork” mean"),
    ("公司的年假有多少天？", "请问公司年假多少天"),
    ("北京大学是什么时候成立的？", "北京大学何时成立"),
    ("谁发明了电话？", "请告诉我谁发明电话"),
    ("公司在哪里？", "公司在什么地方"),
]
OTHER = [
    ("What was the price in 1973?", "What was the price in 1974?"),
    ("How far is 5 km?", "How far is 5 miles?"),
    ("What costs $5?", "What costs €5?"),
    ("What is -5 + 3?", "What is 5 + 3?"),
    ("Who has 2.5 shares?", "Who has 25 shares?"),
    ("Is C fast?", "Is C++ fast?"),
    ("What is v1.2?", "What is v1.3?"),
    ("What changed on May 3?", "What changed on March 3?"),
    ("Who won?", "Who did not win?"),
    ("Which country is in the EU?", "Which country isn't in the EU?"),
    ("Who came before the king?", "Who came after the king?"),
    ("What is the minimum age?", "What is the maximum age?"),
    ("Who has the most seats?", "Who has the least seats?"),
    ("When did it open?", "Where did it open?"),
    ("How many people left?", "How much did people leave?"),
    ("How many people voted?", "How many women voted?"),
    ("In what year did it open?", "On what day did it open?"),
    ("Who is the president?", "Who was the president?"),
    ("Who leads the EU?", "Who will lead the EU?"),
    ("Who is the mayor of Newcastle?", "Who is the mayor of Fresno?"),
    ("Who defeated Napoleon?", "Who did Napoleon defeat?"),
    ("Who defeated A?", "Who did A defeat?"),
    ("Which dog bites men?", "Which men bite dogs?"),
    ("How far is it from Bonn to Rome?", "How far is it from Rome to Bonn?"),
    ("Is it on?", "Is IT on?"),
    ("What is AWS?", "What was?"),
    ("What does it cost?", "What does he cost?"),
    ("Who wrote “War and Peace”?", "Who wrote “War and Piece”?"),
    ("Who was killed by the king?", "Who was killed for the king?"),
    ("公司的年假有多少天？", "公司的病假有多少天？"),
    ("公司有3天年假吗？", "公司有5天年假吗？"),
    ("谁打败了小明？", "小明打败了谁？"),
    ("员工可以休假吗？", "员工不可以休假吗？"),
    ("会议什么时候开始？", "会议在哪里开始？"),
    ("会议之前做什么？", "会议之后做什么？"),
    ("iPhone 15的价格是多少？", "iPhone 16的价格是多少？"),
    ("最高温度是多少？", "最低温度是多少？"),
    ("Wann öffnet die Bank?", "Wann schließt die Bank?"),
    ("¿Quién no votó?", "¿Quién votó?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_in_other_words(one: str, other: str) -> None:
    """Forms, contractions, politeness, order, slips of the hand and synonyms do not matter, either way round."""
    assert same_sense(sense_of(one), sense_of(other))
    assert same_sense(sense_of(other), sense_of(one))


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_near_misses(one: str, other: str) -> None:
    """Numbers, units, dates, negation, contraries, names, roles, tenses, question words: each is another question."""
    assert not same_sense(sense_of(one), sense_of(other))
    assert not same_sense(sense_of(other), sense_of(one))


@pytest.mark.parametrize("text", ["", "?", ",", "who", ",,who,", "👍", "a" * 10_000, "何", "12", "'s"])
def test_any_text_has_a_sense(text: str) -> None:
    """And asks the same as itself."""
    assert same_sense(sense_of(text), sense_of(text))
