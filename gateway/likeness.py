"""Whether two questions ask the same, as far as their words tell: the guard of answers given again by likeness.

Vectors of questions are near where one number, name or word of sense is another; here that is a difference. What may
differ is what carries no sense of its own: words of the grammar, forms of a word, politeness, a fronted part, the place
of the question word, a few synonyms. Texts of languages that it does not know have to agree word by word.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

_CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Numbers, words, single signs of scripts without spaces, a comma, and each symbol.
_TOKEN = re.compile(
    rf"(?<![\w)])-?\d+(?:[.,:]\d+)*|\d+(?:[.,:]\d+)*|[{_CJK}]|(?:(?![{_CJK}])[^\W\d_])+|,|[^\w\s.:;!?'\"()\[\]{{}}…-]"
)
_QUIET = str.maketrans(
    dict.fromkeys("“”„«»「」『』`", '"') | {"’": "'", "\u2018": "'", "\u2013": " ", "—": " ", "、": ","}
)

_SOMEONE = r"(?:you|(?:some|any)(?:one|body))"
_POLITE = re.compile(
    rf"\b(?:please|kindly|(?:can|could|would|will) {_SOMEONE} (?:please )?(?:tell me|explain|let me know)"
    rf"|(?:do|does) {_SOMEONE} (?:happen to )?know"
    r"|i(?:'d like to| would like to|'d love to| would love to| want to| need to) (?:know|find out)"
    r"|i(?: am|'m| was)? wonder(?:ing)?(?: if you (?:know|could tell me))?|tell me|let me know|any idea"
    r"|thank you|thanks(?: a lot)?|exactly|hi|hello|hey)\b|请问|请告诉我|你?能?告诉我|你知道|我?想知道|麻烦|谢谢|一下",
    re.IGNORECASE,
)
_CONTRACTIONS = (
    (re.compile(r"\b(what|who|where|when|why|how)'s\b", re.IGNORECASE), r"\1 is"),
    (re.compile(r"\bcan't\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bcannot\b"), "can not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'(?:s|re|m)\b|'(?=\s|$)"), " "),
    (re.compile(r"'ve\b"), " have"),
)

_ASKING = MappingProxyType(
    {"whom": "who", "which": "what"} | {word: word for word in ("who", "whose", "what", "when", "where", "why", "how")}
)
_DEGREES = frozenset("many much long far often old tall high big large fast deep wide heavy soon".split())  # noqa: SIM905
_TENSES = MappingProxyType(
    dict.fromkeys(("was", "were", "did", "had"), "past")
    | dict.fromkeys(("is", "are", "do", "does", "has", "have"), "present")
)
_GRAMMAR = frozenset(("a", "an", "the", "of", "in", "on", "at", "be", "been", "being", "am", "that", "there", *_TENSES))
# Begins the rest of a question behind `what year` and its like.
_STOPPING = _GRAMMAR | frozenset(
    ("to", "from", "by", "for", "with", "and", "or", "can", "could", "would", "should", "may", "might", "must", "not")
)
# Words that a slip of the hand would make of others.
_REAL = frozenset(
    """
