"""Files read with one library: `python parse_files.py LIBRARY`, a path a line on stdin.

Prints a JSON object a line for each: its text and the milliseconds of the CPU that a second reading took, the first one
having done the imports; or, where the library does not read it, why. It runs where that library is installed; each is
used as its documentation has it.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

Read = Callable[[str], str]


def _ragmesh() -> Read:
    from ingest_svc.extract import Source
    from ingest_svc.parsing.reading import read

    return lambda path: read(Source(Path(path).read_bytes(), path), 2**30).text


def _docling() -> Read:
    from docling.document_converter import DocumentConverter

    converter = DocumentConverter()
    return lambda path: converter.convert(path).document.export_to_markdown()


def _markitdown() -> Read:
    from markitdown import MarkItDown

    converter = MarkItDown()
    return lambda path: converter.convert(path).text_content


def _pypdf() -> Read:
    from pypdf import PdfReader

    return lambda path: "\n".join(page.extract_text() for page in PdfReader(path).pages)


def _pdfplumber() -> Read:
    import pdfplumber

    def read(path: str) -> str:
        with pdfplumber.open(path) as document:
            return "\n".join(page.extract_text() for page in document.pages)

    return read


def _pdfminer() -> Read:
    from pdfminer.high_level import extract_text

    return lambda path: str(extract_text(path))


def _pymupdf4llm() -> Read:
    import pymupdf4llm

    return lambda path: str(pymupdf4llm.to_markdown(path))


def _python_docx() -> Read:
    import docx

    return lambda path: "\n".join(paragraph.text for paragraph in docx.Document(path).paragraphs)


def _unstructured() -> Read:
    from unstructured.partition.auto import partition

    return lambda path: "\n\n".join(str(element) for element in partition(path))


def _trafilatura() -> Read:
    import trafilatura

    def read(path: str) -> str:
        page = Path(path).read_bytes()
        return trafilatura.extract(page, output_format="markdown", include_tables=True, favor_recall=True) or ""

    return read


def _html2text() -> Read:
    import html2text

    return lambda path: html2text.html2text(Path(path).read_text())


LIBRARIES = {
    "ragmesh": _ragmesh,
    "docling": _docling,
    "markitdown": _markitdown,
    "pypdf": _pypdf,
    "pdfplumber": _pdfplumber,
    "pdfminer.six": _pdfminer,
    "pymupdf4llm": _pymupdf4llm,
    "python-docx": _python_docx,
    "unstructured": _unstructured,
    "trafilatura": _trafilatura,
    "html2text": _html2text,
}


def main(library: str) -> None:
    """Read each file twice and print what came of it."""
    # Libraries print on stdout what they have to say.
    answers, sys.stdout = sys.stdout, sys.stderr
    warnings.simplefilter("ignore")
    read = LIBRARIES[library]()
    for line in sys.stdin:
        path = line.strip()
        try:
            read(path)
            start = time.process_time()
            found = {"text": read(path), "ms": (time.process_time() - start) * 1000}
        except Exception as error:  # noqa: BLE001 - whatever it is, the library did not read the file
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
