"""Parsers in processes of their own: what a bad document can and cannot do."""

import asyncio
import json
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import docx
import psutil
import pytest

from ingest_svc.parser_processes import ParserLimits, ParserProcesses, open_parser_processes
from meshkit.errors import MeshError

LIMITS = ParserLimits(timeout_s=5, max_memory_bytes=512 * 1024 * 1024, max_text_bytes=200_000)
MALICIOUS = Path(__file__).parents[3] / "shared" / "data" / "loaders"


def page(folder: Path, text: str = "Some text.") -> Path:
    """A file with the text."""
    file = folder / "page.txt"
    file.write_text(text)
    return file


def bomb(folder: Path, size: int) -> Path:
    """A DOCX whose document has `size` bytes of XML."""
    plain, big = folder / "plain.docx", folder / "big.docx"
    document = docx.Document()
    document.add_paragraph("MARK")
    document.save(str(plain))
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(big, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.infolist():
            target.writestr(part.filename, source.read(part).replace(b"MARK", b"x " * (size // 2)))
    return big


async def reason(parser: ParserProcesses, file: Path) -> str:
    """The reason for which a file is not read."""
    with pytest.raises(MeshError) as failed:
        await parser.parse(file, file.name)
    return failed.value.reason


async def test_files_are_read_in_another_process(tmp_path: Path) -> None:
    """A file's text comes back whole, and the process serves one file after another."""
    async with open_parser_processes(1, LIMITS) as parser:
        for number in range(3):
            extract = await parser.parse(page(tmp_path, f"Ünïcode {number}."), "page.txt")
            assert extract.text == f"Ünïcode {number}."


async def test_bombs_end_at_a_limit(tmp_path: Path) -> None:
    """A document that unpacks to too much, or has too much text, is refused, and the next one is read."""
    async with open_parser_processes(1, LIMITS) as parser:
        assert await reason(parser, bomb(tmp_path, 300_000_000)) == "PARSER_LIMIT"
        assert await reason(parser, bomb(tmp_path, 9_000_000)) in ("PARSER_LIMIT", "UNREADABLE_DOCUMENT")
        assert await reason(parser, page(tmp_path, "word " * 100_000)) == "PARSER_LIMIT"
        assert (await parser.parse(page(tmp_path), "page.txt")).text == "Some text."


async def test_a_slow_document_ends_at_its_time(tmp_path: Path) -> None:
    """A document that takes too long is given up, and the next one is read."""
    slow = tmp_path / "slow.html"
    slow.write_text("<html>" + "<div>x" * 60_000)
    limits = ParserLimits(timeout_s=0.3, max_memory_bytes=2 * 1024**3, max_text_bytes=10**7)
    async with open_parser_processes(1, limits) as parser:
        assert await reason(parser, slow) == "PARSER_LIMIT"
        assert (await parser.parse(page(tmp_path), "page.txt")).text == "Some text."


async def test_who_leaves_frees_the_process(tmp_path: Path) -> None:
    """A caller cancelled in mid-parse leaves no process busy behind."""
    slow = tmp_path / "slow.html"
    slow.write_text("<html>" + "<div>x" * 60_000)
    async with open_parser_processes(1, LIMITS) as parser:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await parser.parse(slow, "slow.html")
        async with asyncio.timeout(4):
            assert (await parser.parse(page(tmp_path), "page.txt")).text == "Some text."


async def test_a_process_that_grew_is_replaced(tmp_path: Path) -> None:
    """One that holds more than it may between two documents makes room for another; else it serves on."""
    file = page(tmp_path)
    for max_idle_bytes, same in ((10**9, True), (10**6, False)):
        async with open_parser_processes(1, replace(LIMITS, max_idle_bytes=max_idle_bytes)) as parser:
            await parser.parse(file, file.name)
            before = children()
            assert (await parser.parse(file, file.name)).text == "Some text."
            assert (before == children() != []) is same


async def killed_at_work(parser: ParserProcesses, file: Path, times: int) -> str:
    """The text of a file whose parser is killed so many times while it reads it."""
    await parser.parse(file, file.name)
    (first,) = children()
    first.suspend()
    reading = asyncio.create_task(parser.parse(file, file.name))
    await asyncio.sleep(0)
    first.kill()
    for _ in range(times - 1):
        while not (others := [child for child in children() if child != first]):
            await asyncio.sleep(0.001)
        others[0].kill()
    return (await reading).text


def children() -> list[psutil.Process]:
    """The parsers' processes."""
    found = []
    for child in psutil.Process().children():
        # One that ends just now has no command.
        with suppress(psutil.Error):
            if "ingest_svc.parsing" in child.cmdline():
                found.append(child)
    return found


async def test_a_file_is_read_again_where_its_parser_was_killed(tmp_path: Path) -> None:
    """Once is no fault of the file's; twice is taken for one."""
    async with open_parser_processes(1, LIMITS) as parser:
        assert await killed_at_work(parser, page(tmp_path), 1) == "Some text."
    async with open_parser_processes(1, LIMITS) as parser:
        with pytest.raises(MeshError) as failed:
            await killed_at_work(parser, page(tmp_path), 2)
        assert failed.value.reason == "PARSER_LIMIT"
        assert (await parser.parse(page(tmp_path), "page.txt")).text == "Some text."


async def test_shared_malicious_files_stay_within_bounds() -> None:
    """Each malicious file of the shared fixtures is read or refused with a published reason."""
    manifest = MALICIOUS / "manifest.jsonl"
    lines = manifest.read_text().splitlines() if manifest.is_file() else []
    files = [entry["file"] for entry in map(json.loads, lines) if entry["category"].startswith("malicious")]
    async with open_parser_processes(1, LIMITS) as parser:
        for file in files:
            try:
                extract = await parser.parse(MALICIOUS / file, file)
                assert "root:" not in extract.text
            except MeshError as error:
                assert error.reason in ("PARSER_LIMIT", "UNREADABLE_DOCUMENT", "UNSUPPORTED_FORMAT", "NO_TEXT")  # noqa: PT017 - one of two outcomes
