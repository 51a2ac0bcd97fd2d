"""Vectors as bytes, and the Matryoshka cut."""

import numpy as np
import pytest

from embedder_svc.packing import Width, cut, pack

RNG = np.random.default_rng(7)


def unit(rows: int, dimension: int) -> np.ndarray:
    """Random rows of unit length."""
    vectors = RNG.normal(size=(rows, dimension)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize(("width", "dtype"), [(Width.FLOAT32, "<f4"), (Width.FLOAT16, "<f2")])
def test_ieee_widths_read_back(width: Width, dtype: str) -> None:
    """float32 is exact and float16 what numpy rounds to, row after row."""
    vectors = unit(3, 8)
    read = np.frombuffer(pack(vectors, width), dtype=dtype).reshape(3, 8)
    assert np.array_equal(read, vectors.astype(dtype))


def test_bfloat16_is_the_nearest() -> None:
    """Each number is within half a step (2^-8) of the original, and ties go to the even neighbour."""
    vectors = unit(50, 64)
    halves = np.frombuffer(pack(vectors, Width.BFLOAT16), dtype="<u2").astype("<u4") << 16
    assert np.max(np.abs(halves.view("<f4").reshape(50, 64) - vectors) / np.abs(vectors)) <= 2**-8
    ties = np.array([[1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8]], dtype=np.float32)
    even = np.frombuffer(pack(ties, Width.BFLOAT16), dtype="<u2").astype("<u4") << 16
    assert even.view("<f4").tolist() == [1.0, 1 + 2**-6, -1.0]


def test_a_cut_is_of_unit_length_and_keeps_directions() -> None:
    """The first numbers in their proportions, and whole vectors as they are."""
    vectors = unit(5, 32)
    short = cut(vectors, 8)
    assert short.dtype == np.float32
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    assert np.allclose(short[:, 1] / short[:, 0], vectors[:, 1] / vectors[:, 0], rtol=1e-4)
    assert cut(vectors, 32) is vectors


def test_a_vector_that_begins_with_zeros_is_cut_to_zeros() -> None:
    """No direction is made up and no number is undefined."""
    assert cut(np.array([[0, 0, 1]], dtype=np.float32), 2).tolist() == [[0, 0]]
