"""How well ingest_svc's parsers read the shared loader files: `python -m bench.loaders [FOLDER]`.

Each file of the manifest goes through a real parser process with the default limits of the service. Printed of each:
the outcome wanted and the one that came, the likeness to the expected text where it has one, the milliseconds of a
process that is warm, and the most memory that the process held; then the mean likeness, and the same by category.

Likeness is bench.text_similarity's: characters in common, in order, where neither spaces nor marks of Markdown count.
Texts are otherwise compared as they are: what a reference has and the parser leaves out, or the reverse, is lost.
Where the manifest names strings that a file `contains`, it is as wanted only if its text has them all. A file that is
refused as its manifest wants, such as a scan where there is no OCR, has no likeness; one refused otherwise has 0.
"""

import asyncio
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.harness import OUTPUT_FOLDER, Row, commit, document, machine, rounds, watching
from bench.text_similarity import contains, similarity, text_of_html
from ingest_svc.parser_processes import ParserLimits, ParserProcesses, open_parser_processes
from ingest_svc.settings import Settings
from meshkit.errors import MeshError

TEXT = "TEXT"
"""The outcome of a file whose text was read; the others are reasons of errors."""
_FOLDER = Path("../shared/data/loaders")
_REFUSED = {"UNSUPPORTED_FORMAT", "UNREADABLE_DOCUMENT", "NO_TEXT", "PARSER_LIMIT"}
_OCR = {TEXT} if shutil.which("tesseract") else set[str]()
_WANTED = {
    "text": {TEXT},
    "no_text_layer": {"NO_TEXT"} | _OCR,
    "needs_password": {"PASSWORD_REQUIRED"},
    "reject": _REFUSED,
    "reject_or_empty": _REFUSED,
    "text_or_reject": {TEXT} | _REFUSED,
    "reject_or_sniff": {TEXT} | _REFUSED,
    "bounded": {TEXT, "PARSER_LIMIT"},
    "no_external_fetch": {TEXT} | _REFUSED,
    "unsupported_or_text": {TEXT, "UNSUPPORTED_FORMAT"},
}


@dataclass(frozen=True, slots=True)
class Case:
    """A file of the manifest; `expected` is its text, or "" where none is given."""

    category: str
    file: Path
    wanted: str
    expected: str
    contains: tuple[str, ...]
    password: str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a file; `likeness` is -1 without an expected text, `peak_mb` 0 if the limits ended the process."""

    category: str
    file: str
    wanted: str
    got: str
    as_wanted: bool
    likeness: float
    ms: float
    peak_mb: float


def cases(folder: Path) -> Iterator[Case]:
    """The files of the folder's manifest.jsonl; none where there is no such folder."""
    manifest = folder / "manifest.jsonl"
    for line in manifest.read_text().splitlines() if manifest.is_file() else ():
        entry = json.loads(line)
        yield Case(
            entry["category"],
            folder / entry["file"],
            entry["outcome"],
            _expected(folder / entry["expected"]) if "expected" in entry else "",
            tuple(entry.get("contains", ())),
            entry.get("password", ""),
        )


def _expected(file: Path) -> str:
    text = file.read_text()
    return text_of_html(text) if file.suffix == ".html" else text


async def answer(parser: ParserProcesses, case: Case) -> tuple[str, str, bool]:
    """The outcome of a file, its text, and whether both are as wanted.

    A file that needs a password is read without it and, once that is refused, with it: the outcome is the refusal, the
    text what came then.
    """
    got, text = await _read(parser, case, "")
    as_wanted = got in _WANTED[case.wanted]
    if got == "PASSWORD_REQUIRED" and case.password:
        opened, text = await _read(parser, case, case.password)
        as_wanted = as_wanted and opened == TEXT
    whole = not text or all(contains(text, part) for part in case.contains)
    return got, text, as_wanted and whole


