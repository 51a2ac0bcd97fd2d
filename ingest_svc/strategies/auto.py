"""The choice of a strategy for each document, by its kind and content."""

from typing import Any

from pydantic import Field

from ingest_svc.chunking import Choice, Chunking, Parameters
from ingest_svc.extract import Extract
from ingest_svc.recommending import recommend

# What a recommendation looks at of a text.
_SAMPLE_CHARS = 16 * 1024


class AutoParameters(Parameters):
    """What is known beside the document."""

    max_tokens: int | None = Field(
        None, ge=16, le=8192, description="Most tokens in a chunk; null for as many as suit the use."
    )
    use_case: str = Field("", max_length=4096, description="What the collection is for, in words.")


class AutoChooser:
    """The default: recommends for each document, by the rules that RecommendChunkingStrategy goes by."""

    name = "auto"
    description = "Chooses a strategy for each document, by its kind, its content and what the collection is for."
    parameters = AutoParameters

    def choose(self, extract: Extract, parameters: Any) -> Choice:
        """What is recommended for such a document."""
        choice = recommend(extract.media_type, extract.text[:_SAMPLE_CHARS], parameters.use_case)
        found = choice.chunking
        bounded = Chunking(strategy=found.strategy, parameters=_bounded(found.parameters, parameters.max_tokens))
        return Choice(bounded, choice.rationale)


def _bounded(found: dict[str, Any], max_tokens: int | None) -> dict[str, Any]:
    """The parameters with that many tokens at most, and no more overlap than strategies take."""
    if max_tokens is None:
        return found
    return {**found, "max_tokens": max_tokens, "overlap_tokens": min(found["overlap_tokens"], max_tokens // 2)}
