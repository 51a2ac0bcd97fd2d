"""Vectors as bytes: little-endian, row after row, in one of three widths; and the Matryoshka cut."""

from enum import Enum

import numpy as np

from embedder_svc.encoding import Vectors


class Width(Enum):
    """How a number is stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


def pack(vectors: Vectors, width: Width) -> bytes:
    """The numbers of an array [n, dimension], rounded to the nearest that the width can hold."""
    if width is Width.FLOAT32:
        return vectors.astype("<f4").tobytes()
    if width is Width.FLOAT16:
        return vectors.astype("<f2").tobytes()
    return _bfloat16(vectors)


def _bfloat16(vectors: Vectors) -> bytes:
    """The upper halves, rounded to nearest and ties to even, as hardware does; for finite numbers."""
    bits = vectors.astype("<f4").view("<u4")
    tie = (bits >> 16) & 1
    halves = (bits + 0x7FFF + tie) >> 16
    return bytes(halves.astype("<u2").tobytes())


def cut(vectors: Vectors, dimension: int) -> Vectors:
    """The first numbers of each row, of unit length again (Matryoshka representations, arXiv 2205.13147)."""
    if dimension == vectors.shape[1]:
        return vectors
    first = vectors[:, :dimension]
    norms = np.linalg.norm(first, axis=1, keepdims=True)
    return np.asarray(first / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)
