"""The words of a text that carry meaning, as stems that their other forms share."""

import re
import unicodedata
from functools import lru_cache

# Scripts that put no space between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese, Korean.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]+|\d[\d.,]*\d|(?:(?![{_UNSPACED}])[^\W_])+")
# The same where no sign of these scripts is, three times as fast.
_PLAIN_WORD = re.compile(r"\d[\d.,]*\d|[^\W_]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_STOPPED = frozenset(
    """
a about according after all also although am an and any are as at be because been before being between both but by can
could did do does doing during each either else for from get gets given gives got had has have having he her here hers
him his how however i if in including into is it its itself just let like made make makes many may me might more most
much must my no nor not of off on once one only or other our out over own per s same say says she should since so some
such t than that the their them then there therefore these they this those through thus to too under until up upon us
use used uses using very via was we well were what when where whether which while who whom whose why will with within
without would yes you your
""".split()  # noqa: SIM905 - so it can be read
)
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), start=2)  # noqa: SIM905
}
_ROOT_CHARS = 5
_LONG = 4
_KNOWN_WORDS = 16_384


def folded(text: str) -> str:
    """The text without differences of case, width and spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def terms(text: str) -> list[str]:
    """The words of a folded text, stemmed; of scripts without spaces the pairs of signs, numbers without commas."""
    if text.isascii() or not _IS_UNSPACED.search(text):
        return [_stem(word) for word in _PLAIN_WORD.findall(text) if word not in _STOPPED]
    found: list[str] = []
    for word in _WORD.findall(text):
        if word not in _STOPPED:
            found += _pairs(word) if _IS_UNSPACED.match(word) else (_stem(word),)
    return found


def root(term: str) -> str:
    """What a term begins with: `popul` of population and populous."""
    return term[:_ROOT_CHARS]


def joins(text: str, at: int) -> bool:
    """Whether the place lies within a word of Latin letters, where no quotation begins or ends."""
    return 0 < at < len(text) and all(
        sign.isascii() and (sign.isalnum() or sign == "_") for sign in text[at - 1 : at + 1]
    )


def _pairs(word: str) -> list[str]:
    return [word[at : at + 2] for at in range(max(len(word) - 1, 1))]


# The same few thousand words make up most of what is asked and found.
@lru_cache(_KNOWN_WORDS)
def _stem(word: str) -> str:
    """Harman's S stemmer, then endings where enough of the word is left."""
    if word[0].isdigit():
        return word.replace(",", "")
    if word in _NUMBER_WORDS:
        return _NUMBER_WORDS[word]
    if word.endswith("ies") and len(word) > _LONG:
        word = word[:-3] + "y"
    elif word.endswith("s") and len(word) >= _LONG and word[-2] not in "sui":
        word = word[:-1]
    for ending in ("ing", "ed", "ly"):
        if word.endswith(ending) and len(word) >= _LONG + len(ending):
            word = word[: -len(ending)]
            break
    if word.endswith("e") and len(word) > _LONG:
        word = word[:-1]
    return word
