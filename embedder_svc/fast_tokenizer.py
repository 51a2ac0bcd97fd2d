"""The adapter to the tokenizers library."""

from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer

from embedder_svc.encoding import Length


class FastTokenizer:
    """A model's tokenizer, copied without truncation and padding; nothing to close.

    The copy is never changed, so threads may share it, beside the one in which the model uses the original.
    """

    def __init__(self, original: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_str(original.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens

    def lengths(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Length]:
        """The length of each text or pair as the model reads it: special tokens counted, cut at the limit."""
        return [self._length(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def char_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text the character after each token's last one; special tokens are not counted."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[end for _, end in encoding.offsets] for encoding in encodings]

    def _length(self, encoding: Encoding) -> Length:
        return Length(min(len(encoding), self._max_tokens), len(encoding) > self._max_tokens)
