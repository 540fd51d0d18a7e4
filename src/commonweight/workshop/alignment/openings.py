"""How much answers resemble each other where they begin."""

from collections import Counter
from collections.abc import Iterable

OPENING_WORDS = 8


def measure_commonest_opening(answers: Iterable[str]) -> float:
    """Share of the answers that begin with the commonest eight words, without regard to case; 0 without answers."""
    counts = Counter(" ".join(answer.casefold().split()[:OPENING_WORDS]) for answer in answers)
    return max(counts.values()) / counts.total() if counts else 0.0
