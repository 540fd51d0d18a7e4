"""Sequences of words in answers: how many begin alike, and how much of one repeats itself."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

OPENING_WORDS = 8
"""Words of an opening."""
REPEATED_WORDS = 4
"""Words of a sequence that is looked for again in the same answer."""
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


def list_words(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def measure_openings(texts: Iterable[str]) -> tuple[int, float]:
    """How many texts have the most frequent opening, and their share of all."""
    openings = Counter(tuple(list_words(text)[:OPENING_WORDS]) for text in texts)
    most = max(openings.values(), default=0)
    return most, most / max(1, openings.total())


def measure_repetition(words: Sequence[str]) -> float:
    """The share of an answer's word sequences that repeat earlier ones; 0 for very short answers."""
    count = len(words) - REPEATED_WORDS + 1
    if count <= 0:
        return 0.0
    distinct = len({tuple(words[start : start + REPEATED_WORDS]) for start in range(count)})
    return 1 - distinct / count
