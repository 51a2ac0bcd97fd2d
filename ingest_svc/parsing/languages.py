"""The programming and configuration languages that are told apart, by a file's name or by its first lines."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Language:
    """A language: its name, which is its tree-sitter grammar's where it is parsed, and what tells it.

    `endings` and `names` are of files, in lower case; `interpreters` stand after `#!`; `sign` is found in the first
    lines of a file without an ending. `sections` finds the lines that begin a part, and its name, in a language whose
    lines say so; such a language needs no grammar.
    """

    name: str
    endings: tuple[str, ...]
    names: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    sign: str = ""
    sections: str = ""

    @property
    def media_type(self) -> str:
        return f"text/x-{self.name}"


_SQL = (
    r"^(?:CREATE|ALTER)\s+(?:OR\s+REPLACE\s+)?(?:\w+\s+){0,3}?"
    r"(?:TABLE|VIEW|INDEX|FUNCTION|PROCEDURE|TRIGGER|TYPE|SCHEMA)\s+(?:IF\s+NOT\s+EXISTS\s+)?(?P<name>[\w.\"`\[\]]+)"
)
LANGUAGES = (
    Language(
        "python", (".py", ".pyi", ".pyw"), (), ("python",), r"^(?:def \w+\(.*\).*:|from [\w.]+ import |class \w+.*:$)"
    ),
    Language(
        "javascript", (".js", ".mjs", ".cjs", ".jsx"), (), ("node", "deno"), r"^(?:const|let|var) \w+ = require\("
    ),
    Language("typescript", (".ts", ".mts", ".cts")),
    Language("tsx", (".tsx",)),
    Language(
        "java", (".java",), (), (), r"^(?:package [\w.]+;|import (?:static )?[\w.]+(?:\.\*)?;|public (?:final )?class )"
    ),
    Language("kotlin", (".kt", ".kts")),
    Language("scala", (".scala", ".sc")),
    Language("groovy", (".groovy", ".gradle")),
    Language("go", (".go",), (), (), r"^(?:package \w+$|func (?:\(.*?\) )?\w+\(|import \()"),
    Language("rust", (".rs",), (), (), r"^(?:use [\w:]+(?:::\{.*\})?;|(?:pub )?fn \w+.*\{$|impl(?:<.*>)? )"),
    Language("c", (".c",), (), (), r"^#include [<\"][\w./]+\.h[>\"]"),
    Language(
        "cpp",
        (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".h", ".ipp"),
        (),
        (),
        r"^#include <\w+>|^using namespace ",
    ),
    Language("cuda", (".cu", ".cuh")),
    Language("csharp", (".cs",), (), (), r"^(?:using [\w.]+;|namespace [\w.]+)"),
    Language("swift", (".swift",)),
    Language("objc", (".m", ".mm")),
    Language("dart", (".dart",)),
    Language("ruby", (".rb", ".rake"), ("rakefile", "gemfile"), ("ruby",)),
    Language("php", (".php",), (), ("php",), r"^<\?php"),
    Language("perl", (".pl", ".pm"), (), ("perl",)),
    Language("lua", (".lua",), (), ("lua",)),
    Language("r", (".r",), (), ("rscript",)),
    Language("julia", (".jl",), (), ("julia",)),
    Language("haskell", (".hs",)),
    Language("elixir", (".ex", ".exs"), (), ("elixir",)),
    Language("clojure", (".clj", ".cljs")),
    Language("bash", (".sh", ".bash", ".zsh", ".ksh"), (".bashrc", ".profile"), ("sh", "bash", "zsh", "ksh", "dash")),
    Language("powershell", (".ps1", ".psm1")),
    Language("proto", (".proto",), (), (), r"^syntax = \"proto[23]\";"),
    Language("graphql", (".graphql", ".gql")),
    Language("hcl", (".tf", ".hcl", ".tfvars")),
    Language("css", (".css",)),
    Language("scss", (".scss",)),
    Language("sql", (".sql",), (), (), _SQL, _SQL),
    Language(
        "make", (".mk",), ("makefile", "gnumakefile"), (), "", r"^(?P<name>[\w./$()%-]+(?: [\w./$()%-]+)*)\s*::?(?!=)"
    ),
    Language(
        "dockerfile",
        (".dockerfile",),
        ("dockerfile", "containerfile"),
        (),
        r"^FROM \S+(?: AS \S+)?$",
        r"^FROM\s+(?P<name>\S+(?:\s+AS\s+\S+)?)",
    ),
    Language("yaml", (".yaml", ".yml"), (), (), r"^(?:apiVersion|kind): \S+$", r"^(?P<name>[\w\"'./-]+):(?=\s|$)"),
    Language("toml", (".toml",), (), (), "", r"^\[\[?(?P<name>[^\]\n]+)\]"),
    Language("ini", (".ini", ".cfg", ".conf", ".properties", ".editorconfig"), (), (), "", r"^\[(?P<name>[^\]\n]+)\]"),
)
_BY_ENDING = {ending: language for language in LANGUAGES for ending in language.endings}
_BY_NAME = {name: language for language in LANGUAGES for name in language.names}
_BY_INTERPRETER = {name: language for language in LANGUAGES for name in language.interpreters}
_SIGNS = tuple((re.compile(language.sign, re.MULTILINE), language) for language in LANGUAGES if language.sign)
_SHEBANG = re.compile(r"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+)*)?([a-z]+)")
BY_MEDIA_TYPE = {language.media_type: language for language in LANGUAGES}
"""Each language by the media type that its documents get."""


def language_of(head: str, path: str) -> Language | None:
    """The language of a text by its path in lower case, else by its first lines; None for prose and unknown ones."""
    name = path.rpartition("/")[2]
    ending = name[name.rfind(".") :] if "." in name else ""
    found = _BY_NAME.get(name) or _BY_NAME.get(name.partition(".")[0] if "dockerfile" in name else "")
    found = found or _BY_ENDING.get(ending)
    if found is not None:
        return found
    shebang = _SHEBANG.match(head)
    if shebang is not None:
        return _BY_INTERPRETER.get(shebang[1])
    return _signed(head) if ending in ("", ".txt") else None


def _signed(head: str) -> Language | None:
    """The language with the most different signs, of two at least: one line of code stands in many a text."""
    counts: Sequence[tuple[int, Language]] = [(len(set(sign.findall(head))), language) for sign, language in _SIGNS]
    most, language = max(counts, key=lambda counted: counted[0])
    return language if most > 1 else None
