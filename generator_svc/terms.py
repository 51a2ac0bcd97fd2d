"""The words of a text that carry meaning, as stems that its other forms share."""

import re
import unicodedata

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]+|(?:(?![{_CJK}])[^\W_])+(?:['’][^\W_]+)?")
_IS_CJK = re.compile(rf"[{_CJK}]")

_STOP_WORDS = """
a about after all also am an and any are as at be because been before being between both but by can could did do does
doing during each for from had has have having he her here him his how i if in into is it its itself just kind many me
more most much must my name no nor not of off on once one only or other our out over own s same she should so some such
t than that the their them then there these they this those through to too type under until up upon very was we were
what when where which while who whom whose why will with would you your
的 了 是 在 和 与 或 及 有 什 么 什么 哪 哪些 哪里 哪个 谁 吗 呢 多 少 多少 几
怎 怎么 怎样 如何 为何 为什 个 这 那 被 于 以 为 从
"""
_STOPPED = frozenset(_STOP_WORDS.split())

# A light stem: the possessive, then Harman's S stemmer, then endings where enough of the word is left.
_ENDINGS = (
    (re.compile(r"['’]s$"), ""),
    (re.compile(r"(?<=\w\w)ies$"), "y"),
    (re.compile(r"(?<=\w\w[^sui])s$"), ""),
    (re.compile(r"(?<=\w{4})(?:ing|ed|ly)$"), ""),
    (re.compile(r"(?<=\w{4})e$"), ""),
)
_ROOT_CHARS = 5


def terms(text: str) -> list[str]:
    """The words that carry meaning, as stems; of Chinese, Japanese and Korean the signs and their pairs."""
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _IS_CJK.match(word):
            found += [*word, *(word[at : at + 2] for at in range(len(word) - 1))]
        else:
            found.append(word)
    return [_stem(word) for word in found if word not in _STOPPED]


def root(term: str) -> str:
    """What a term begins with: `popul` of population and populous."""
    return term[:_ROOT_CHARS]


def is_dense(text: str) -> bool:
    """Whether it is written, at least in part, without spaces: Chinese, Japanese or Korean."""
    return bool(_IS_CJK.search(text))


def _stem(word: str) -> str:
    for ending, rest in _ENDINGS:
        word = ending.sub(rest, word)
    return word
