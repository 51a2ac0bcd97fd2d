"""Measures subjects side by side: interleaved over rounds, medians, CPU time and peak memory by process."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

OUTPUT_FOLDER = Path("build/bench")
DOCUMENT = Path("docs/performance.md")


@dataclass(frozen=True)
class Reading:
    """One figure of one round of one subject."""

    value: float
    unit: str


@dataclass(frozen=True)
class Row:
    """A figure of a subject: the median over the rounds."""

    metric: str
    subject: str
    value: float
    unit: str
    rounds: int


Round = Callable[[], Awaitable[Mapping[str, Reading]]]
"""Runs a subject once and returns its figures by metric."""


@dataclass
class Benchmark:
    """A named run over several subjects.

    Each round runs every subject once, in an order that moves on by one with each round, so that a machine
    that slows down or speeds up does so for all of them. The first `warmup_rounds` rounds are left out.
    """

    name: str
    rounds: int = 5
    warmup_rounds: int = 1
    floor: str | None = None
    """The subject that the table's ratios refer to."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What the document calls a metric; one without words stands there by its name."""
    readings: dict[tuple[str, str], list[Reading]] = field(default_factory=lambda: defaultdict(list))
    _subjects: list[str] = field(default_factory=list)

    async def run(self, subjects: Mapping[str, Round], *, timeout_s: float = 300.0) -> list[Row]:
        """Runs all rounds, each run of a subject bounded by `timeout_s`, and returns the medians.

        Several runs of the same subjects, with other metrics, make one table.
        """
        names = self._subjects = list(subjects)
        for number in range(self.warmup_rounds + self.rounds):
            turn = number % len(names)
            for subject in names[turn:] + names[:turn]:
                async with asyncio.timeout(timeout_s):
                    figures = await subjects[subject]()
                if number >= self.warmup_rounds:
                    for metric, reading in figures.items():
                        self.readings[metric, subject].append(reading)
        return self.rows()

    def rows(self) -> list[Row]:
        """The median of each figure, metric by metric, the subjects as they were given."""
        metrics = list(dict.fromkeys(metric for metric, _ in self.readings))
        return [
            _median(metric, subject, self.readings[metric, subject])
            for metric in metrics
            for subject in self._subjects
            if (metric, subject) in self.readings
        ]

    def report(self, console: Console | None = None) -> Path:
        """Prints the table and writes `build/bench/NAME.json`, with DOCS=1 the document too; returns the file."""
        rows = self.rows()
        (console or Console()).print(_table(self.name, rows, self.floor))
        document(self.name, rows, self.words, self.floor)
        return write(self.name, rows)


def rounds(default: int) -> int:
    """How many rounds to measure: ROUNDS of the environment, or the default."""
    return int(os.environ.get("ROUNDS", default))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies, between two of them linearly; raises IndexError for none."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])


def document(name: str, rows: Sequence[Row], words: Mapping[str, str] | None = None, floor: str | None = None) -> None:
    """With DOCS=1, puts the table in the document between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`."""
    if os.environ.get("DOCS") != "1":
        return
    text = DOCUMENT.read_text()
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"{DOCUMENT} has no marks {begin} and {end}")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    DOCUMENT.write_text(f"{before}{begin}\n{markdown(rows, words or {}, floor)}\n{end}{after}")


def markdown(rows: Sequence[Row], words: Mapping[str, str], floor: str | None = None) -> str:
    """A line on machine and commit, then a row a metric, a column a subject, in brackets the ratio to the floor."""
    subjects = list(dict.fromkeys(row.subject for row in rows))
    repeated = max(row.rounds for row in rows)
    medians = f"; medians of {repeated} rounds" if repeated > 1 else ""
    lines = [
        f"{machine()}{medians}; commit {commit() or 'unknown'}.",
        "",
        f"| metric | {' | '.join(subjects)} |",
        f"|---|{'---:|' * len(subjects)}",
    ]
    for metric in dict.fromkeys(row.metric for row in rows):
        figures = {row.subject: row.value for row in rows if row.metric == metric}
        cells = [_cell(figures.get(subject), figures.get(floor or "")) for subject in subjects]
        lines.append(f"| {words.get(metric, metric)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(name: str, rows: Sequence[Row]) -> Path:
    """Writes `build/bench/NAME.json` and returns its path."""
    OUTPUT_FOLDER.mkdir(parents=True, exist_ok=True)
    path = OUTPUT_FOLDER / f"{name}.json"
    document = {"machine": machine(), "commit": commit(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def machine() -> str:
    """The machine in words: processor, cores, memory."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory_gib = psutil.virtual_memory().total / 2**30
    return f"{model}, {psutil.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()}"


def commit() -> str:
    """The commit measured, with `+changes` where the tree differs from it; empty outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()


@dataclass(frozen=True)
class Usage:
    """What a process and its children used while they were watched."""

    cpu_s: float
    peak_mb: float


@contextmanager
def watching(pids: Mapping[str, int]) -> Iterator[dict[str, Usage]]:
    """Measures CPU seconds and peak resident memory of processes, by name; the figures are there when the block ends.

    The peak is the kernel's own high-water mark, reset at the beginning where the kernel allows it.
    """
    families = {name: _family(pid) for name, pid in pids.items()}
    for process in (process for family in families.values() for process in family):
        _reset_peak(process.pid)
    before = {name: sum(map(_cpu_s, family)) for name, family in families.items()}
    usage: dict[str, Usage] = {}
    try:
        yield usage
    finally:
        for name, family in families.items():
            cpu_s = sum(map(_cpu_s, family)) - before[name]
            usage[name] = Usage(cpu_s, sum(_peak_mb(process.pid) for process in family))


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    try:
        return cpu_s(process.pid)
    except OSError:
        return 0.0


def cpu_s(pid: int) -> float:
    """CPU seconds that all threads of a process have used, to the nanosecond; raises OSError where there is none."""
    # Linux's clock of another process, which clock_getcpuclockid(3) would name.
    return time.clock_gettime((~pid << 3) | 2)


def peak_mb(pid: int) -> float:
    """The most resident memory that a process and its children held since each began, or was last watched."""
    return sum(_peak_mb(process.pid) for process in _family(pid))


def _reset_peak(pid: int) -> None:
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        # Not Linux, or not ours to write: the peak is then that of the process's whole life.
        return


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
    return int(kib) / 1024


def _median(metric: str, subject: str, readings: Sequence[Reading]) -> Row:
    value = statistics.median(reading.value for reading in readings)
    return Row(metric, subject, value, readings[0].unit, len(readings))


def _table(name: str, rows: Sequence[Row], floor: str | None) -> Table:
    """A row a metric, a column a subject, and beside each figure its ratio to the floor."""
    subjects = list(dict.fromkeys(row.subject for row in rows))
    table = Table(title=f"{name}: {machine()}, medians of {max(row.rounds for row in rows)} rounds")
    table.add_column("metric", no_wrap=True)
    for subject in subjects:
        table.add_column(subject, justify="right")
    for metric in dict.fromkeys(row.metric for row in rows):
        figures = {row.subject: row.value for row in rows if row.metric == metric}
        table.add_row(metric, *(_cell(figures.get(subject), figures.get(floor or "")) for subject in subjects))
    return table


def _cell(value: float | None, base: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.2f} ({value / base:.2f}x)" if base else f"{value:,.2f}"
