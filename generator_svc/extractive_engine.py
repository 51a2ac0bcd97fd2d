"""The engine without a language model: it quotes the sentences that best support an answer."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Iterator, Sequence

from generator_svc.engine import (
    Card,
    Chat,
    Delta,
    EngineKind,
    FinishReason,
    Grounded,
    Prompt,
    Request,
    Stage,
    Usage,
    Work,
    unsupported,
)
from generator_svc.evidence import Candidate, Encoder, choose, weigh, weigh_again
from generator_svc.terms import is_dense
from meshkit.errors import MeshError

logger = logging.getLogger(__name__)

_DESCRIPTION = (
    "No language model: it quotes, word for word, the sentences of the given passages that best support an answer, "
    "and says nothing where none does. Its tokens are words."
)
# All words are there at once, and each message takes 0.1 ms in every process on its way.
_WORDS_A_DELTA = 8
# A word with the space before it; Chinese and Japanese, which have none, sign by sign.
_WORD = re.compile(r"\s*(?:[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+)")


class ExtractiveEngine:
    """Quotes from the passages it is given; holds nothing between requests, so there is nothing to close.

    With an encoder it compares the `encoder_candidates` best quotes, by their words, with the question by meaning too.
    """

    def __init__(
        self, model: str, min_support: float, encoder: Encoder | None = None, encoder_candidates: int = 6
    ) -> None:
        self.card = Card(model, EngineKind.EXTRACTIVE, "extractive", _DESCRIPTION)
        self.cache_use = 0.0
        self._min_support = min_support
        self._encoder = encoder
        self._encoder_candidates = encoder_candidates

    async def prepare(self, request: Request) -> Work:
        """The request as it is; raises InvalidArgument for what only a language model does."""
        return Work(request, time.monotonic(), payload=_grounded(request))

    async def generate(self, work: Work) -> AsyncGenerator[Delta, None]:
        """The quotes, some words at a time, each followed by its passage's number as `[n]`; none where it abstains."""
        request, arrived_s = work.request, work.arrived_s
        given: Grounded = work.payload
        began_s = time.monotonic()
        chosen = choose(await self._ranked(given), self._min_support)
        weighed_s = time.monotonic()
        words = _words(_cut(_answer(chosen), request.stop))
        kept = words[: request.max_tokens or len(words)]
        *parts, last = _parted(kept)
        for part in parts:
            yield Delta("".join(part), tokens=len(part))
            # The words are there at once: without this a reader who keeps up would get them in one turn of the loop.
            await asyncio.sleep(0)
        ended_s = time.monotonic()
        yield Delta(
            "".join(last),
            tokens=len(last),
            finish=_finish(chosen, complete=len(kept) == len(words)),
            usage=Usage(_prompt_words(given), 0, len(kept)),
            stages=(
                Stage("queue", 0.0, began_s - arrived_s),
                Stage("prefill", began_s - arrived_s, weighed_s - began_s),
                Stage("first_token", 0.0, weighed_s - arrived_s),
                Stage("decode", weighed_s - arrived_s, ended_s - weighed_s),
            ),
        )

    async def count_tokens(self, given: Chat | Prompt) -> int:
        """Raises InvalidArgument: it takes neither form."""
        raise unsupported(_form(given), "this engine has no tokens")

    async def check(self) -> None:
        """It is always ready."""

    async def _ranked(self, given: Grounded) -> Sequence[Candidate]:
        """The quotes by words and meaning; by words alone where the encoder fails, or was made for other scripts."""
        ranked = await asyncio.to_thread(weigh, given.question, given.passages)
        if not (self._encoder and ranked) or is_dense(given.question):
            return ranked
        best = ranked[: self._encoder_candidates]
        try:
            similarities = await self._encoder.similarities(
                given.question, [candidate.measured.text_in_context for candidate in best]
            )
        except MeshError as error:
            logger.info("quotes are chosen by words alone: %s", error)
            return ranked
        return weigh_again(best, similarities)


def _grounded(request: Request) -> Grounded:
    """The question and its passages; raises InvalidArgument for what only a language model does."""
    if not isinstance(request.input, Grounded):
        raise unsupported(_form(request.input), "this engine answers from passages: use `grounded`")
    refused = {
        "structured_output": request.form is not None,
        "logprobs": request.logprobs > 0,
        "n": request.n > 1,
        "stop_token_ids": bool(request.stop_token_ids),
        "ignore_eos": request.ignore_eos,
        "lora_adapter": bool(request.lora_adapter),
    }
    for option, given in refused.items():
        if given:
            raise unsupported(option, "this engine is no language model")
    return request.input


def _form(given: Chat | Prompt) -> str:
    return "chat" if isinstance(given, Chat) else "prompt"


def _answer(chosen: Sequence[Candidate]) -> str:
    return "".join(_cited(chosen))


def _cited(chosen: Sequence[Candidate]) -> Iterator[str]:
    """Each quote with its marker; code stands alone, so that its fences stay at the beginning of their lines."""
    after_code = False
    for place, candidate in enumerate(chosen):
        if place:
            yield "\n\n" if after_code or candidate.quote.is_code else " "
        after_code = candidate.quote.is_code
        gap = "\n" if after_code else " "
        yield f"{candidate.quote.text}{gap}[{candidate.passage.number}]"


def _cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop texts."""
    return text[: min((at for word in stop if (at := text.find(word)) >= 0), default=len(text))]


def _words(text: str) -> list[str]:
    """The text in words, each with the space before it."""
    return _WORD.findall(text)


def _parted(words: Sequence[str]) -> list[Sequence[str]]:
    """The first word by itself and the others by some, one part at least."""
    return [words[:1], *(words[at : at + _WORDS_A_DELTA] for at in range(1, len(words), _WORDS_A_DELTA))]


def _finish(chosen: Sequence[Candidate], *, complete: bool) -> FinishReason:
    if not chosen:
        return FinishReason.ABSTAINED
    return FinishReason.STOP if complete else FinishReason.LENGTH


def _prompt_words(given: Grounded) -> int:
    texts = (given.question, *(passage.text for passage in given.passages))
    return sum(len(text.split()) for text in texts)
