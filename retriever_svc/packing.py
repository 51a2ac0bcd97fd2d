"""Vectors from bytes: little-endian, row after row, in one of three widths."""

from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Width(Enum):
    """How a number is stored."""

    FLOAT32 = "<f4"
    FLOAT16 = "<f2"
    BFLOAT16 = "<u2"  # the upper half of a binary32, which numpy has no name for


def unpack(data: bytes, width: Width, dimension: int, count: int) -> NDArray[np.float32]:
    """The vectors as an array [count, dimension].

    Raises ValueError, in words for the caller, where the bytes are not as many or a number is not finite.
    """
    stored = np.dtype(width.value)
    expected = count * dimension * stored.itemsize
    if len(data) != expected:
        raise ValueError(f"{count} vectors of {dimension} numbers are {expected} bytes, not {len(data)}")
    numbers = np.frombuffer(data, stored)
    if width is Width.BFLOAT16:
        numbers = (numbers.astype("<u4") << 16).view("<f4")
    # Half of a float32 holds no more than it does, so a number that is not finite was not one before.
    vectors = numbers.astype(np.float32).reshape(count, dimension)
    if not np.isfinite(vectors).all():
        raise ValueError("not every number is finite")
    return vectors
