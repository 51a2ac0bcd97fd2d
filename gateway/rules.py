"""What the words of a question tell by plain rules: greetings, arithmetic, follow-ups, compound questions."""

import re
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+")


def words(text: str) -> list[str]:
    """The words of a text in small letters; Chinese ones sign by sign."""
    return _WORD.findall(text.casefold())


_HELLO = {
    "Hello! What would you like to know from your documents?": """
        hi, hello, hey, hi there, hello there, hey there, good morning, good afternoon, good evening, how are you,
        hello how are you, hi how are you""",
    "Hallo! Was möchten Sie aus Ihren Dokumenten wissen?": """
        hallo, guten tag, guten morgen, guten abend, grüß gott, servus, moin""",
    "Bonjour ! Que souhaitez-vous savoir de vos documents ?": "bonjour, bonsoir, salut, coucou",
    "¡Hola! ¿Qué desea saber de sus documentos?": "hola, buenos días, buenos dias, buenas tardes, buenas noches",
    "Ciao! Che cosa vuole sapere dai suoi documenti?": "ciao, buongiorno, buonasera, salve",
    "Olá! O que deseja saber dos seus documentos?": "olá, ola, oi, bom dia, boa tarde, boa noite",
    "你好!想从您的文档中了解什么?": "你好, 您好, 你们好, 嗨, 早上好, 上午好, 下午好, 晚上好, 哈喽",
    "こんにちは。文書について何を知りたいですか。": "こんにちは, こんばんは, おはよう, おはようございます",
}
_THANKS = {
    "You are welcome.": """
        thanks, thank you, thanks a lot, many thanks, thank you very much, thank you so much, thx, ok thanks,
        okay thanks, ok thank you, great thanks, cheers, bye, goodbye""",
    "Gern geschehen.": "danke, vielen dank, danke schön, danke sehr, besten dank, tschüss, auf wiedersehen",
    "Je vous en prie.": "merci, merci beaucoup, au revoir",
    "De nada.": "gracias, muchas gracias, adiós, adios, obrigado, obrigada, muito obrigado, muito obrigada",
    "Prego.": "grazie, grazie mille, arrivederci",
    "不客气。": "谢谢, 谢谢你, 谢谢您, 多谢, 感谢, 非常感谢, 再见",
    "どういたしまして。": "ありがとう, ありがとうございます",
}

# What an expression may be asked with, before and after.
_ASKED = re.compile(
    r"(?:please\s+)?(?:what\s+is|what's|whats|calculate|compute|evaluate|how\s+much\s+is|solve|was\s+ist|wie\s*viel\s+ist"
    r"|berechne|combien\s+font|calcule|cuánto\s+es|quanto\s+fa|quanto\s+é|请?计算(?:一下)?|请问|算一下)?[\s:\uff1a]*"
    r"(?P<expression>.*?)\s*(?:等于(?:多少|几)|是多少|得多少|=)?[\s=?\uff1f.。!\uff01]*",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_ATOM = rf"[-+(\s]*(?:{_NUMBER})[)\s]*"
_EXPRESSION = re.compile(rf"{_ATOM}(?:(?:\*\*|[-+*/^%×÷−])\s*{_ATOM})+")
_PERCENTAGE = re.compile(rf"({_NUMBER})\s*(?:%|percent|prozent)\s*(?:of|von)\s*({_NUMBER})", re.IGNORECASE)
# Dates, scores, ranges and numbers of telephones have these without spaces, and no other sign.
_AMBIGUOUS = re.compile(r"[\d/.-]+|[\d−-]+")
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "^": "**", ",": ""})
_MOST_EXPRESSION_CHARS = 200

_LEADS = re.compile(
    r"(?:and|but|so|also|or|then|what about|how about|what else|anything else|und|aber|was ist mit|et|mais|y|pero|e|mas"
    r"|ma)\b|那|还有|另外|那么",
    re.IGNORECASE,
)
_ENDS = re.compile(r"呢[?\uff1f\s]*$")
_PREPOSITIONS = frozenset(words("in for with from at on to of by during without after before"))
_PRONOUNS = frozenset(
    words(
        "it its they them their theirs he him his she her hers this that these those itself themselves former latter "
        "one 它 他 她 这 那 其"
    )
)
# An "it" that stands for nothing.
_EXPLETIVE = re.compile(
    r"\b(?:is|was|does|will|would)\s+it\s+(?:true|possible|allowed|ok|okay|legal|necessary|required|mandatory|take|cost"
    r"|mean|matter)\b",
    re.IGNORECASE,
)
_STOP = _PRONOUNS | frozenset(
    words(
        "a an the what which who whom whose when where why how long much many often far old big is are was were be "
        "been am do does did done has have had can could may might must shall should will would i you we me us my "
        "your our of in on at to for from with by about as into over under up down out off and or but if so then "
        "than also too "
        "not no yes there here please tell explain describe else more other any some all each every same again still "
        "just really 的了吗呢是在有和什么怎多少几哪谁我你您们请问吧啊与及"
    )
)

