"""What other libraries read of the shared loader files that have an expected text: `python -m bench.parsers [FOLDER]`.

Each library reads the files of its formats in a process of its own, where it alone is installed. Printed by library and
format: the mean likeness of its text to the expected one (bench.text_similarity), and the milliseconds of the CPU
that a file takes once everything is loaded; of each library its licence and what it installs. Scans are left out:
reading them is tesseract's work, whoever calls it. DOCS=1 writes the table to docs/loaders.md.
"""

import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distribution
from pathlib import Path

from bench.harness import OUTPUT_FOLDER, commit, machine
from bench.loaders import Case, cases
from bench.text_similarity import similarity

_FOLDER = Path("../shared/data/loaders")
_DOCUMENT = Path("docs/loaders.md")
_INSTALLED = Path("build/parsers")
"""Where `make bench-parsers` puts each library by itself."""
_SCRIPT = "bench/peers/parse_files.py"
_TIMEOUT_S = 600
_BEGIN, _END = "<!-- bench:parsers -->", "<!-- /bench:parsers -->"
_FORMATS = ("pdf", "docx", "pptx", "xlsx", "csv", "html", "md")
# What our parsers need, as pyproject.toml names them.
_OURS = (
    *("pypdfium2", "python-docx", "python-pptx", "python-calamine", "msoffcrypto-tool", "striprtf", "chardet"),
    *("markdown-it-py", "selectolax", "tree-sitter", "tree-sitter-language-pack", "pyyaml"),
)


@dataclass(frozen=True, slots=True)
class Library:
    """A library, its licence, and the formats that it is said to read."""

    name: str
    licence: str
    formats: tuple[str, ...]


LIBRARIES = (
    Library("ragmesh", "Apache-2.0; of its parsers MIT, BSD, Apache-2.0", _FORMATS),
    Library("docling", "MIT", _FORMATS),
    Library("markitdown", "MIT", _FORMATS),
    Library("unstructured", "Apache-2.0", ("html",)),
    Library("pypdf", "BSD-3-Clause", ("pdf",)),
    Library("pdfplumber", "MIT", ("pdf",)),
    Library("pdfminer.six", "MIT", ("pdf",)),
    Library("pymupdf4llm", "AGPL-3.0", ("pdf",)),
    Library("python-docx", "MIT", ("docx",)),
    Library("trafilatura", "Apache-2.0", ("html",)),
    Library("html2text", "GPL-3.0", ("html",)),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a library made of a file: the likeness and the milliseconds of the CPU, or why it failed."""

    library: str
    format: str
    file: str
    likeness: float
    ms: float
    error: str


def read_all(library: Library, files: Sequence[Case]) -> list[Result]:
    """The library's results for the files of its formats; a process that fails fails all of them."""
    mine = [case for case in files if format_of(case) in library.formats]
    # Relative to us, and without site-packages: what the library has not brought along, it has not.
    python = [sys.executable] if library.name == "ragmesh" else [sys.executable, "-S"]
    path = "." if library.name == "ragmesh" else str(_INSTALLED / library.name)
    done = subprocess.run(
        [*python, _SCRIPT, library.name],
        input="".join(f"{case.file.resolve()}\n" for case in mine),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        timeout=_TIMEOUT_S,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    ended = {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
    answers += [ended] * (len(mine) - len(answers))
    return [_result(library, case, answer) for case, answer in zip(mine, answers, strict=True)]


def _result(library: Library, case: Case, answer: Mapping[str, str]) -> Result:
    likeness = similarity(answer["text"], case.expected) if "text" in answer else 0.0
    ms, error = float(answer.get("ms", 0)), answer.get("error", "")
    return Result(library.name, format_of(case), case.file.name, likeness, ms, error)


def format_of(case: Case) -> str:
    """The format by the file's ending."""
    return case.file.suffix.removeprefix(".")


def installed_mb(library: Library) -> float:
    """Megabytes on the disk of the library and everything that it needs."""
    if library.name == "ragmesh":
        return sum(_size(name) for name in _needed(_OURS)) / 1e6
    return sum(file.stat().st_size for file in (_INSTALLED / library.name).rglob("*") if file.is_file()) / 1e6


def _needed(names: Iterable[str]) -> set[str]:
    """The distributions of those names and those that they need, without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found.add(name)
            needs = distribution(name).requires or ()
            waiting += [re.split(r"[^\w.-]", need)[0] for need in needs if ";" not in need]
    return found


def _size(name: str) -> int:
    files = (Path(str(file.locate())) for file in distribution(name).files or ())
    return sum(file.stat().st_size for file in files if file.is_file())


def table(results: Sequence[Result], weights: Mapping[str, float]) -> str:
    """A row a library: licence, weight, and by format the mean likeness and the mean time."""
    by_place: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        by_place[result.library, result.format].append(result)
    counts = {kind: max(len(by_place[library.name, kind]) for library in LIBRARIES) for kind in _FORMATS}
    heads = " | ".join(f"{kind} ({counts[kind]})" for kind in _FORMATS)
    lines = [f"| library | licence | MB | {heads} |", f"|---|---|---:|{'---:|' * len(_FORMATS)}"]
    for library in LIBRARIES:
        cells = " | ".join(_cell(by_place[library.name, kind]) for kind in _FORMATS)
        lines.append(f"| {library.name} | {library.licence} | {weights[library.name]:,.0f} | {cells} |")
    return "\n".join(lines)


def _cell(results: Sequence[Result]) -> str:
    if not results:
        return ""
    read = [result for result in results if not result.error]
    if not read:
        return "does not run"
    failed = f", {len(results) - len(read)} failed" if len(read) < len(results) else ""
    likeness = statistics.mean(result.likeness for result in results)
    return f"{likeness:.3f}, {statistics.mean(result.ms for result in read):,.0f} ms{failed}"


def main(folder: Path) -> None:
    """Measure, print, and write build/bench/parsers.json, with DOCS=1 the document too."""
    files = [case for case in cases(folder) if case.expected and case.category != "pdf-scanned"]
    results: list[Result] = []
    for library in LIBRARIES:
        results += read_all(library, files)
        for result in results[-sum(format_of(case) in library.formats for case in files) :]:
            print(f"{result.library:<14}{result.file:<45}{result.likeness:7.4f}{result.ms:9.1f} ms {result.error[:80]}")
    weights = {library.name: installed_mb(library) for library in LIBRARIES}
    written = table(results, weights)
    print(written)
    OUTPUT_FOLDER.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine(),
        "commit": commit(),
        "mb": weights,
        "files": [asdict(result) for result in results],
    }
    (OUTPUT_FOLDER / "parsers.json").write_text(json.dumps(document, indent=2) + "\n")
    if os.environ.get("DOCS") == "1":
        _document(f"{machine()}; commit {commit() or 'unknown'}.\n\n{written}")


def _document(words: str) -> None:
    """Put the table between its marks; raises ValueError where the document has none."""
    before, begin, rest = _DOCUMENT.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{_DOCUMENT} has no marks {_BEGIN} and {_END}")
    _DOCUMENT.write_text(f"{before}{begin}\n{words}\n{end}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else _FOLDER)
