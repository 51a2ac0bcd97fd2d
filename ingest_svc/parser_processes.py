"""Parsers in processes of their own: a document that hangs, bloats or crashes its parser harms no other."""

import asyncio
import json
import logging
import os
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest_svc.extract import Extract
from ingest_svc.failure import Failure
from meshkit.errors import InvalidArgument, MeshError, ResourceExhausted

logger = logging.getLogger(__name__)

_LENGTH_BYTES = 8
# What an answer begins with that is no Extract.
_FAILURE = b'{"failure":'
_START_TIMEOUT_S = 30.0
# How a process ends that another killed, the kernel for want of memory or somebody by hand.
_KILLED = (-signal.SIGKILL, -signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """Bounds of one document's parsing, and of the text that comes of it; the languages that tesseract looks for.

    `max_idle_bytes`: what a process may hold in memory from one document to the next.
    """

    timeout_s: float
    max_memory_bytes: int
    max_text_bytes: int
    ocr_languages: str = "eng"
    max_idle_bytes: int = 160 * 1024 * 1024

    @property
    def max_answer_bytes(self) -> int:
        """JSON escapes, and has a block for each paragraph."""
        return 16 * self.max_text_bytes + 65536


class _Killed(Exception):
    """A parser was killed from outside: it need not be its document that is to blame."""


class ParserProcesses:
    """A fixed number of processes, started when first needed and again after they died; see `open_parser_processes`.

    `_free` holds a slot for each: its process, or None. Who takes a slot owns its process until it puts it back.
    """

    def __init__(self, count: int, limits: ParserLimits) -> None:
        self._limits = limits
        self._free: asyncio.LifoQueue[Process | None] = asyncio.LifoQueue()
        for _ in range(count):
            self._free.put_nowait(None)
        self._count = count

    async def parse(self, file: Path, uri: str, password: str = "") -> Extract:
        """The text of a file; raises MeshError as `ingest_svc.parsing.reading.read` does.

        Where its process is killed, another reads the file; the second time, that is said of the file.
        """
        languages = self._limits.ocr_languages
        request = {"file": str(file), "uri": uri, "password": password, "ocr_languages": languages}
        try:
            return _read_answer(await self._read(request))
        except _Killed:
            logger.warning("a parser was killed, will retry: %s", uri)
        try:
            return _read_answer(await self._read(request))
        except _Killed:
            raise _limit("memory") from None

    async def _read(self, request: dict[str, str]) -> bytes:
        """The answer of the process whose turn it is; raises as `_answered` does."""
        process = await self._free.get()
        kept: Process | None = None
        try:
            if process is None or process.returncode is not None:
                process = await self._started()
            answer = await self._answered(process, request)
            kept = process if _held_bytes(process) <= self._limits.max_idle_bytes else None
        finally:
            try:
                if process is not None and kept is None:
                    await _killed(process)
            finally:
                self._free.put_nowait(kept)
        return answer

    async def close(self) -> None:
        """End the processes, those at work too."""
        for _ in range(self._count):
            process = await self._free.get()
            if process is not None:
                await _killed(process)

    async def _started(self) -> Process:
        # Nothing of our environment but where programs are: it may hold secrets, and documents come from anybody.
        kept = {name: os.environ[name] for name in ("PATH", "TESSDATA_PREFIX") if name in os.environ}
        environment = {**kept, "PYTHONPATH": os.pathsep.join(sys.path), "LANG": "C.UTF-8"}
        limits = [str(number) for number in (self._limits.max_memory_bytes, self._limits.max_text_bytes)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ingest_svc.parsing", str(self._limits.timeout_s), *limits),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=environment,
        )
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await _pipes(process)[1].readexactly(1)
        except asyncio.IncompleteReadError:
            if await process.wait() in _KILLED:
                raise _Killed from None
            raise
        except BaseException:
            await _killed(process)
            raise
        return process

    async def _answered(self, process: Process, request: dict[str, str]) -> bytes:
        """The process's answer; raises _Killed, PARSER_LIMIT or UNREADABLE_DOCUMENT where it has none to give."""
        stdin, stdout = _pipes(process)
        try:
            async with asyncio.timeout(self._limits.timeout_s + 1):
                stdin.write(json.dumps(request).encode() + b"\n")
                length = int.from_bytes(await stdout.readexactly(_LENGTH_BYTES))
                if length > self._limits.max_answer_bytes:
                    raise _limit("text")
                return await stdout.readexactly(length)
        except TimeoutError:
            raise _limit("time") from None
        except (asyncio.IncompleteReadError, OSError):
            if await process.wait() in _KILLED:
                raise _Killed from None
            raise _death(await process.wait()) from None


@asynccontextmanager
async def open_parser_processes(count: int, limits: ParserLimits) -> AsyncIterator[ParserProcesses]:
    """Parsers for `count` documents at once; their processes end with the body."""
    parsers = ParserProcesses(count, limits)
    try:
        yield parsers
    finally:
        await parsers.close()


def _pipes(process: Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without pipes")
    return process.stdin, process.stdout


def _held_bytes(process: Process) -> int:
    """The bytes of memory that the process holds; 0 where it has gone."""
    try:
        resident = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(resident) * resource.getpagesize()


async def _killed(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    # Cancelled or not, the process is reaped: a slot holds one at most.
    await asyncio.shield(asyncio.ensure_future(process.communicate()))


def _read_answer(answer: bytes) -> Extract:
    if not answer.startswith(_FAILURE):
        return Extract.model_validate_json(answer)
    read: dict[str, Any] = json.loads(answer)
    if read.get("detail"):
        logger.info("unreadable document: %s", read["detail"])
    raise Failure.model_validate(read["failure"]).error()


def _limit(name: str) -> MeshError:
    message = f"reading the document took more {name} than a parser may use"
    return ResourceExhausted("PARSER_LIMIT", message, metadata={"limit": name})


def _death(returncode: int) -> MeshError:
    """What a parser's death says of its document: native code that gets no memory aborts."""
    if returncode == -signal.SIGALRM:
        return _limit("time")
    if returncode == -signal.SIGABRT:
        return _limit("memory")
    return InvalidArgument("UNREADABLE_DOCUMENT", "the document crashes its parser")