def likeness(case: Case, text: str, *, as_wanted: bool) -> float:
    """How like the text is to the expected one; -1 where none is expected, or its lack is as wanted."""
    return similarity(text, case.expected) if case.expected and (text or not as_wanted) else -1.0


async def score(parser: ParserProcesses, case: Case) -> Result:
    """Read a file once, for the import of its library, and then some rounds; the time is the shortest of these."""
    got, text, as_wanted = await answer(parser, case)
    times = []
    with watching({str(child.pid): child.pid for child in psutil.Process().children()}) as usage:
        for _ in range(rounds(3)):
            start = time.perf_counter()
            await answer(parser, case)
            times.append(time.perf_counter() - start)
    like, peak_mb = likeness(case, text, as_wanted=as_wanted), sum(used.peak_mb for used in usage.values())
    return Result(case.category, case.file.name, case.wanted, got, as_wanted, like, min(times) * 1000, peak_mb)


async def _read(parser: ParserProcesses, case: Case, password: str) -> tuple[str, str]:
    """The outcome, and the text where there is one."""
    try:
        return TEXT, (await parser.parse(case.file, case.file.name, password)).text
    except MeshError as error:
        return error.reason, ""


def default_limits() -> ParserLimits:
    """The limits of a service whose settings are left as they are."""
    fields = Settings.model_fields
    names = ("parser_timeout_s", "parser_max_memory_bytes", "max_text_bytes")
    return ParserLimits(*(fields[name].default for name in names))


async def main(folder: Path) -> None:
    """Measure, print, and write build/bench/loaders.json, with DOCS=1 the document too."""
    results = [await _printed(case) for case in cases(folder)]
    known = [result.likeness for result in results if result.likeness >= 0]
    right = sum(result.as_wanted for result in results)
    print(f"\nmean likeness of {len(known)} texts: {statistics.mean(known):.4f}; {right} of {len(results)} as wanted")
    rows = list(_rows(results))
    document("loaders", rows)
    OUTPUT_FOLDER.mkdir(parents=True, exist_ok=True)
    written = {"machine": machine(), "commit": commit(), "rows": [asdict(row) for row in rows]}
    files = [asdict(result) for result in results]
    (OUTPUT_FOLDER / "loaders.json").write_text(json.dumps(written | {"files": files}, indent=2) + "\n")


async def _printed(case: Case) -> Result:
    # A process of its own: what the last file took would be counted again.
    async with open_parser_processes(1, default_limits()) as parser:
        result = await score(parser, case)
    likeness = f"{result.likeness:.4f}" if result.likeness >= 0 else ""
    mark = " " if result.as_wanted else "!"
    name = f"{result.category}/{result.file}"[:60]
    figures = f"{likeness:>7}{result.ms:9.1f} ms{result.peak_mb:7.0f} MB"
    print(f"{mark} {name:<61}{result.wanted:<20}{result.got:<20}{figures}", flush=True)
    return result


def _rows(results: Sequence[Result]) -> Iterator[Row]:
    """A row a figure and a category."""
    categories = [*dict.fromkeys(result.category for result in results), "all"]
    found = {name: [result for result in results if name in (result.category, "all")] for name in categories}
    for figure, (unit, value) in _FIGURES.items():
        for category, members in found.items():
            measured = value(members)
            if measured is not None:
                yield Row(category, figure, measured, unit, 1)


def _mean_likeness(results: Sequence[Result]) -> float | None:
    known = [result.likeness for result in results if result.likeness >= 0]
    return 100 * statistics.mean(known) if known else None


_FIGURES: dict[str, tuple[str, Callable[[Sequence[Result]], float | None]]] = {
    "files": ("files", len),
    "as wanted": ("files", lambda results: sum(result.as_wanted for result in results)),
    "mean likeness, %": ("%", _mean_likeness),
    "slowest, ms": ("ms", lambda results: max(result.ms for result in results)),
    "peak memory, MB": ("MB", lambda results: max(result.peak_mb for result in results)),
}


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else _FOLDER))
