"""Questions put in other words, and questions that look alike and ask something else, made from labelled ones by rule.

The synonyms here were written without those that the guard knows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

Rule = Callable[[str, random.Random], str]

_POLITE = (
    "Please tell me {}",
    "Can you tell me {}?",
    "Could you please tell me: {}?",
    "Do you know {}?",
    "I would like to know {}.",
    "Hi, {} please?",
    "{}? Thanks!",
)
_SYNONYMS = """
    called named, big large, begin start, began started, build construct, built constructed, important significant,
    kind type, type kind, use utilize, used utilized, show demonstrate, main primary, major principal, occur happen,
    area region, created made, helped assisted, country nation, cost price, leader head, famous well-known,
    need require, war conflict, people persons, city town, job occupation, movie film, company firm, name title,
    happened occurred, found discovered, received got, said stated, wrote authored, died perished, hard difficult,
    fast quick, goal aim, law statute, largest biggest, method way, often frequently, part portion, purpose aim,
    reason cause
"""
_TYPOS = """
    what waht, what whta, the teh, the hte, which whcih, which wich, when wehn, where wehre, did ddi, was wsa,
    does deos, were wree, that taht, with wiht, from fomr, have ahve, how hwo, who woh, many mnay, the thee, what whatt
"""
_LIGHTER = (
    (r"\bWhich\b", "What"), (r"\bwhich\b", "what"), (r"\bWhat is\b", "What's"), (r"\bWho is\b", "Who's"),
    (r"\bdid not\b", "didn't"), (r"\bis not\b", "isn't"), (r"\bthe\b ", ""), (r"\bIn what year\b", "In which year"),
    (r"\bIn what\b", "What"), (r"\bdoes not\b", "doesn't"), (r"\bWhere is\b", "Where's"),
)  # fmt: skip
_OTHERWISE = """
    before after, first last, most least, more less, highest lowest, largest smallest, north south, east west,
    increase decrease, increased decreased, maximum minimum, begin end, began ended, start finish, above below,
    early late, won lost, old young, majority minority, earliest latest, upper lower, inside outside, positive negative
"""
_ASKING = {
    "When": "Where", "Where": "When", "Who": "When", "Why": "How", "How": "Why",
    "How many": "Which", "What": "Why",
}  # fmt: skip
_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w'’-]+(?: (?:of |the )?[A-Z][\w'’-]+)*")
_DENIED = re.compile(r"\b(is|are|was|were|did|does|do|can|could|has|had|will|would)\b( \w+)")


def _table(pairs: str) -> dict[str, str]:
    return dict(pair.split() for pair in pairs.split(","))


def paraphrases(question: str, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Each way that applies by name, and what it makes of the question."""
    yield "politeness", draw.choice(_POLITE).format(question[0].lower() + question[1:].rstrip("?. "))
    yield from _first("synonym", question, [_swapped(question, *pair) for pair in _table(_SYNONYMS).items()], draw)
    slips = [_swapped(question, *pair.split()) for pair in _TYPOS.split(",")]
    yield from _first("slip of the hand", question, slips, draw)
    yield from _first("grammar", question, [re.sub(old, new, question, count=1) for old, new in _LIGHTER], draw)
    fronted = re.sub(r"^(\w)(.*) (in|during|at|after|before) ([^ ]+)\?$", _front, question)
    yield from _first("order", question, [fronted], draw)


def near_misses(question: str, names: Sequence[str], draw: random.Random) -> Iterator[tuple[str, str]]:
    """Each way that applies by name, and what it makes of the question; `names` are of the same article."""
    numbers = [
        question[: at.start()] + str(int(at[0]) + draw.choice((1, 2, 10))) + question[at.end() :]
        for at in _NUMBER.finditer(question)
    ]
    yield from _first("another number", question, numbers, draw)
    found = list(_NAME.finditer(question))
    others = [name for name in names if name not in question]
    if found and others:
        at = draw.choice(found)
        yield "another name", question[: at.start()] + draw.choice(others) + question[at.end() :]
    denied = _DENIED.sub(r"\1 not\2", question, count=1)
    yield from _first("denied", question, [denied], draw)
    both = [*_table(_OTHERWISE).items(), *((new, old) for old, new in _table(_OTHERWISE).items())]
    yield from _first("the contrary", question, [_swapped(question, *pair) for pair in both], draw)
    asked = [new + question[len(old) :] for old, new in _ASKING.items() if question.startswith(f"{old} ")]
    yield from _first("another question word", question, asked, draw)


def names_of(questions: Sequence[str]) -> list[str]:
    """The names in the questions, each once."""
    return list(dict.fromkeys(name for question in questions for name in _NAME.findall(question)))


def _swapped(question: str, old: str, new: str) -> str:
    def instead(found: re.Match[str]) -> str:
        return new.capitalize() if found[0][0].isupper() else new

    return re.sub(rf"\b{old}\b", instead, question, count=1, flags=re.IGNORECASE)


def _front(found: re.Match[str]) -> str:
    first, rest, preposition, word = found.groups()
    return f"{preposition.capitalize()} {word}, {first.lower()}{rest}?"


def _first(kind: str, question: str, made: Sequence[str], draw: random.Random) -> Iterator[tuple[str, str]]:
    different = [text for text in made if text != question]
    if different:
        yield kind, draw.choice(different)
