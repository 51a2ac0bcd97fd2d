"""What the ingestion benchmark rests on."""

import asyncio
from pathlib import Path

import pytest

from bench.ingest_corpus import copied, files_of, letters, sampled, varied
from bench.ingest_fresh import Fresh, text
from bench.ingest_watch import Watch, watching

_BURN = (
    "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint(flush=True); input()"
)


def given(folder: Path, count: int = 10) -> Path:
    """A folder with so many files, text and others in turn."""
    folder.mkdir()
    for number in range(count):
        content = f"The harbour of {number}.".encode() if number % 2 else b"%PDF-1.4 " + bytes([number])
        (folder / f"{number}.txt").write_bytes(content)
    return folder


def test_a_sample_is_spread_over_all_files_and_copied_under_their_names(tmp_path: Path) -> None:
    """No file comes twice, and the first and the later ones are in it; more than there are gives all."""
    files = files_of([given(tmp_path / "a"), given(tmp_path / "b")])
    chosen = sampled(files, 4)
    assert list(chosen) == ["a/0.txt", "a/5.txt", "b/0.txt", "b/5.txt"]
    assert sampled(files, 100) == files
    folder = copied(chosen, tmp_path / "copy")
    assert files_of([folder / "b"]) == {name: folder / name for name in ("b/0.txt", "b/5.txt")}


def test_no_files_are_told(tmp_path: Path) -> None:
    """By the folders that were looked at."""
    with pytest.raises(ValueError, match=tmp_path.name):
        files_of([tmp_path])


def test_varied_texts_all_differ_and_come_again_by_their_seed(tmp_path: Path) -> None:
    """A text has a line more, which no other has; a file of another format stays as it is."""
    files = files_of([given(tmp_path / "a")])
    folder = varied(files, 25, tmp_path / "many")
    made = [path.read_bytes() for path in sorted(folder.iterdir())]
    assert len(made) == 25
    texts = [content for content in made if content.startswith(b"The harbour")]
    assert len(texts) == len(set(texts)) == 12
    assert made[2] == made[12] == (tmp_path / "a" / "2.txt").read_bytes()
    again = varied(files, 25, tmp_path / "again")
    assert made == [path.read_bytes() for path in sorted(again.iterdir())]


def test_words_of_numbers_are_letters_and_differ() -> None:
    """So that each finds one document only."""
    words = [letters(number) for number in range(1000)]
    assert len(set(words)) == 1000
    assert all(word.isalpha() and word.islower() for word in words)
    assert all(words[7] in line for line in text(words[7]).split("\n\n"))


def test_a_document_is_seen_by_half_where_some_of_its_chunks_are_found() -> None:
    """None or all of them is whole."""
    assert not Fresh(chunks=4, counts={0, 4}).seen_by_half
    assert Fresh(chunks=4, counts={0, 3, 4}).seen_by_half


def test_memory_is_told_by_tenths_of_the_work_and_at_its_peak() -> None:
    """The peak is of what was held together; a part of the work without a look has no figure."""
    looks = [{"a": 10.0, "b": 1.0}, {"a": 12.0, "b": 5.0}, {"a": 14.0, "b": 2.0}, {"a": 11.0, "b": 2.0}]
    watch = Watch(looks=looks, done=[0, 1, 6, 10])
    assert watch.course("a", 5) == [(2, 11.0), (8, 14.0)]
    assert (watch.peak_mb(), watch.peak_mb("b")) == (17.0, 5.0)


async def test_cpu_and_memory_of_children_count_for_their_family() -> None:
    """Also of one that ended, whose CPU was seen while it ran."""
    command = f"{{ python3 -c '{_BURN}'; }} ; echo ended; read x"
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    async with watching({"shell": shell.pid}, apart={"shell": "children"}) as watch:
        await shell.stdout.readline()
        watch.look({"shell": shell.pid}, {"shell": "children"})
        shell.stdin.write(b"\n")
        assert await shell.stdout.readline() == b"ended\n"
    shell.stdin.write(b"\n")
    await shell.wait()
    assert watch.cpu_s("children") >= 0.3
    assert 0 <= watch.cpu_s("shell") < 0.3
    assert watch.peak_mb() >= watch.peak_mb("children") > 1
    assert watch.peak_mb() >= max(watch.proportional_mb) > 0
