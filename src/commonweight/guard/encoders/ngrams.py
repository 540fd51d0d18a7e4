"""Hashed character n-grams: features of texts that cost about a millisecond."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from commonweight.guard.encoders.arrays import Floats

BUCKETS = 1 << 14
SIZES = (3, 4, 5)
"""Characters of a gram."""
MAX_CHARACTERS = 8000
_FACTOR = np.uint32(0x01000193)  # FNV's prime
_OFFSET = np.uint32(0x811C9DC5)


def hash_ngrams(text: str) -> tuple[npt.NDArray[np.int64], Floats]:
    """Hash a text's n-grams into buckets with weights ``1 + log(count)``, normalised to unit length.

    Case does not count, and runs of space are one.
    """
    letters = np.frombuffer(
        (" " + " ".join(text[:MAX_CHARACTERS].lower().split()) + " ").encode("utf-32-le", "replace"), "<u4"
    )
    found = []
    for size in SIZES:
        if len(letters) < size:
            continue
        code = np.full(len(letters) - size + 1, _OFFSET + np.uint32(size), np.uint32)
        for i in range(size):
            code = (code ^ letters[i : len(letters) - size + 1 + i]) * _FACTOR
        # The low bits of FNV depend on the low bits of the letters alone.
        found.append((code ^ (code >> np.uint32(15))) % np.uint32(BUCKETS))
    buckets, counts = np.unique(np.concatenate(found), return_counts=True) if found else (np.zeros(0), np.zeros(0))
    weights = (1 + np.log(counts)).astype(np.float32) if len(counts) else np.zeros(0, np.float32)
    length = float(np.linalg.norm(weights)) or 1.0
    return buckets.astype(np.int64), weights / np.float32(length)


def build_sparse_rows(texts: Sequence[str]) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Build the three arrays of a compressed sparse row matrix of texts: data, indices, row pointers."""
    rows = [hash_ngrams(text) for text in texts]
    pointers = np.cumsum([0, *(len(buckets) for buckets, _ in rows)])
    if not rows:
        return np.zeros(0, np.float32), np.zeros(0, np.int64), pointers
    return np.concatenate([w for _, w in rows]), np.concatenate([b for b, _ in rows]), pointers
