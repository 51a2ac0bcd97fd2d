"""What a question asks for, as far as its words say it."""

import re
from dataclasses import dataclass
from enum import Enum

from generator_svc.terms import terms


class Kind(Enum):
    """What kind of thing answers a question; OTHER where its words do not say."""

    NUMBER = "number"
    DATE = "date"
    NAME = "name"
    PLACE = "place"
    REASON = "reason"
    OTHER = "other"


_NUMBER_WORDS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twenty|thirty|forty|fifty|sixty|hundred"
    "|thousand|million|billion|half|third|quarter|twice|once"
)
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DEGREES = "long|far|old|large|big|tall|high|often|wide|deep|fast"
_QUANTITIES = "number|percent|percentage|population|amount|size|rate|average|distance|temperature|cost|price|age"
_PERSONS = (
    "person|man|woman|president|king|queen|general|author|scientist|leader|team|group|company|organi[sz]ation|people"
)
_PLACES = "city|cities|country|countries|state|place|location|river|region|street|area|county|town|mountain|island"

# The first that matches a question says its kind.
_ASKED = (
    (
        Kind.NUMBER,
        rf"\bhow (?:many|much|{_DEGREES})\b|\bwhat (?:is |was |are |were )?(?:the )?(?:\w+ )?(?:{_QUANTITIES})\b",
    ),
    (Kind.DATE, r"\bwhen\b|\b(?:what|which) (?:\w+ )?(?:year|date|month|day|century|decade)\b"),
    (Kind.NAME, rf"\bwho(?:m|se)?\b|\b(?:what|which) (?:\w+ )?(?:{_PERSONS})\b"),
    (Kind.PLACE, rf"\bwhere\b|\b(?:what|which) (?:\w+ )?(?:{_PLACES})\b"),
    (Kind.REASON, r"\bwhy\b|\bwhat (?:is|was) the (?:reason|cause)\b|\bwhat caused\b"),
)
_ASKED_KINDS = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _ASKED)

# What a sentence holds that answers a question of the kind.
_GIVEN = {
    Kind.NUMBER: re.compile(rf"\d[\d,.]*|\b(?:{_NUMBER_WORDS})\b", re.IGNORECASE),
    Kind.DATE: re.compile(rf"\b(?:1\d{{3}}|20\d\d)s?\b|\b(?:{_MONTHS})\b|\bcentur(?:y|ies)\b|\b(?:BC|AD)\b"),
    # A capital that is not there because a sentence begins.
    Kind.NAME: re.compile(r"(?<![.!?]\s)(?<!^)(?<!^[\"“'])\b[A-Z][\w’'-]+"),
    Kind.PLACE: re.compile(
        r"\b(?:in|at|near|from|to|of|on|into|through|along|around|between|north|south|east|west)\s+(?:the\s+)?[A-Z]\w+"
    ),
    Kind.REASON: re.compile(
        r"\b(?:because|due to|since|so that|in order|as a result|therefore|thus|caused?|led to|reason|owing|to \w+)\b",
        re.IGNORECASE,
    ),
}
_NUMBER = re.compile(r"\d[\d,.]*\d|\d")
# "how many days", "which British general": the noun that the answer is one of.
_HEAD = re.compile(r"\b(?:what|which|whose|how many|how much)\s+((?:[a-z]+\s+){0,2}?[a-z]+)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Question:
    """A question taken apart: its terms in order, those of the noun it asks for, and its numbers as written."""

    text: str
    kind: Kind
    terms: tuple[str, ...]
    head: frozenset[str]
    numbers: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "Question":
        """The question in a text."""
        head = _HEAD.search(text)
        return cls(
            text=text,
            kind=next((kind for kind, pattern in _ASKED_KINDS if pattern.search(text)), Kind.OTHER),
            terms=tuple(terms(text)),
            head=frozenset(terms(head[1]) if head else ()),
            numbers=tuple(_NUMBER.findall(text)),
        )

    def names_kind(self, sentence: str) -> bool:
        """Whether the sentence holds something of the kind asked for that the question does not hold itself."""
        given = _GIVEN.get(self.kind)
        if given is None:
            return False
        known = self.text.casefold()
        return any(match[0].casefold() not in known for match in given.finditer(sentence))

    def lacking_numbers(self, sentence: str) -> float:
        """The share of the question's numbers that the sentence does not have."""
        missing = sum(number not in sentence for number in self.numbers)
        return missing / len(self.numbers) if self.numbers else 0.0
