"""Source code: how its language is told, and under which names its parts stand."""

from pathlib import Path

import pytest

from ingest_svc.extract import BlockKind, Extract, Source
from ingest_svc.parsing.languages import LANGUAGES, language_of
from ingest_svc.parsing.reading import read

PYTHON = (
    "#!/usr/bin/env python3\nimport os\n\n\n@cached\ndef swim(pond):\n    def inner(): ...\n\n\n"
    "class Duck:\n    voice = 1\n\n    # Says so.\n    def quack(self):\n        return 'ä'\n\nDuck().quack()\n"
)


def extract(source: str | bytes, uri: str) -> Extract:
    """The extract; its text is checked to be the source's, its blocks to leave out blanks only."""
    data = source.encode() if isinstance(source, str) else source
    found = read(Source(data, uri), 1_000_000)
    last = 0
    for block in found.blocks:
        assert block.kind is BlockKind.CODE
        assert not data[last : block.start].strip()
        last = block.end
    assert found.text.encode() == data
    assert last == len(data)
    return found


def paths(found: Extract) -> list[str]:
    """The heading path of each block."""
    return [".".join(block.heading_path) for block in found.blocks]


def test_definitions_are_blocks_under_their_names() -> None:
    """A function, the head of a class and a method are blocks, with decorators and comments; so is what is between."""
    found = extract(PYTHON, "duck.py")
    assert paths(found) == ["", "swim", "Duck", "Duck.quack", ""]
    assert found.media_type == "text/x-python"
    parts = [found.text.encode()[block.start : block.end].decode() for block in found.blocks]
    assert parts[1].startswith("@cached\ndef swim")
    assert parts[3] == "    # Says so.\n    def quack(self):\n        return 'ä'\n"


@pytest.mark.parametrize(
    ("name", "source", "wanted"),
    [
        ("a.go", "package a\n\nfunc New() *Duck {\n}\n\nfunc (d *Duck) Quack() {\n}\n", ["", "New", "Duck.Quack"]),
        ("a.java", "package a;\nclass Duck {\n  int x;\n  void quack() {\n  }\n}\n", ["", "Duck", "Duck.quack"]),
        (
            "a.ts",
            "export class Duck {\n  quack(): void {}\n}\nexport const swim = () => 1\n",
            ["Duck", "Duck.quack", "swim"],
        ),
        ("a.js", "module.exports = function charge () {\n}\nconst f = async () => {\n}\n", ["charge", "f"]),
        ("a.rs", "impl Duck {\n    fn quack() {}\n}\n#[test]\nfn swim() {}\n", ["Duck", "Duck.quack", "swim"]),
        ("a.c", "#include <a.h>\nint swim(int x) {\n}\nstruct duck { int x; };\n", ["", "swim", "duck"]),
        ("a.h", "#ifndef A\n#define A\nclass Duck {\n  void quack() {}\n};\n#endif\n", ["", "Duck", "Duck.quack", ""]),
        ("a.cpp", "namespace pond {\nvoid Duck::quack() {\n}\n}\n", ["pond", "pond.Duck::quack"]),
        ("a.cs", "namespace A {\nclass Duck {\n  void Quack() {}\n}\n}\n", ["A", "A.Duck", "A.Duck.Quack"]),
        (
            "a.rb",
            "module Pond\n  class Duck\n    def quack\n    end\n  end\nend\n",
            ["Pond", "Pond.Duck", "Pond.Duck.quack"],
        ),
        ("a.php", "<?php\nclass Duck {\n  function quack() {}\n}\n", ["", "Duck", "Duck.quack"]),
        ("a.kt", "class Duck {\n  fun quack() {}\n}\nfun swim() {}\n", ["Duck", "Duck.quack", "swim"]),
        ("a.swift", "class Duck {\n  func quack() {}\n}\n", ["Duck", "Duck.quack"]),
        ("a.scala", "object Pond {\n  def swim() = 1\n}\n", ["Pond", "Pond.swim"]),
        ("a.lua", "local function swim()\nend\n", ["swim"]),
        ("a.sh", "set -e\nswim() {\n  echo 1\n}\n", ["", "swim"]),
        ("a.r", "swim <- function(x) {\n  x\n}\n", ["swim"]),
        ("a.proto", 'syntax = "proto3";\nmessage Duck {\n  int32 x = 1;\n}\n', ["", "Duck"]),
        ("a.tf", 'resource "pond" "north" {\n  depth = 1\n}\n', ['resource "pond" "north"']),
        ("a.css", "p {\n  color: red;\n}\n.duck > b {\n}\n", ["p", ".duck > b"]),
        ("a.sql", "-- All ducks.\nCREATE TABLE ducks (\n  x int\n);\nSELECT 1;\n", ["ducks"]),
        ("a.toml", "x = 1\n\n[tool.duck]\ny = 2\n", ["", "tool.duck"]),
        ("a.yaml", "pond:\n  depth: 1\nducks: [a]\n", ["pond", "ducks"]),
        ("Dockerfile", "ARG A=1\nFROM duck AS build\nRUN swim\n", ["", "duck AS build"]),
        ("Makefile", "A := 1\n\n# Says so.\nquack: swim\n\techo quack\n", ["", "quack"]),
    ],
)
def test_each_language_names_its_parts(name: str, source: str, wanted: list[str]) -> None:
    """The names are those of the language's own definitions, the outer ones first."""
    assert paths(extract(source, name)) == wanted


def test_kubernetes_resources_stand_under_kind_and_name() -> None:
    """Each document of a YAML file that is a resource is one block."""
    found = extract(
        "kind: Pod\nmetadata:\n  name: duck\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: pond\n", "a.yml"
    )
    assert paths(found) == ["Pod duck", "Service pond"]


@pytest.mark.parametrize(
    ("source", "uri", "wanted"),
    [
        (PYTHON, "swim", "text/x-python"),
        ("package main\n\nfunc main() {\n}\n", "swim.txt", "text/x-go"),
        ("#!/bin/sh\nexit\n", "run", "text/x-bash"),
        ("Import is a word. We import ducks from ponds.\n\nclass of 1984\n", "letter", "text/plain"),
        ("# Ducks\n\n- one\n\n```python\nimport a\n```\n[x](y)\n", "readme.md", "text/markdown"),
        ("x = 1\r\ny = '\xe4'\r\n", "a.py", "text/x-python"),
    ],
)
def test_languages_are_told_by_name_and_content(source: str, uri: str, wanted: str) -> None:
    """By the ending first, then by the program that runs it, then by two signs of the language; prose stays prose."""
    assert read(Source(source.encode(), uri), 1_000_000).media_type == wanted


def test_broken_code_keeps_its_text() -> None:
    """What does not parse is there as well; nesting has no limit."""
    extract("class Duck(:\n  def quack(\n\n))) ä\n", "a.py")
    extract("class A { " * 3000, "a.java")
    extract("f = " + "(" * 5000, "a.js")


def test_every_grammar_is_there() -> None:
    """Each language that needs a grammar has it, so none fails on its first file."""
    for language in LANGUAGES:
        assert extract("x\n", f"a{language.endings[0]}").media_type == language.media_type
        assert language_of("", f"a{language.endings[0]}") is language


def test_shared_code_is_kept() -> None:
    """Each shared file of code comes out byte for byte, in blocks of its definitions."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "loaders" / "files" / "code"
    for file in sorted(folder.glob("*")):
        assert len(extract(file.read_bytes(), file.name).blocks) > 3
