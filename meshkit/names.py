"""Resource names: `collections/handbook/documents/leave`, read and written by a template (AIP-122)."""

import re
from functools import cache

from meshkit.errors import invalid

_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"


def parse(template: str, name: str, field: str) -> dict[str, str]:
    """The ids in a name, by the variables of a template, `collections/{collection}` for instance.

    Raises InvalidArgument with the violation of `field`, the request field that held the name.
    """
    found = _pattern(template).fullmatch(name)
    if found is None:
        raise invalid(field, f"is not of the form {template}")
    return found.groupdict()


def format(template: str, **ids: str) -> str:
    """The name that a template and its ids make; raises ValueError for an id that parse would refuse."""
    name = template.format_map(ids)
    if _pattern(template).fullmatch(name) is None:
        raise ValueError(f"{name!r} is not of the form {template}")
    return name


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", rf"(?P<\1>{_ID})", template))
