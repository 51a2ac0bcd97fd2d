"""What a DOCX says of its paragraphs beside their text: heading levels, and the marks of lists."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADING = re.compile(r"heading\s*(\d)", re.IGNORECASE)
_CONTENTS = re.compile(r"toc\s*(?:\d|heading)", re.IGNORECASE)
_NUMBER = re.compile(r"%(\d)")
_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l")),
    *((40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_MAX_LEVEL = 9
_MAX_BASES = 16


def value(element: etree._Element | None, path: str) -> str:
    """The value that an element below has, by its path of names; "" where there is none."""
    found = None if element is None else element.find("/".join(WORD + name for name in path.split("/")))
    return "" if found is None else str(found.get(f"{WORD}val", ""))


@dataclass(frozen=True, slots=True)
class Style:
    """A paragraph's style with what it inherits; `level` is a heading's or 0, `list_id` is "" outside of lists."""

    level: int = 0
    list_id: str = ""
    list_level: int = 0
    is_title: bool = False
    is_contents: bool = False


class Styles:
    """The paragraph styles of a document, by their ids."""

    def __init__(self, styles: etree._Element | None) -> None:
        found = styles.iterchildren(f"{WORD}style") if styles is not None else ()
        self._elements = {element.get(f"{WORD}styleId"): element for element in found}
        self._styles: dict[str, Style] = {}
        default = (id for id, element in self._elements.items() if element.get(f"{WORD}default") == "1")
        self._default = next((id for id in default if self._elements[id].get(f"{WORD}type") == "paragraph"), "")

    def of(self, properties: etree._Element | None) -> Style:
        """The style of a paragraph with these properties, its own before its style's."""
        id = value(properties, "pStyle") or self._default
        if id not in self._styles:
            self._styles[id] = _style(list(self._chain(id)))
        style = self._styles[id]
        own_list, outline = value(properties, "numPr/numId"), value(properties, "outlineLvl")
        level = int(outline) + 1 if outline.isdigit() else style.level
        list_level = value(properties, "numPr/ilvl")
        return Style(
            level if level <= _MAX_LEVEL else 0,
            own_list or style.list_id,
            int(list_level) if list_level.isdigit() else style.list_level,
            style.is_title,
            style.is_contents,
        )

    def _chain(self, id: str) -> Iterator[etree._Element]:
        """The style and those that it is based on."""
        for _ in range(_MAX_BASES):
            if id not in self._elements:
                return
            yield self._elements[id]
            id = value(self._elements[id], "basedOn")


def _style(chain: list[etree._Element]) -> Style:
    name = value(chain[0], "name") if chain else ""
    heading = _HEADING.match(name)
    outline = _first(chain, "pPr/outlineLvl")
    level = int(heading[1]) if heading else int(outline) + 1 if outline.isdigit() else 0
    list_level = _first(chain, "pPr/numPr/ilvl")
    return Style(
        level if level <= _MAX_LEVEL else 0,
        _first(chain, "pPr/numPr/numId"),
        int(list_level) if list_level.isdigit() else 0,
        name.lower() == "title",
        _CONTENTS.match(name) is not None,
    )


def _first(chain: list[etree._Element], path: str) -> str:
    return next((found for element in chain if (found := value(element, path))), "")


@dataclass(slots=True)
class _Level:
    """How a level of a list is marked; `format` is "bullet", "decimal" and so on."""

    format: str
    text: str
    start: int


@dataclass(slots=True)
class _List:
    """A list's levels, and the number that each level has come to."""

    levels: dict[int, _Level]
    counts: dict[int, int] = field(default_factory=dict)


class Lists:
    """The lists of a document; counts as the paragraphs go by, in the order of the document."""

    def __init__(self, numbering: etree._Element | None) -> None:
        found = list(numbering.iterchildren(f"{WORD}abstractNum")) if numbering is not None else []
        # Lists of one style have their levels in one of them; the others name the style.
        linked = {value(element, "styleLink") or None: element for element in found}
        self._kinds = {
            element.get(f"{WORD}abstractNumId"): _List(
                dict(_levels(linked.get(value(element, "numStyleLink"), element)))
            )
            for element in found
        }
        numbers = numbering.iterchildren(f"{WORD}num") if numbering is not None else ()
        self._numbers = {element.get(f"{WORD}numId"): element for element in numbers}
        self._begun: set[str] = set()

    def mark(self, style: Style) -> str:
        """The mark of the next paragraph of a list: "-" for a bullet, a number as Word shows it, "" for none."""
        number = self._numbers.get(style.list_id)
        kind = self._kinds.get(value(number, "abstractNumId"))
        level = kind.levels.get(style.list_level) if kind else None
        if kind is None or level is None or number is None:
            return ""
        if style.list_id not in self._begun:
            self._begun.add(style.list_id)
            self._restart(number, kind)
        kind.counts[style.list_level] = kind.counts.get(style.list_level, level.start - 1) + 1
        for deeper in [place for place in kind.counts if place > style.list_level]:
            del kind.counts[deeper]
        if level.format in ("bullet", "none"):
            return "-" if level.format == "bullet" else ""
        return _NUMBER.sub(lambda found: self._count(kind, int(found[1]) - 1), level.text).strip()

    def _restart(self, number: etree._Element, kind: _List) -> None:
        for override in number.iterchildren(f"{WORD}lvlOverride"):
            start = value(override, "startOverride")
            if start.isdigit():
                kind.counts[int(override.get(f"{WORD}ilvl", 0))] = int(start) - 1

    def _count(self, kind: _List, place: int) -> str:
        level = kind.levels.get(place)
        count = kind.counts.get(place, level.start if level else 1)
        return _numeral(count, level.format if level else "decimal")


def _levels(kind: etree._Element) -> Iterator[tuple[int, _Level]]:
    for element in kind.iterchildren(f"{WORD}lvl"):
        start = value(element, "start")
        level = _Level(value(element, "numFmt"), value(element, "lvlText"), int(start) if start.isdigit() else 1)
        yield int(element.get(f"{WORD}ilvl", 0)), level


def _numeral(count: int, format: str) -> str:
    if format.endswith("Letter") and count > 0:
        # After z comes aa, then bb.
        letters = chr(ord("a") + (count - 1) % 26) * ((count - 1) // 26 + 1)
    elif format.endswith("Roman") and 0 < count < 4000:  # noqa: PLR2004 - where Roman numerals end
        letters = _roman(count)
    else:
        return str(count)
    return letters.upper() if format.startswith("upper") else letters


def _roman(count: int) -> str:
    written = ""
    for size, numeral in _ROMAN:
        written += numeral * (count // size)
        count %= size
    return written
