"""Common English words, which tell a text that is meant from one that is written in disguise.

The list is the vocabulary of whole words of BERT (Apache-2.0), the most frequent first.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from math import log

WORD = re.compile(r"[^\W\d_]+")
LONGEST = 18
"""Letters of a word that a run of letters is split into."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@cache
def load_ranks() -> dict[str, int]:
    """Load the words with their ranks, from 0 for the most frequent."""
    lines = (files("commonweight.guard.text") / "words.txt").read_text().split()
    return {word: rank for rank, word in enumerate(lines)}


def is_known(word: str) -> bool:
    """Whether a word is common, whatever its case."""
    return word.lower() in load_ranks()


def measure_known_share(text: str) -> float:
    """Measure the share of a text's letters that stand in common words."""
    words = WORD.findall(text)
    total = sum(map(len, words))
    return sum(len(word) for word in words if is_known(word)) / total if total else 0.0


def correct_word(word: str) -> str | None:
    """Correct an unknown word that is one slip away from a common one: two letters swapped, before any other."""
    ranks = load_ranks()
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)]
    for candidates in (swapped, _iter_edits(word) if len(word) > 3 else ()):
        known = [one for one in candidates if one in ranks]
        if known:
            return min(known, key=ranks.__getitem__)
    return None


def split_letters(letters: str) -> list[str]:
    """Split letters that are written without space into words, the most likely ones by rank."""
    ranks = load_ranks()
    # Zipf's law: a word's probability goes with one over its rank. What is unknown costs by the letter.
    scale = log(len(ranks))
    costs = [0.0]
    starts = [0]
    for end in range(1, len(letters) + 1):
        best, at = costs[end - 1] + 25.0, end - 1
        for start in range(max(0, end - LONGEST), end):
            rank = ranks.get(letters[start:end])
            if rank is not None and (cost := costs[start] + log(rank + 1) + log(scale)) < best:
                best, at = cost, start
        costs.append(best)
        starts.append(at)
    found, end = [], len(letters)
    while end:
        found.append(letters[starts[end] : end])
        end = starts[end]
    return found[::-1]


def _iter_edits(word: str) -> Iterator[str]:
    for i in range(len(word) + 1):
        before, after = word[:i], word[i:]
        if after:
            yield before + after[1:]
            yield from (before + letter + after[1:] for letter in _LETTERS)
        yield from (before + letter + after for letter in _LETTERS)
