"""Whether two questions ask the same in other words, as far as their words can tell: a guard beside likeness."""


def sense_of(text: str) -> tuple[str, ...]:
    return tuple(text.casefold().split())


def same_sense(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return one == other
