"""Duplicates: rows that equal an earlier one, and rows that are much like an earlier one."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from commonweight.workshop.data.rows import Content, DataError
from commonweight.workshop.data.words import Hashes, WordHasher, hash_sequences, hash_text, hash_whole, join_words

MOST_NEAR_ROWS = 200_000
"""Rows that are compared for near-duplicates: 512 bytes of memory each."""
SHINGLE_WORDS = 5
"""Length of the word sequences that two rows are compared by."""

_PERMUTATIONS = 128
_BANDS = 32
_BAND_ROWS = _PERMUTATIONS // _BANDS
_CHUNK = 2048
_MULTIPLIER = 0x9E3779B97F4A7C15


class ExactDuplicates:
    """Finds rows that equal an earlier one but for white space and case; a hash of each takes about 80 bytes."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def is_duplicate(self, content: Content) -> bool:
        """Whether an earlier row equals this one; remembers it."""
        parts = [content.kind, content.text or ""]
        for messages in (content.messages, content.chosen, content.rejected):
            parts.append("\1")
            for message in messages or ():
                parts += (message.role, message.content)
        key = hash_text("\0".join(" ".join(part.split()).casefold() for part in parts))
        if key in self._seen:
            return True
        self._seen.add(key)
        return False


class NearDuplicates:
    """Finds rows that share most of their five-word sequences with an earlier one (MinHash with banding).

    Two rows' signatures agree in about the share of sequences that they have in common. Rows that share a band of
    the signature are compared; groups of rows that are alike keep their first.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._words = WordHasher()
        # Of hashes, since they are the same in every version of every library; factors are odd.
        self._factors = np.array([hash_text(f"factor {n}") | 1 for n in range(_PERMUTATIONS)], np.uint64)
        self._terms = np.array([hash_text(f"term {n}") for n in range(_PERMUTATIONS)], np.uint64)
        self._signatures: list[npt.NDArray[np.uint32]] = []
        self._rows: list[int] = []

    def add(self, row: int, content: Content) -> None:
        """Remember the signature of a row, by its number. Rows without words are not compared."""
        texts = [content.text or "", *(message.content for message in content.list_messages())]
        words = join_words([self._words.hash_words(text) for text in texts])
        if not len(words):
            return
        require_near_rows(len(self._rows) + 1)
        shingles = hash_sequences(words, SHINGLE_WORDS)
        if not len(shingles):
            shingles = np.array([hash_whole(words)], np.uint64)
        self._signatures.append(self._sign(np.unique(shingles)))
        self._rows.append(row)

    def find(self) -> list[int]:
        """Numbers of the rows that are much like an earlier one, ascending."""
        if not self._rows:
            return []
        signatures = np.stack(self._signatures)
        leaders = list(range(len(self._rows)))
        for one, other in _list_candidates(signatures):
            first, second = _find_leader(leaders, one), _find_leader(leaders, other)
            if first != second and np.mean(signatures[one] == signatures[other]) >= self._similarity:
                leaders[max(first, second)] = min(first, second)
        return [row for number, row in enumerate(self._rows) if leaders[number] != number]

    def _sign(self, shingles: Hashes) -> npt.NDArray[np.uint32]:
        lowest = np.full(_PERMUTATIONS, np.iinfo(np.uint32).max, np.uint32)
        for start in range(0, len(shingles), _CHUNK):
            chunk = shingles[start : start + _CHUNK, None]
            values = (chunk * self._factors + self._terms) >> np.uint64(32)
            np.minimum(lowest, values.min(axis=0).astype(np.uint32), out=lowest)
        return lowest


def require_near_rows(rows: int) -> None:
    """Stop where there are more rows than are compared.

    Raises:
        DataError: says the number and what to do.
    """
    if rows > MOST_NEAR_ROWS:
        raise DataError(
            f"Near-duplicates are looked for in at most {MOST_NEAR_ROWS:,} rows, and here are {rows:,}: set "
            "near_duplicates to false, or filter smaller parts and mix what is left of them."
        )


def _list_candidates(signatures: npt.NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Pairs of rows that share a band: each with the first and with the one before it that has this band."""
    for band in range(_BANDS):
        first, *others = signatures[:, band * _BAND_ROWS : (band + 1) * _BAND_ROWS].astype(np.uint64).T
        keys = first
        for column in others:
            keys = keys * np.uint64(_MULTIPLIER) + column
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        is_first = np.r_[True, ordered[1:] != ordered[:-1]]
        starts = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
        members = np.flatnonzero(~is_first)
        for member, start in zip(members.tolist(), starts[members].tolist(), strict=True):
            number = int(order[member])
            yield int(order[start]), number
            if member - 1 != start:
                yield int(order[member - 1]), number


def _find_leader(leaders: list[int], number: int) -> int:
    while leaders[number] != number:
        leaders[number] = leaders[leaders[number]]
        number = leaders[number]
    return number
