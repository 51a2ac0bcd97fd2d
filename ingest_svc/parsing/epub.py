"""EPUB: its pages in reading order, each read as HTML."""

import posixpath
import zipfile
from importlib.metadata import version
from io import BytesIO
from urllib.parse import unquote

from lxml import etree

from ingest_svc.extract import Extract, Source, Writer
from ingest_svc.parsing import html
from ingest_svc.parsing.detection import EPUB
from ingest_svc.parsing.package import xml

_CONTAINER = "META-INF/container.xml"
_PAGES = ("application/xhtml+xml", "text/html")


def parse(source: Source) -> Extract:
    """The book in the order of its spine; title, authors and language as metadata; pages that lack are warned of."""
    writer, warnings = Writer(), []
    with zipfile.ZipFile(BytesIO(source.data)) as book:
        names = {name.lower(): name for name in book.namelist()}
        package_path = xml(book.read(_CONTAINER)).xpath("string(//*[local-name()='rootfile']/@full-path)")
        package = xml(book.read(package_path))
        for page in _spine(package):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(package_path), unquote(page)))
            if path.lower() in names:
                writer.extend(html.parse(Source(book.read(names[path.lower()]), path)))
            else:
                warnings.append(f"no page {path}")
    fields = {"author": _all(package, "creator"), "language": _all(package, "language")}
    return writer.extract(
        EPUB,
        f"lxml {version('lxml')}, selectolax {version('selectolax')}",
        title=next(iter(_all(package, "title")), ""),
        metadata={name: ", ".join(values) for name, values in fields.items() if values},
        warnings=warnings,
    )


def _spine(package: etree._Element) -> list[str]:
    """The paths of the pages, relative to the package's, without the table of contents."""
    items = {item.get("id"): item for item in package.xpath("//*[local-name()='manifest']/*[local-name()='item']")}
    order = package.xpath("//*[local-name()='spine']/*[local-name()='itemref']/@idref")
    pages = [items[name] for name in order if name in items and items[name].get("media-type") in _PAGES]
    return [page.get("href", "") for page in pages if "nav" not in page.get("properties", "").split()]


def _all(package: etree._Element, name: str) -> list[str]:
    """The texts of the metadata's elements of a name."""
    found = package.xpath(f"//*[local-name()='metadata']/*[local-name()='{name}']")
    return [words for element in found if (words := " ".join("".join(element.itertext()).split()))]
