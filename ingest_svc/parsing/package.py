"""Office's packages: their parts, and what programs write there for want of a person's words."""

import posixpath
import re
import zipfile
from collections.abc import Collection
from io import BytesIO

from docx.opc.part import Part
from lxml import etree

# The strict form of a format differs from the common one in its namespaces only: the year has its place elsewhere.
_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(officeDocument|wordprocessingml|presentationml|drawingml)/")
_COMMON = rb"http://schemas.openxmlformats.org/\1/2006/"
# Templates, slide shows and documents with macros differ from others in their main part's type only.
_TYPES = "[Content_Types].xml"
_VARIANT = re.compile(
    rb"application/vnd\.(?:ms-word|openxmlformats-officedocument\.wordprocessingml)"
    rb"\.(?:template|document\.macroEnabled|template\.macroEnabledTemplate)\.main\+xml"
    rb"|(application/vnd\.(?:ms-powerpoint|openxmlformats-officedocument\.presentationml)"
    rb"\.(?:template|slideshow)(?:\.macroEnabled)?\.main\+xml)"
)
_MAIN = b"application/vnd.openxmlformats-officedocument.%s.main+xml"
_DOCUMENT, _PRESENTATION = _MAIN % b"wordprocessingml.document", _MAIN % b"presentationml.presentation"
# What programs write there for want of a title.
_NO_TITLE = re.compile(
    r"(?:untitled|(?:word )?(?:document|dokument|presentation|pr.sentation|book|mappe)\s?\d*|slide \d+|幻灯片\s?\d+"
    r"|power\s?point[ -]pr.sentation|microsoft \w+ - .*|.*\.(?:docx?|pptx?|xlsx?|rtf))",
    re.IGNORECASE,
)
# What stands there for want of a description: a file's or a picture's own name, or a guess.
_NO_DESCRIPTION = re.compile(
    r"[\w.-]*|(?:picture|image|bild|图片)\s?\d+|.*automatically generated\.?", re.ASCII | re.IGNORECASE
)


def common(data: bytes) -> bytes:
    """An Office package as the libraries take it.

    That is in the common form of its format, with a plain document as its main part, and without references to parts
    that it has not, which some programs leave behind.
    """
    with zipfile.ZipFile(BytesIO(data)) as package:
        names = dict.fromkeys(package.namelist())
        strict = _STRICT.search(package.read("_rels/.rels")) is not None
        types = package.read(_TYPES)
        changed = {name: _without_dangling(package, name, names) for name in names if name.endswith(".rels")}
        changed[_TYPES] = _VARIANT.sub(lambda found: _PRESENTATION if found[1] else _DOCUMENT, types)
        changed = {name: content for name, content in changed.items() if content != package.read(name)}
        if not strict and not changed:
            return data
        written = BytesIO()
        with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as rewritten:
            for name in names:
                content = changed.get(name) or package.read(name)
                rewritten.writestr(name, _STRICT.sub(_COMMON, content) if strict else content)
        return written.getvalue()


def _without_dangling(package: zipfile.ZipFile, name: str, names: Collection[str]) -> bytes:
    """The relationships of a part, as they are or without those to parts that are not there."""
    content = package.read(name)
    relationships = xml(content)
    folder = posixpath.dirname(posixpath.dirname(name))
    dangling = [
        link
        for link in relationships.iterchildren("{*}*")
        if link.get("TargetMode") != "External"
        and posixpath.normpath(posixpath.join("/", folder, link.get("Target", ""))).lstrip("/") not in names
    ]
    for link in dangling:
        relationships.remove(link)
    return etree.tostring(relationships) if dangling else content


def xml(part: bytes) -> etree._Element:
    """The root of a part's XML; entities stay unresolved, nothing is fetched. Raises XMLSyntaxError."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    return etree.fromstring(part, parser)


def related(part: Part, kind: str) -> list[Part]:
    """The parts of an Office package that a part refers to as of that kind, such as "styles"."""
    links = (link for link in part.rels.values() if link.reltype.endswith(f"/{kind}") and not link.is_external)
    return [link.target_part for link in links]


def title(given: str | None) -> str:
    """A title of a document's properties, or "" where it is none that a person gave."""
    words = (given or "").strip()
    return "" if _NO_TITLE.fullmatch(words) else words


def description(given: str | None) -> str:
    """What a picture shows, as a person has described it, or ""."""
    words = " ".join((given or "").split())
    return "" if _NO_DESCRIPTION.fullmatch(words) else words
