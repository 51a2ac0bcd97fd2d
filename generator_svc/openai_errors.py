"""What an OpenAI-compatible upstream refuses or fails at, as our errors."""

import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json

from generator_svc.engine import Prompt, Request, unsupported
from generator_svc.openai_requests import EXTENSIONS
from meshkit.errors import InvalidArgument, MeshError, ResourceExhausted, Unavailable, invalid

logger = logging.getLogger(__name__)

_MAX_WORDS = 500
_MAX_RETRY_AFTER_S = 3600.0
_RETRY_AFTER_S = 1.0
_TOO_LONG = re.compile(r"context (?:length|size|window)|context_(?:length|size)|max_model_len", re.IGNORECASE)
_NOT_KNOWN = re.compile(r"unrecogni[sz]ed|unknown|unsupported|not (?:supported|permitted|allowed)|unexpected|extra")
_LIMIT_TOKENS = re.compile(r"(?:maximum context length is|max_model_len=)\s*(\d+)")
_PROMPT_TOKENS = re.compile(r"(\d+) (?:input tokens|in the messages|in your prompt)|resulted in (\d+) tokens")
# How OpenAI and its likes call what HTTP has numbers for, where an error comes in mid-stream.
_STATUSES = {
    "BadRequestError": HTTPStatus.BAD_REQUEST,
    "invalid_request_error": HTTPStatus.BAD_REQUEST,
    "rate_limit_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
    "insufficient_quota": HTTPStatus.TOO_MANY_REQUESTS,
    "tokens": HTTPStatus.TOO_MANY_REQUESTS,
    "requests": HTTPStatus.TOO_MANY_REQUESTS,
}


def engine_unavailable(why: str) -> Unavailable:
    """The error when the upstream does not do its part; the words hold nothing that it said."""
    return Unavailable("ENGINE_UNAVAILABLE", why)


def overloaded(why: str, retry_after_s: float = _RETRY_AFTER_S) -> ResourceExhausted:
    """The error when the upstream, or the way to it, takes no more."""
    return ResourceExhausted("OVERLOADED", why, retry_after_s=retry_after_s)


def broken_off() -> Unavailable:
    """The error when a stream has no proper end."""
    return engine_unavailable("the upstream's stream broke off")


def malformed() -> Unavailable:
    """The error when the upstream sends what no OpenAI-compatible server would."""
    return engine_unavailable("the upstream sent what cannot be read")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as the upstream put it: HTTP's status, its words, and the kind, field and numbers it may name."""

    status: int
    words: str
    kind: str = ""
    field: str = ""
    retry_after_s: float = _RETRY_AFTER_S
    prompt_tokens: int = 0
    max_model_tokens: int = 0

    @property
    def too_long(self) -> bool:
        """Whether it is for the length of the prompt, or of prompt and output together."""
        refused = self.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return refused and bool(_TOO_LONG.search(f"{self.kind} {self.words}"))


def read_refusal(status: int, content: bytes, retry_after: str, secret: str) -> Refusal:
    """The refusal in a response; `secret` is taken out of its words."""
    try:
        error = from_json(content)
    except ValueError:
        error = content.decode(errors="replace")
    given = error.get("error", error) if isinstance(error, dict) else error
    return _refusal(status, given, _seconds(retry_after), secret)


def read_error(error: object, secret: str) -> Refusal:
    """The refusal in the `error` of a stream that had begun well."""
    given = error if isinstance(error, dict) else {}
    code = str(given.get("code") or "")
    named = _STATUSES.get(code) or _STATUSES.get(str(given.get("type"))) or HTTPStatus.INTERNAL_SERVER_ERROR
    return _refusal(int(code) if code.isdecimal() else named, error, _RETRY_AFTER_S, secret)


def _refusal(status: int, error: object, retry_after_s: float, secret: str) -> Refusal:
    given: Mapping[str, Any] = error if isinstance(error, dict) else {"message": error}
    said = str(given.get("message") or given.get("detail") or "")
    words = (said.replace(secret, "***") if secret else said)[:_MAX_WORDS]
    return Refusal(
        status=status,
        words=words,
        kind=f"{given.get('type') or ''} {given.get('code') or ''}",
        field=str(given.get("param") or ""),
        retry_after_s=retry_after_s,
        prompt_tokens=_number(given.get("n_prompt_tokens")) or _found(_PROMPT_TOKENS, words),
        max_model_tokens=_number(given.get("n_ctx")) or _found(_LIMIT_TOKENS, words),
    )


def to_error(refusal: Refusal, request: Request) -> MeshError:
    """The error for a refusal of the request; what is the operator's to mend is logged, and not told."""
    match refusal.status:
        case HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY | HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return _wrong(refusal, request)
        case HTTPStatus.NOT_FOUND if isinstance(request.input, Prompt) and "model" not in refusal.words.lower():
            return unsupported("prompt", "the upstream takes chats only")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return overloaded("the upstream takes no more now", refusal.retry_after_s)
    return failure(refusal)


def failure(refusal: Refusal) -> Unavailable:
    """The error for a refusal that no request is to blame for."""
    logger.error("the upstream answered %d: %s", refusal.status, refusal.words)
    if refusal.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return engine_unavailable("the upstream does not accept this server's key")
    return engine_unavailable(f"the upstream answered {refusal.status}")


def _wrong(refusal: Refusal, request: Request) -> InvalidArgument:
    if refusal.too_long:
        return _too_long(refusal, request)
    for name, option in EXTENSIONS.items():
        named = name == refusal.field or re.search(rf"\b{name}\b", refusal.words)
        if named and _NOT_KNOWN.search(refusal.words.lower()):
            return unsupported(option, refusal.words)
    blamed = "structured_output" if request.form else "sampling"
    return invalid(refusal.field or blamed, refusal.words or "refused by the upstream")


def _too_long(refusal: Refusal, request: Request) -> InvalidArgument:
    numbers = {
        "prompt_tokens": refusal.prompt_tokens,
        "max_tokens": request.max_tokens,
        "max_model_tokens": refusal.max_model_tokens,
    }
    known = {name: str(number) for name, number in numbers.items() if number}
    return InvalidArgument("PROMPT_TOO_LONG", refusal.words, metadata=known)


def _seconds(retry_after: str) -> float:
    """What Retry-After says, in seconds from now; it may be a number or a date."""
    seconds = _RETRY_AFTER_S
    with suppress(ValueError):
        dated = not retry_after.replace(".", "", 1).isdecimal()
        seconds = parsedate_to_datetime(retry_after).timestamp() - time.time() if dated else float(retry_after)
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _found(pattern: re.Pattern[str], words: str) -> int:
    match = pattern.search(words)
    return int(next(group for group in match.groups() if group)) if match else 0
