"""Words and sequences of words as 64-bit hashes: what duplicates and contamination are found by."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

# Scripts that are written without spaces: Thai, Lao, Burmese, Khmer, kana and ideographs.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[^\W{_UNSPACED}]+|[{_UNSPACED}]")
_MULTIPLIER = 0x9E3779B97F4A7C15
_MOST_CACHED = 500_000


class WordHasher:
    """Splits texts into words, without regard to case, punctuation and encoding of accents, and hashes these.

    In scripts without spaces each character is a word.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def hash_words(self, text: str) -> Hashes:
        """One hash a word, in order."""
        words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
        if len(self._known) > _MOST_CACHED:
            self._known.clear()
        known = self._known
        for word in words:
            if word not in known:
                known[word] = hash_text(word)
        return np.fromiter((known[word] for word in words), np.uint64, len(words))


def hash_text(text: str) -> int:
    """64 bits of a cryptographic hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hash_sequences(words: Hashes, length: int) -> Hashes:
    """One hash for each run of so many words; none where there are fewer words."""
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    multiplier = np.uint64(_MULTIPLIER)
    for offset in range(length):  # wraps around at 64 bits
        total *= multiplier
        total += words[offset : offset + count]
    return _scramble(total)


def hash_whole(words: Hashes) -> int:
    """One hash for all words together."""
    return int(hash_sequences(words, len(words))[0]) if len(words) else 0


def join_words(parts: Sequence[Hashes]) -> Hashes:
    """The words of several texts, one after another."""
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _scramble(values: Hashes) -> Hashes:
    """Spread every bit over all (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
