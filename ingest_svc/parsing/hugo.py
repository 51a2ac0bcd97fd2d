"""What Hugo adds to Markdown: front matter and shortcodes."""

import re
import tomllib
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\A\ufeff?(---|\+\+\+)[ \t]*\n(.*?)\n\1[ \t]*(?:\n|\Z)", re.DOTALL)
_SHORTCODE = re.compile(r"\{\{[<%]\s*(/?)\s*([\w.-]+)((?:\"[^\"]*\"|[^\"])*?)/?\s*[>%]\}\}", re.DOTALL)
_ATTRIBUTE = re.compile(r"([\w-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_FIRST_QUOTED = re.compile(r"\"([^\"]*)\"")
# What stands between their tags is no text for readers.
_DROPPED = re.compile(r"\{\{[<%]\s*(comment|mermaid)\b.*?[>%]\}\}.*?\{\{[<%]\s*/\s*\1\s*[>%]\}\}", re.DOTALL)
_HEADINGS = {
    "whatsnext": "What's next",
    "prerequisites": "Before you begin",
    "objectives": "Objectives",
    "cleanup": "Cleaning up",
    "synopsis": "Synopsis",
    "options": "Options",
    "seealso": "See also",
}
_FENCES = {"highlight", "code"}


def front_matter(source: str) -> tuple[dict[str, Any], str]:
    """The front matter's fields and the rest of the source; no fields where it has none or a broken one."""
    found = _FRONT_MATTER.match(source)
    if found is None:
        return {}, source
    try:
        loaded = yaml.load(found[2], yaml.CSafeLoader) if found[1] == "---" else tomllib.loads(found[2])
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError):
        loaded = {}
    if not isinstance(loaded, dict):
        # A thematic break at the top of the page, not front matter.
        return {}, source
    return {str(key): value for key, value in loaded.items()}, source[found.end() :]


def without_shortcodes(source: str) -> str:
    """The source with each shortcode replaced by the words that it would show, where they are known."""
    return _SHORTCODE.sub(_words, _DROPPED.sub("", source))


def _words(shortcode: re.Match[str]) -> str:
    closing, name, arguments = shortcode.groups()
    if name in _FENCES:
        language = "" if closing else arguments.strip().partition(" ")[0]
        return f"\n```{language}\n"
    if closing:
        return ""
    if name == "heading":
        quoted = _FIRST_QUOTED.search(arguments)
        given = quoted[1] if quoted else ""
        return _HEADINGS.get(given, given.capitalize())
    return _shown(name, {key: a or b or c for key, a, b, c in _ATTRIBUTE.findall(arguments)})


def _shown(name: str, attributes: dict[str, str]) -> str:
    if name == "feature-state":
        version, state = attributes.get("for_k8s_version"), attributes.get("state")
        return f"Feature state: {version} ({state})" if version and state else ""
    if name == "tab":
        return f"\n\n{attributes.get('name', '')}\n\n"
    text = attributes.get("text") or attributes.get("caption")
    if text:
        return text
    term = attributes.get("term_id", "") if name == "glossary_tooltip" else ""
    return term.replace("-", " ")
