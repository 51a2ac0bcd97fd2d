"""What the embedding benchmark rests on."""

from pathlib import Path

import numpy as np

from bench.embed import least_cosine
from bench.embed_texts import MAX_TOKENS, open_texts
from bench.embed_worker import BATCH_TOKENS, PADDING_TOKENS, batches
from embedder_svc import weights

TOKENIZER = Path(weights.locate(weights.BUNDLED_MODEL)) / "tokenizer.json"


def test_batches_hold_every_text_once_within_their_bounds() -> None:
    """Every place is in one batch; a batch keeps to its tokens and its padding, unless it is a text alone."""
    tokens = np.random.default_rng(0).integers(1, 3000, size=500).tolist()
    cut = list(batches(tokens))
    assert sorted(place for batch in cut for place in batch) == list(range(500))
    for batch in cut:
        padded = max(tokens[place] for place in batch) * len(batch)
        assert len(batch) == 1 or padded <= BATCH_TOKENS
        assert padded - sum(tokens[place] for place in batch) <= PADDING_TOKENS


def test_made_up_texts_are_cut_below_the_limit_and_come_again_by_their_seed(tmp_path: Path) -> None:
    """Without a corpus texts are made up: the same for the same seed, and none longer than the subjects read alike."""
    texts, again = open_texts(tmp_path, TOKENIZER, 1), open_texts(tmp_path, TOKENIZER, 1)
    passages = texts.passages(20)
    assert passages == again.passages(20)
    assert max(texts.tokens([passage]) for passage in passages) <= MAX_TOKENS
    assert open_texts(tmp_path, TOKENIZER, 2).questions(3) != again.questions(3)


def test_the_least_cosine_is_that_of_the_worst_row() -> None:
    """One turned row among equal ones shows, whatever its length."""
    rows = np.eye(3, dtype=np.float32)
    others = rows * 2
    others[1] = [0, 3, 4]
    assert round(least_cosine(rows, others), 6) == 0.6
