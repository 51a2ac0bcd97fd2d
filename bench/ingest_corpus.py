"""Folders to take in: an even sample of given files, and many that are made of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

_NOTE_WORDS = 12
# Made to unpack to tens of megabytes: who takes such a file in would be measured by it alone.
_BOMBS = "malicious-bomb"


def files_of(folders: Sequence[Path]) -> dict[str, Path]:
    """The files below the folders but for bombs, in order, by their folder's name and path below it.

    Raises ValueError for none.
    """
    found = {
        f"{folder.name}/{path.relative_to(folder)}": path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _BOMBS not in path.parts
    }
    if not found:
        raise ValueError(f"no files in {', '.join(map(str, folders))}")
    return found


def sampled(files: Mapping[str, Path], count: int) -> dict[str, Path]:
    """So many of the files, evenly spread over their order; all where there are no more."""
    names = list(files)
    count = min(count, len(names))
    return {name: files[name] for name in (names[place * len(names) // count] for place in range(count))}


def copied(files: Mapping[str, Path], folder: Path) -> Path:
    """The files below a folder that is made, under their names; returns it."""
    for name, path in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder


def varied(files: Mapping[str, Path], count: int, folder: Path, seed: int = 0) -> Path:
    """So many files in turn, in a folder that is made: UTF-8 text with a line of its own words more; returns it."""
    drawn = np.random.default_rng(seed)
    names = list(files)
    folder.mkdir(parents=True)
    for number in range(count):
        path = files[names[number % len(names)]]
        target = folder / f"{number:06d}-{path.name}"
        target.write_bytes(_with_note(path.read_bytes(), number, drawn))
    return folder


def _with_note(content: bytes, number: int, drawn: np.random.Generator) -> bytes:
    try:
        words = content.decode().split()
    except UnicodeDecodeError:
        return content
    # What begins as a container of another format would no longer be one.
    if not words or "\0" in content.decode() or content.startswith((b"%PDF", b"PK")):
        return content
    note = " ".join(drawn.choice(words, _NOTE_WORDS))
    return content + f"\n\nNote {number}: {note}\n".encode()


def letters(number: int) -> str:
    """A number as a word of letters only, which every analyser takes for one word."""
    word = ""
    while True:
        number, digit = divmod(number, 26)
        word = chr(ord("a") + digit) + word
        if not number:
            return f"zq{word}x"
