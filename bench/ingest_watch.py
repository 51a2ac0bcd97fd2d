"""Memory and CPU of processes that come and go, looked at while something runs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil

from bench.harness import cpu_s

_INTERVAL_S = 0.2
_PROPORTIONAL_EVERY = 5
"""Looks from one at the proportional memory to the next: the kernel walks all pages for it."""


@dataclass
class Watch:
    """What families of processes held and used; pages that processes share count in the resident memory of each."""

    looks: list[dict[str, float]] = field(default_factory=list)
    """Resident MB of each family at each look."""
    proportional_mb: list[float] = field(default_factory=list)
    """MB of all families together, pages that processes share parted among them, at some of the looks."""
    done: list[int] = field(default_factory=list)
    """How much of the work was done at each look."""
    work: int = 0
    """How much is done now; who watches sets it."""
    used_s: dict[str, dict[int, tuple[float, float]]] = field(default_factory=lambda: defaultdict(dict))
    """CPU seconds of each family's processes at the first look, 0 for one that began later, and at the last."""

    def peak_mb(self, *names: str) -> float:
        """The most that the families, all of them where none is named, held at one look together."""
        return max(sum(mb for name, mb in look.items() if not names or name in names) for look in self.looks)

    def cpu_s(self, *names: str) -> float:
        """CPU seconds of the families, all of them where none is named, from the first look to the last."""
        families = [self.used_s[name] for name in names or list(self.used_s)]
        return sum(last - first for family in families for first, last in family.values())

    def course(self, name: str, points: int) -> list[tuple[int, float]]:
        """A family's MB while each of so many equal parts of the work was done: the part's end, and the median."""
        bounds = [place * max(self.done) // points for place in range(points + 1)]
        course = []
        for low, high in pairwise(bounds):
            held = [look[name] for look, done in zip(self.looks, self.done, strict=True) if low <= done < high]
            if held:
                course.append((high, median(held)))
        return course

    def look(self, pids: Mapping[str, int], apart: Mapping[str, str]) -> None:
        """Look at the processes and their children once."""
        seen: dict[str, float] = {}
        family: list[psutil.Process] = []
        for name, pid in pids.items():
            try:
                process = psutil.Process(pid)
                children = process.children(recursive=True)
            except psutil.Error:
                continue
            below = apart.get(name, name)
            seen[name] = self._add(name, [process])
            seen[below] = seen.get(below, 0.0) + self._add(below, children)
            family += [process, *children]
        if len(self.looks) % _PROPORTIONAL_EVERY == 0:
            self.proportional_mb.append(sum(map(_proportional_mb, family)))
        self.looks.append(seen)
        self.done.append(self.work)

    def _add(self, name: str, processes: Sequence[psutil.Process]) -> float:
        """Keep the CPU seconds of the processes; returns the MB that they hold."""
        held = 0
        for process in processes:
            with suppress(psutil.Error, OSError):
                held += process.memory_info().rss
                used_s = cpu_s(process.pid)
                first_s = 0.0 if self.looks else used_s
                self.used_s[name][process.pid] = (self.used_s[name].get(process.pid, (first_s, 0.0))[0], used_s)
        return held / 1e6


def _proportional_mb(process: psutil.Process) -> float:
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:"))


@asynccontextmanager
async def watching(pids: Mapping[str, int], apart: Mapping[str, str] | None = None) -> AsyncIterator[Watch]:
    """Looks at processes and their children until the body ends; `apart` names the children of a family for itself."""
    watch = Watch()
    watch.look(pids, apart or {})

    async def look_on() -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await asyncio.to_thread(watch.look, pids, apart or {})

    task = asyncio.create_task(look_on())
    try:
        yield watch
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        watch.look(pids, apart or {})
