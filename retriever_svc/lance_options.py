"""How LanceDB keeps a collection: when it makes an index of the vectors, which, and how hard that searches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

VectorIndex = Literal["auto", "flat", "ivf_sq", "ivf_rq"]


@dataclass(frozen=True, slots=True)
class LanceOptions:
    """Where the tables are and how they are kept.

    Below `index_rows` vectors are compared one by one. From then on an index of the kind `vector_index` finds them:
    `auto` is IVF with scalar quantization, and from `compressed_rows` on with one bit a dimension, which takes less
    memory. `probes` is how many of its lists a search reads; 0 lets each index find out how many it takes that the
    `recall` of the best ten is reached.
    """

    folder: Path
    vector_index: VectorIndex = "auto"
    index_rows: int = 10_000
    compressed_rows: int = 2_000_000
    probes: int = 0
    recall: float = 0.98
    read_timeout_s: float = 10.0
    upkeep_interval_s: float = 1.0
    cache_bytes: int = 1024 * 1024 * 1024
    max_open_tables: int = 256
    sync: bool = True

    def kind(self, rows: int) -> Literal["flat", "ivf_sq", "ivf_rq"]:
        """The kind of index for so many rows."""
        if rows < self.index_rows:
            return "flat"
        if self.vector_index != "auto":
            return self.vector_index
        return "ivf_rq" if rows >= self.compressed_rows else "ivf_sq"
