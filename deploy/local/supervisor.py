"""Programs kept running: started, restarted when they die, stopped in order, with nothing left behind."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.errors import StartError
from deploy.local.settings import LocalSettings

logger = logging.getLogger(__name__)

# The children are told when we die, even by SIGKILL, and end by themselves. In their own sessions they do not see the
# terminal's Ctrl-C, which would end them all at once rather than in order.
_END_WITH_US = ("setpriv", "--pdeathsig", "TERM")
_LOG_LINES_SHOWN = 5


async def _nothing() -> None:
    """Drain what needs no draining."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, how to tell that it serves, and what to do before it is told to end."""

    name: str
    arguments: Sequence[str]
    serves: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] = field(default_factory=dict)
    drain: Callable[[], Awaitable[None]] = _nothing


class Process:
    """A program that is kept running while its `keep_running` is open.

    One task spawns and waits; `_process` changes there only.
    """

    def __init__(self, program: Program, log: Path, settings: LocalSettings, restarted: Callable[[], None]) -> None:
        self.name = program.name
        self._program = program
        self._restarted = restarted
        self._log = log
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._served = False
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._task = asyncio.create_task(self._run(), name=f"keep {self.name} running")

    @property
    def pid(self) -> int:
        """The process id, 0 while the program does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def serving(self) -> None:
        """Return when the program serves; raises StartError where it ends before it ever did, or takes too long."""
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                while not (self.pid and await self._program.serves()):
                    if self._task.done():
                        raise StartError(f"{self.name} ended while starting:\n{self._last_lines()}")
                    await asyncio.sleep(self._settings.poll_interval_s)
        except TimeoutError:
            raise StartError(f"{self.name} does not serve:\n{self._last_lines()}") from None
        self._served = True

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the signal; the program is started again when that ends it."""
        if self.pid:
            os.kill(self.pid, number)

    async def restart(self) -> None:
        """End the program as a deployment would, and return when it serves again."""
        async with self.stopped():
            pass
        await self.serving()

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Keep the program away for as long as the body runs."""
        self._may_run.clear()
        await self._stop()
        try:
            yield
        finally:
            self._may_run.set()

    async def _stop(self) -> None:
        """Drain, SIGTERM, and SIGKILL to what does not end in time, its children included."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            await self._program.drain()
            with suppress(ProcessLookupError):
                process.terminate()
            async with asyncio.timeout(self._settings.stop_timeout_s):
                await process.wait()
        except TimeoutError:
            logger.warning("%s did not end in time and is killed", self.name)
        finally:
            _kill_group(process.pid)
            await process.wait()

    async def close(self) -> None:
        """Stop for good."""
        self._may_run.clear()
        try:
            await self._stop()
        finally:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            if self.pid:  # spawned while the task was being cancelled
                _kill_group(self.pid)

    async def _run(self) -> None:
        delay_s = self._settings.restart_backoff_s
        clock = asyncio.get_running_loop().time
        while True:
            await self._may_run.wait()
            began = clock()
            self._process = await self._spawn()
            if self._served:
                self._restarted()
            code = await self._process.wait()
            _kill_group(self._process.pid)
            if not self._served:
                return
            if clock() - began > self._settings.restart_backoff_max_s:
                delay_s = self._settings.restart_backoff_s
            if self._may_run.is_set():
                logger.warning("%s ended (%s); starting it again", self.name, _said(code))
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, self._settings.restart_backoff_max_s)

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *_END_WITH_US,
                *self._program.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._program.environment},
                start_new_session=True,
            )

    def _last_lines(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join([f"  {line}" for line in lines[-_LOG_LINES_SHOWN:]] + [f"  (all of it: {self._log})"])


def _kill_group(pid: int) -> None:
    """End what a program has left running: it led a process group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _said(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@asynccontextmanager
async def keep_running(
    program: Program, log: Path, settings: LocalSettings, restarted: Callable[[], None] = lambda: None
) -> AsyncIterator[Process]:
    """Run the program until the body ends, then drain and stop it.

    Its output is added to `log`; `restarted` is called whenever it has been started again.
    """
    process = Process(program, log, settings, restarted)
    try:
        yield process
    finally:
        await process.close()
