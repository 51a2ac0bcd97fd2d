"""Reads what an OpenAI-compatible upstream streams, as deltas."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from generator_svc.engine import (
    UNKNOWN_TOKEN,
    Delta,
    FinishReason,
    Logprobs,
    Stage,
    TokenLogprob,
    Usage,
    Work,
    unsupported,
)
from generator_svc.openai_errors import broken_off, malformed

_MAX_LINE_BYTES = 16 * 1024 * 1024
_FIELDS = (b"event:", b"id:", b"retry:")


class EventReader:
    """Cuts what comes over the wire into the data of server-sent events, one JSON text each.

    Lines end with LF or CRLF and nothing else: a JSON text may well hold the line ends that Unicode knows besides.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The data of the events that this ends; raises Unavailable for what is no event."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            raise malformed()
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
            elif line.strip() and not line.startswith(b":") and not line.startswith(_FIELDS):
                raise malformed()


class Progress:
    """What one request has had so far; made when it is sent, lives as long as its stream."""

    def __init__(self, work: Work) -> None:
        self._request = work.request
        self._arrived_s = work.arrived_s
        self._began_s = time.monotonic()
        self._first_s = 0.0
        self._last_s = 0.0
        self._tokens = 0
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._usage: Usage | None = None
        # The last delta of a sequence waits for what follows: it may be the last of all, which tells the usage.
        self._held: Delta | None = None

    def deltas(self, chunk: Mapping[str, Any]) -> Iterator[Delta]:
        """The deltas in one chunk, none where it opens a message or tells the usage."""
        self._usage = _usage(chunk.get("usage")) or self._usage
        for choice in chunk.get("choices") or ():
            delta = self._delta(choice)
            if delta is None or self._all_finished:
                continue
            self._begun.add(delta.index)
            if self._held:
                yield self._held
                self._held = None
            if delta.finish:
                self._finished.add(delta.index)
                self._held = delta
            else:
                yield delta

    def end(self) -> Delta:
        """The last delta of all; raises Unavailable where a sequence has not ended."""
        if 0 < len(self._begun) < self._request.n and self._begun == self._finished:
            raise unsupported("n", f"the upstream made {len(self._begun)} of {self._request.n} sequences")
        if not self._all_finished or self._held is None:
            raise broken_off()
        # Only now it is known how many tokens there were where chunks do not tell theirs.
        missed = self._usage.completion_tokens - self._tokens if self._usage else 0
        tokens = max(self._held.tokens + missed, 0)
        return replace(self._held, tokens=tokens, usage=self._usage, stages=self._stages())

    @property
    def _all_finished(self) -> bool:
        return len(self._finished) == self._request.n

    def _delta(self, choice: Mapping[str, Any]) -> Delta | None:
        text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        token_ids = tuple(choice.get("token_ids") or ())
        logprobs = _logprobs(choice.get("logprobs"), token_ids, self._request.logprobs)
        finish = _finish(choice.get("finish_reason"))
        tokens = len(token_ids) or len(logprobs) or int(bool(text))
        if not tokens and not finish:
            return None
        self._last_s = time.monotonic()
        self._first_s = self._first_s or self._last_s
        self._tokens += tokens
        return Delta(text, tokens, choice.get("index", 0), token_ids, logprobs, finish)

    def _stages(self) -> tuple[Stage, ...]:
        """Seen from here: the queue is ours, and what the upstream's own is in the time to the first token."""
        first_s = self._first_s - self._arrived_s
        return (
            Stage("queue", 0.0, self._began_s - self._arrived_s),
            Stage("first_token", 0.0, first_s),
            Stage("decode", first_s, self._last_s - self._first_s),
        )


def _usage(usage: Mapping[str, Any] | None) -> Usage | None:
    if not usage:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(usage["prompt_tokens"], cached, usage.get("completion_tokens") or 0)


def _finish(reason: str | None) -> FinishReason | None:
    match reason:
        case None | "":
            return None
        case "length":
            return FinishReason.LENGTH
        case "abort" | "error":
            raise broken_off()
        case "content_filter":
            raise unsupported("input", "the upstream's content filter ended the answer")
        case _:
            # `stop`, or what an upstream calls it: `eos_token`, `stop_sequence`, `end_turn`.
            return FinishReason.STOP


def _logprobs(logprobs: Mapping[str, Any] | None, token_ids: Sequence[int], top: int) -> tuple[Logprobs, ...]:
    """From the form of chats or from that of completions; token ids are known where chunks tell them."""
    if not logprobs or not top:
        return ()
    if "tokens" in logprobs:
        positions = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"] or (), strict=False)
        read = [(text, logprob, list(ranked.items())) for text, logprob, ranked in positions]
    else:
        read = [
            (entry["token"], entry["logprob"], [(best["token"], best["logprob"]) for best in entry["top_logprobs"]])
            for entry in logprobs.get("content") or ()
        ]
    ids = token_ids if len(token_ids) == len(read) else [UNKNOWN_TOKEN] * len(read)
    return tuple(_position(id, *position, top) for id, position in zip(ids, read, strict=True))


def _position(id: int, text: str, logprob: float, ranked: Sequence[tuple[str, float]], top: int) -> Logprobs:
    drawn = TokenLogprob(id, text, logprob)
    best = sorted(ranked, key=lambda entry: -entry[1])[:top]
    same = (text, logprob)
    return Logprobs(drawn, [drawn if entry == same else TokenLogprob(UNKNOWN_TOKEN, *entry) for entry in best])
