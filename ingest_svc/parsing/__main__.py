"""A parser's process: reads a file for each line on stdin and answers on stdout, until stdin ends."""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import BinaryIO

from ingest_svc.extract import Source
from ingest_svc.failure import Failure
from ingest_svc.parsing.reading import read
from meshkit.errors import InvalidArgument, MeshError, ResourceExhausted

_LENGTH_BYTES = 8


def main(timeout_s: float, max_memory_bytes: int, max_text_bytes: int) -> None:
    """Answer each request with the length and the JSON of an Extract, or of a Failure and its detail."""
    answers = _own_stdout()
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(answers, b"\n")
    for line in sys.stdin.buffer:
        # The kernel ends a process that does not come back, even one whose parent has died.
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        answer = _answer(json.loads(line), max_text_bytes)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, len(answer).to_bytes(_LENGTH_BYTES) + answer)


def _own_stdout() -> BinaryIO:
    """The real stdout, for answers only: native parsers print on what they take for it."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _send(answers: BinaryIO, data: bytes) -> None:
    answers.write(data)
    answers.flush()


def _answer(request: dict[str, str], max_text_bytes: int) -> bytes:
    try:
        data = Path(request["file"]).read_bytes()
        source = Source(data, request["uri"], request["password"], request["ocr_languages"])
        return read(source, max_text_bytes).model_dump_json().encode()
    except MeshError as error:
        return _failure(error, repr(error.__cause__) if error.__cause__ else "")
    except MemoryError:
        message = "reading the document took more memory than a parser may use"
        return _failure(ResourceExhausted("PARSER_LIMIT", message, metadata={"limit": "memory"}))
    except Exception as error:  # noqa: BLE001 - whatever it is, the document is to blame
        return _failure(InvalidArgument("UNREADABLE_DOCUMENT", "the document is broken"), repr(error))


def _failure(error: MeshError, detail: str = "") -> bytes:
    return json.dumps({"failure": Failure.of(error).model_dump(), "detail": detail[:1000]}).encode()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
