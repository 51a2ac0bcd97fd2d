"""Equations of Office documents (OMML) as LaTeX; signs that Unicode has stay as they are."""

import re
from collections.abc import Callable, Mapping
from functools import reduce

from lxml import etree

MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
# ECMA-376, 22.1.2.70: an operator that names no sign is an integral.
_OPERATORS = {
    "∑": r"\sum",
    "∏": r"\prod",
    "∐": r"\coprod",
    "∫": r"\int",
    "∬": r"\iint",
    "∭": r"\iiint",
    "∮": r"\oint",
    "∯": r"\oiint",
    "∰": r"\oiiint",
    "\u22c3": r"\bigcup",
    "⋂": r"\bigcap",
    "\u22c1": r"\bigvee",
    "⋀": r"\bigwedge",
}
_FUNCTION = re.compile(
    r"(?:cos|sin|tan|cot)h?|arc(?:cos|sin|tan)|arg|csc|deg|det|dim|exp|gcd|hom|inf|ker|lg|lim(?:inf|sup)?|ln|log|max"
    r"|min|sec|sup"
)
_COMMAND_END = re.compile(r"\\[a-z]+$")
_ACCENTS = {
    "\u0301": r"\acute",
    "\u0300": r"\grave",
    "\u0302": r"\hat",
    "\u0303": r"\tilde",
    "\u0304": r"\bar",
    "\u0305": r"\overline",
    "\u0306": r"\breve",
    "\u0307": r"\dot",
    "\u0308": r"\ddot",
    "\u030c": r"\check",
    "\u20d7": r"\vec",
}


def latex(element: etree._Element) -> str:
    """The LaTeX of an equation, or of a part of one; a part that has no counterpart is its contents."""
    write = _WRITERS.get(element.tag.removeprefix(MATH))
    return write(element) if write else reduce(_joined, map(latex, element.iterchildren("{*}*")), "")


def _part(element: etree._Element, name: str) -> str:
    found = element.find(MATH + name)
    return "" if found is None else latex(found)


def _set(element: etree._Element, name: str, default: str) -> str:
    """The value of a property; one that is there without a value is empty."""
    found = element.find(f"{MATH}{element.tag.removeprefix(MATH)}Pr/{MATH}{name}")
    return default if found is None else found.get(f"{MATH}val", "")


def _scripts(element: etree._Element, base: str) -> str:
    below, above = _part(element, "sub"), _part(element, "sup")
    return base + (f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "")


def _fraction(element: etree._Element) -> str:
    over, under = _part(element, "num"), _part(element, "den")
    kind = _set(element, "type", "bar")
    if kind == "lin":
        return f"{over}/{under}"
    return f"{{{over} \\atop {under}}}" if kind == "noBar" else f"\\frac{{{over}}}{{{under}}}"


def _root(element: etree._Element) -> str:
    degree = _part(element, "deg")
    return rf"\sqrt{f'[{degree}]' if degree else ''}{{{_part(element, 'e')}}}"


def _operator(element: etree._Element) -> str:
    sign = _set(element, "chr", "∫")
    return _joined(_scripts(element, _OPERATORS.get(sign, sign)), _part(element, "e"))


def _delimited(element: etree._Element) -> str:
    begin, end = _set(element, "begChr", "("), _set(element, "endChr", ")")
    inner = _set(element, "sepChr", "|").join(map(latex, element.iterchildren(f"{MATH}e")))
    return rf"\left{_delimiter(begin)}{inner}\right{_delimiter(end)}"


def _delimiter(sign: str) -> str:
    return f"\\{sign}" if sign in ("{", "}") else sign or "."


def _named(element: etree._Element, name: str) -> str:
    """A part's words, as a function's where LaTeX knows it."""
    words = _part(element, name)
    return f"\\{words}" if _FUNCTION.fullmatch(words) else words


def _joined(before: str, after: str) -> str:
    """Both, with a space where a letter would become part of a command's name."""
    return f"{before} {after}" if _COMMAND_END.search(before) and after[:1].isalpha() else before + after


def _braced(element: etree._Element) -> str:
    name = "overbrace" if _set(element, "pos", "bot") == "top" else "underbrace"
    return f"\\{name}{{{_part(element, 'e')}}}"


def _accented(element: etree._Element) -> str:
    accent = _ACCENTS.get(_set(element, "chr", "\u0302"), "")
    return f"{accent}{{{_part(element, 'e')}}}" if accent else _part(element, "e")


def _lined(element: etree._Element) -> str:
    return f"\\{'overline' if _set(element, 'pos', 'bot') == 'top' else 'underline'}{{{_part(element, 'e')}}}"


def _matrix(element: etree._Element) -> str:
    rows = (" & ".join(map(latex, row.iterchildren(f"{MATH}e"))) for row in element.iterchildren(f"{MATH}mr"))
    return r"\begin{matrix}" + r" \\ ".join(rows) + r"\end{matrix}"


_WRITERS: Mapping[str, Callable[[etree._Element], str]] = {
    "t": lambda element: element.text or "",
    "sSup": lambda element: _scripts(element, _part(element, "e")),
    "sSub": lambda element: _scripts(element, _part(element, "e")),
    "sSubSup": lambda element: _scripts(element, _part(element, "e")),
    "sPre": lambda element: _scripts(element, "{}") + _part(element, "e"),
    "f": _fraction,
    "rad": _root,
    "nary": _operator,
    "d": _delimited,
    "func": lambda element: _joined(_named(element, "fName"), _part(element, "e")),
    "limLow": lambda element: f"{_named(element, 'e')}_{{{_part(element, 'lim')}}}",
    "limUpp": lambda element: f"{_named(element, 'e')}^{{{_part(element, 'lim')}}}",
    "groupChr": _braced,
    "acc": _accented,
    "bar": _lined,
    "m": _matrix,
    "eqArr": lambda element: r" \\ ".join(map(latex, element.iterchildren(f"{MATH}e"))),
}
