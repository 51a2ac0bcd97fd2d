"""Reads what vLLM gives, output by output, as deltas."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from generator_svc.engine import Delta, FinishReason, Logprobs, Stage, TokenLogprob, Usage, Work
from meshkit.errors import Unavailable

_FINISHES = {None: None, "stop": FinishReason.STOP, "length": FinishReason.LENGTH}


def engine_unavailable(_error: Exception | None = None) -> Unavailable:
    """The error when vLLM's engine has died, or dies."""
    return Unavailable("ENGINE_UNAVAILABLE", "the engine died or is going down")


class Progress:
    """What one request has had so far; lives as long as its stream."""

    def __init__(self, work: Work) -> None:
        self._top = work.request.logprobs
        self._arrived_s = work.arrived_s
        self._first_s = 0.0
        self._completion_tokens = 0

    def deltas(self, output: Any) -> Iterator[Delta]:
        """The deltas in one output of vLLM, which has one of each sequence that went on."""
        self._first_s = self._first_s or time.monotonic()
        for place, sequence in enumerate(output.outputs, 1):
            self._completion_tokens += len(sequence.token_ids)
            last = output.finished and place == len(output.outputs)
            yield Delta(
                sequence.text,
                tokens=len(sequence.token_ids),
                index=sequence.index,
                token_ids=tuple(sequence.token_ids),
                logprobs=_logprobs(sequence, self._top),
                finish=_finish(sequence.finish_reason),
                usage=self._usage(output) if last else None,
                stages=self._stages(output) if last else (),
            )

    def _usage(self, output: Any) -> Usage:
        return Usage(len(output.prompt_token_ids or ()), output.num_cached_tokens or 0, self._completion_tokens)

    def _stages(self, output: Any) -> tuple[Stage, ...]:
        """From the engine's own times, which are of the same clock as `time.monotonic`."""
        times = output.metrics
        first_token = Stage("first_token", 0.0, self._first_s - self._arrived_s)
        if times is None:
            return (first_token,)
        return (
            first_token,
            self._stage("queue", self._arrived_s, times.scheduled_ts),
            self._stage("prefill", times.scheduled_ts, times.first_token_ts),
            self._stage("decode", times.first_token_ts, times.last_token_ts),
        )

    def _stage(self, name: str, start_s: float, end_s: float) -> Stage:
        return Stage(name, max(start_s - self._arrived_s, 0.0), max(end_s - start_s, 0.0))


def _finish(reason: str | None) -> FinishReason | None:
    if reason not in _FINISHES:
        # `abort` or `error`: nobody here asked for it, so the engine is going down.
        raise engine_unavailable()
    return _FINISHES[reason]


def _logprobs(sequence: Any, top: int) -> Sequence[Logprobs]:
    positions = zip(sequence.token_ids, sequence.logprobs or (), strict=False)
    return tuple(_position(token_id, ranked, top) for token_id, ranked in positions)


def _position(token_id: int, ranked: Mapping[int, Any], top: int) -> Logprobs:
    """The token drawn stands among or beside the likeliest ones, which are in no order."""
    tokens = {id: TokenLogprob(id, entry.decoded_token or "", entry.logprob) for id, entry in ranked.items()}
    best = sorted(tokens.values(), key=lambda token: -token.logprob)
    return Logprobs(tokens[token_id], best[:top])