dose odes saw now no here hose these three thee inn bee nay aws fats bing rae ahs bene whoo hass sono fra idd bein lod
mayn lage afr
""".split()  # noqa: SIM905 - so it can be read
)

_NUMBERS = MappingProxyType(
    {
        word: str(number)
        for number, word in enumerate(
            ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), start=2
        )
    }
)
_SYNONYMS = MappingProxyType(
    {
        word: group[0]
        for group in (
            ("begin", "start", "commence", "began", "begun"),
            ("build", "construct", "built", "erect"),
            ("big", "large"),
            ("biggest", "largest"),
            ("buy", "purchase", "bought"),
            ("movie", "film"),
            ("car", "automobile"),
            ("doctor", "physician"),
            ("happen", "occur"),
            ("finish", "complete"),
            ("pick", "choose", "chose", "chosen", "select"),
            ("found", "establish"),
            ("kind", "type", "sort"),
            ("nearly", "almost"),
            ("quick", "fast", "rapid"),
            ("reside", "live"),
            ("assist", "help", "aid"),
            ("obtain", "get", "got"),
            ("percent", "%", "percentage"),
            ("will", "shall"),
        )
        for word in group
    }
)

# Chinese: what asks, longest first, and signs without a sense of their own.
_ASKING_CHINESE = (
    ("什么时候", "when"), ("何时", "when"), ("几时", "when"), ("哪一年", "what year"), ("哪年", "what year"),
    ("什么地方", "where"), ("哪里", "where"), ("哪儿", "where"), ("何处", "where"), ("什么人", "who"), ("哪位", "who"),
    ("何人", "who"), ("谁", "who"), ("为什么", "why"), ("为何", "why"), ("多长时间", "how long"), ("多久", "how long"),
    ("多少", "how many"), ("几", "how many"), ("怎么样", "how"), ("怎么", "how"), ("怎样", "how"), ("如何", "how"),
    ("哪个", "what"), ("哪些", "what"), ("哪种", "what"), ("什么", "what"),
)  # fmt: skip
_QUIET_CHINESE = frozenset("的了吗呢吧啊呀是有")


@dataclass(frozen=True, slots=True)
class Sense:
    """What a question's words say: what is asked for, of what, in which tenses.

    `told` has the words of sense in their order. `order` has them but for those in `asked`; `fronted` has those with
    what stands before the first comma put behind.
    """

    told: tuple[str, ...]
    asked: tuple[str, ...]
    order: tuple[str, ...]
    fronted: tuple[str, ...]
    tenses: frozenset[str]


def same_sense(one: Sense, other: Sense) -> bool:
    """Whether the two ask the same thing of the same."""
    if one.tenses and other.tenses and not one.tenses & other.tenses:
        return False
    if one.told == other.told:
        return True
    reordered = one.order in (other.order, other.fronted) or one.fronted == other.order
    return one.asked == other.asked and reordered


def sense_of(text: str) -> Sense:
    """The sense of a question of any length and language."""
    words = list(_words(text))
    asked, rest = _parted(words)
    order = _told(rest)
    head = len(_told(rest[: rest.index(",")])) if "," in rest else 0
    tenses = frozenset(_TENSES[word] for word in words if word in _TENSES)
    return Sense(_told(words), asked, order, order[head:] + order[:head], tenses)


def _told(words: Sequence[str]) -> tuple[str, ...]:
    """The words of sense, each in one form."""
    return tuple(_canonical(word) for word in words if word != "," and word not in _GRAMMAR)


def _words(text: str) -> Iterator[str]:
    """The tokens in small letters, but for names of the form of grammar (`IT`, `WHO`, `May`), which stay apart."""
    plain = unicodedata.normalize("NFKC", text).translate(_QUIET)
    shouted = plain.isupper()
    for pattern, instead in _CONTRACTIONS:
        plain = pattern.sub(instead, plain)
    plain = _POLITE.sub(" ", plain)
    for phrase, asking in () if plain.isascii() else _ASKING_CHINESE:
        plain = plain.replace(phrase, f" {asking} ")
    for place, token in enumerate(_TOKEN.findall(plain)):
        if token in _QUIET_CHINESE:
            continue
        named = place and not shouted and (token.isupper() or token in {"May", "Will", "Who"})
        small = token.casefold()
        slipped = shouted or token.islower() or not place
        yield token if named and small in _NAMELIKE else _SLIPS.get(small, small) if slipped else small


def _parted(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """What is asked for (`what year`, `how many people`, `who`) and the words around it; of several the first one."""
    begin = next((place for place, word in enumerate(words) if word in _ASKING), None)
    if begin is None:
        return (), words
    asking = _ASKING[words[begin]]
    end = begin + 1
    if asking == "how" and words[end : end + 1] and words[end] in _DEGREES:
        asking, end = f"how {words[end]}", end + 1
    behind = end
    if asking == "what" or " " in asking:
        while end < len(words) and words[end] not in _STOPPING and words[end] != "," and words[end] not in _ASKING:
            end += 1
    return (asking, *map(_canonical, words[behind:end])), words[:begin] + words[end:]


def _canonical(word: str) -> str:
    """The word as its other forms and its synonyms have it; numbers without the commas of thousands."""
    if word[-1].isdigit():
        return re.sub(r",(?=\d{3}\b)", "", word)
    stem = _ASKING.get(word) or _NUMBERS.get(word, word)
    stem = _SYNONYMS.get(stem, stem)
    return _SYNONYMS.get(_stemmed(stem), _stemmed(stem))


def _stemmed(word: str) -> str:
    """Without the endings of plurals and participles, where enough is left."""
    if not word.isascii() or not word.islower():
        return word
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) > 2 and not word.endswith(("ss", "us", "is")):  # noqa: PLR2004
            word = word.removesuffix(ending) + instead
            break
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) > 3:  # noqa: PLR2004
            return word.removesuffix(ending).removesuffix("e")
    return word.removesuffix("e") if len(word) > 4 else word  # noqa: PLR2004


def _slips() -> Mapping[str, str]:
    """Words of the grammar with a slip of the hand in them, where that makes but one of them and no word."""
    right = {*_GRAMMAR, *_ASKING, *_DEGREES}
    made: dict[str, set[str]] = {}
    for word in right:
        for slip in _slips_of(word) if len(word) > 2 else ():  # noqa: PLR2004
            made.setdefault(slip, set()).add(word)
    clear = {slip: min(words) for slip, words in made.items() if len(words) == 1}
    return MappingProxyType({slip: word for slip, word in clear.items() if slip not in _REAL | right})


def _slips_of(word: str) -> Iterator[str]:
    """Two letters in each other's place, the last one twice, or one left out of a long word."""
    for place in range(len(word) - 1):
        yield word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    yield word + word[-1]
    for place in range(1, len(word)) if len(word) > 4 else ():  # noqa: PLR2004
        yield word[:place] + word[place + 1 :]


_SLIPS = _slips()
_NAMELIKE = frozenset({*_GRAMMAR, *_ASKING, "it", "us", "may", "will", "or", "and", "can"})