_COMPOUND = re.compile(
    r"\b(?:compare|compared|comparison|differences?\s+between|differ|versus|vs|respectively|both)\b"
    r"|\b(?:and|or)\s+(?:also\s+)?(?:who|what|when|where|why|how|which|whose)\b"
    r"|(?:和|与|以及).{0,100}(?:区别|差别|不同|比较)|比较|分别",
    re.IGNORECASE,
)
# Behind the last mark of a row: to look for the text before it would begin anew at each letter of one without a mark.
_PART_ENDS = re.compile(r"(?<=[?\uff1f])(?![?\uff1f])")
_FEW_WORDS = 2
_SHORT_WORDS = 4
_STEM_CHARS = 6


def courtesy(text: str) -> str:
    """What to answer, in its language, to a text that greets or thanks and does nothing else; "" for others."""
    return _COURTESIES.get(_phrase(text), "") if len(text) < _MOST_EXPRESSION_CHARS else ""


def arithmetic(text: str) -> str:
    """The expression that a text asks for and nothing else, in Python's signs; "" for others.

    Dates, ranges and the like are none: `24/7`, `2026-11-21`, `555-1234`.
    """
    asked = _ASKED.fullmatch(" ".join(text.split())) if len(text) < _MOST_EXPRESSION_CHARS else None
    expression = asked["expression"].strip() if asked else ""
    if share := _PERCENTAGE.fullmatch(expression):
        return "{} / 100 * {}".format(*(number.replace(",", "") for number in share.groups()))
    if not _EXPRESSION.fullmatch(expression) or _AMBIGUOUS.fullmatch(expression):
        return ""
    return " ".join(expression.translate(_SIGNS).split())


def follows_up(text: str) -> bool:
    """Whether a question seems to say part of what it means by the one before it.

    It begins with "and", "what about" and the like (six languages and Chinese), says nothing but question words, or
    has a pronoun that stands for nothing in it (English and Chinese).
    """
    if _LEADS.match(text.lstrip(" ,.¿")) or _ENDS.search(text):
        return True
    said = words(text)
    telling = _telling(said)
    if not telling:
        return True
    if said[0] in _PREPOSITIONS and len(said) <= _SHORT_WORDS:
        return True
    if _EXPLETIVE.search(text):
        return False
    place = next((place for place, word in enumerate(said) if word in _PRONOUNS), None)
    return place is not None and (len(telling) <= _FEW_WORDS or not _telling(said[:place]))


def compound(text: str) -> bool:
    """Whether a text seems to ask for several things."""
    return len(parts(text)) > 1 or bool(_COMPOUND.search(text))


def parts(text: str) -> tuple[str, ...]:
    """The questions of a text that has several, each with its mark; one that says little by itself is none."""
    *found, _without_mark = _PART_ENDS.split(text)
    return tuple(part.strip() for part in found if _telling(words(part)))


def joined(before: str, text: str) -> str:
    """A follow-up with the words of the question before it, as a query."""
    return before.rstrip(" ?\uff1f") + " " + text


def coverage(question: str, texts: Iterable[str]) -> float:
    """The share of the question's telling words whose stems occur in the texts, 1 for a question without any."""
    telling = {word[:_STEM_CHARS] for word in _telling(words(question))}
    text = " ".join(texts).casefold()
    return sum(word in text for word in telling) / len(telling) if telling else 1.0


def _telling(said: Sequence[str]) -> list[str]:
    return [word for word in said if word not in _STOP]


def _phrase(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


_COURTESIES = {
    _phrase(phrase): reply
    for table in (_HELLO, _THANKS)
    for reply, phrases in table.items()
    for phrase in phrases.split(",")
}
