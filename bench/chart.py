"""Draws lines over a count that doubles, or bars in groups, as SVG: a colour for each subject."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#0b6e99", "#c8553d", "#7a5195", "#4b8b3b")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 380, 250, 70, 64, 56, 40


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure of each subject at each count, drawn on an axis of powers of ten."""

    title: str
    unit: str
    lines: Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class Bars:
    """A figure from 0 to 1 of each subject, in groups that each have a name."""

    title: str
    groups: Mapping[str, Mapping[str, float]]


def bars(drawn: Bars) -> str:
    """The drawing; every group has its subjects in the order of the first."""
    span = len(drawn.groups) * WIDTH // 2
    subjects = list(next(iter(drawn.groups.values())))
    parts = [
        _opening(LEFT + max(span + GAP, 130 * len(subjects))),
        *_keys(subjects),
        f'<g transform="translate({LEFT} {TOP})">',
    ]
    parts.append(f'<text x="0" y="-12" font-weight="bold">{escape(drawn.title)}</text>')
    for tenth in range(0, 11, 2):
        y = HEIGHT * (1 - tenth / 10)
        parts.append(f'<path d="M0 {y:.1f}h{span}" stroke="#dddddd"/>')
        parts.append(f'<text x="-8" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    for place, (name, values) in enumerate(drawn.groups.items()):
        parts += _group(place * WIDTH / 2, name, values, subjects)
    return "\n".join([*parts, "</g>", "</svg>\n"])


def _group(left: float, name: str, values: Mapping[str, float], subjects: Sequence[str]) -> list[str]:
    wide = (WIDTH / 2 - 30) / len(subjects)
    parts = [f'<text x="{left + WIDTH / 4:.1f}" y="{HEIGHT + 20}" text-anchor="middle">{escape(name)}</text>']
    for number, subject in enumerate(subjects):
        value = values.get(subject, 0.0)
        x, y = left + 15 + number * wide, HEIGHT * (1 - value)
        box = f'x="{x:.1f}" y="{y:.1f}" width="{wide - 4:.1f}" height="{HEIGHT - y:.1f}"'
        parts.append(f'<rect {box} fill="{COLOURS[number % len(COLOURS)]}"/>')
        at = f'x="{x + wide / 2 - 2:.1f}" y="{y - 4:.1f}" text-anchor="middle" font-size="10"'
        parts.append(f"<text {at}>{value:.3f}</text>")
    return parts


def _keys(subjects: Sequence[str]) -> list[str]:
    found = []
    for place, subject in enumerate(subjects):
        x, colour = LEFT + place * 130, COLOURS[place % len(COLOURS)]
        found.append(f'<rect x="{x}" y="10" width="16" height="16" fill="{colour}"/>')
        found.append(f'<text x="{x + 24}" y="22">{escape(subject)}</text>')
    return found


def _opening(width: int) -> str:
    font = 'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#222222"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + HEIGHT + BOTTOM}" {font}>\n'
        '<rect width="100%" height="100%" fill="#ffffff"/>'
    )


def svg(panels: Sequence[Panel], x_label: str) -> str:
    """The drawing; every panel has the same subjects in the same order."""
    width = len(panels) * (WIDTH + LEFT) + GAP
    parts = [_opening(width), *_legend(list(panels[0].lines))]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({LEFT + number * (WIDTH + LEFT)} {TOP})">')
        parts += [*_axes(panel, x_label), *_lines(panel), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _legend(subjects: Sequence[str]) -> list[str]:
    found = []
    for place, subject in enumerate(subjects):
        x, colour = LEFT + place * 210, COLOURS[place]
        found.append(f'<path d="M{x} 18h24" stroke="{colour}" stroke-width="2.5"/>')
        found.append(f'<circle cx="{x + 12}" cy="18" r="4" fill="{colour}"/>')
        found.append(f'<text x="{x + 32}" y="22">{escape(subject)}</text>')
    return found


def _axes(panel: Panel, x_label: str) -> list[str]:
    lowest, highest = _decades(panel)
    parts = [f'<text x="0" y="-12" font-weight="bold">{escape(panel.title)}, {escape(panel.unit)}</text>']
    for decade in range(lowest, highest + 1):
        y = _y(panel, 10.0**decade)
        parts.append(f'<path d="M0 {y:.1f}h{WIDTH}" stroke="#dddddd"/>')
        parts.append(f'<text x="-8" y="{y + 4:.1f}" text-anchor="end">{10.0**decade:,g}</text>')
    for count in _counts(panel):
        x = _x(panel, count)
        parts.append(f'<path d="M{x:.1f} {HEIGHT}v5" stroke="#222222"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT + 20}" text-anchor="middle">{count}</text>')
    parts.append(f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="#222222"/>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT + 42}" text-anchor="middle">{escape(x_label)}</text>')
    return parts


def _lines(panel: Panel) -> list[str]:
    parts = []
    for colour, points in zip(COLOURS, panel.lines.values(), strict=False):
        places = [(_x(panel, count), _y(panel, value)) for count, value in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places]
    return parts


def _counts(panel: Panel) -> list[int]:
    return sorted({count for points in panel.lines.values() for count, _ in points})


def _decades(panel: Panel) -> tuple[int, int]:
    values = [value for points in panel.lines.values() for _, value in points]
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def _x(panel: Panel, count: int) -> float:
    fewest, *_, most = _counts(panel)
    return 16 + (WIDTH - 32) * math.log2(count / fewest) / math.log2(most / fewest)


def _y(panel: Panel, value: float) -> float:
    lowest, highest = _decades(panel)
    return HEIGHT * (1 - (math.log10(value) - lowest) / (highest - lowest))
