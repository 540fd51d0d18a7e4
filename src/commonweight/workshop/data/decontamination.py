"""Decontamination: training rows that share text with an evaluation set."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from commonweight.workshop.data.rows import Content, Row
from commonweight.workshop.data.words import Hashes, WordHasher, hash_sequences, hash_whole

NGRAM_WORDS = 13
"""Words in a row that two texts share only if one has it from the other, or both from a third."""


@dataclass(frozen=True)
class _EvaluationSet:
    sequences: Hashes
    """Of every 13 words in a row, sorted."""
    short_texts: frozenset[int]
    """Of whole texts that have fewer words."""


class Decontaminator:
    """Finds rows that share 13 words in a row with an evaluation set, whatever their case and punctuation.

    Shorter texts are compared whole: plain texts, and the first message of the user in a conversation (an answer
    such as "Yes" is no trace of an evaluation set). System messages of evaluation sets are not compared, since
    many sets share one; those of training rows are.
    """

    def __init__(self) -> None:
        self._words = WordHasher()
        self._sets: dict[str, _EvaluationSet] = {}

    def add_evaluation_set(self, rows: Iterable[Row]) -> None:
        """Read an evaluation set; rows of several sources count as several sets."""
        sequences: dict[str, list[Hashes]] = {}
        short: dict[str, set[int]] = {}
        for row in rows:
            found = sequences.setdefault(row.source, [])
            for text, is_whole in _list_texts(row.content):
                words = self._words.hash_words(text)
                if len(words) >= NGRAM_WORDS:
                    found.append(hash_sequences(words, NGRAM_WORDS))
                elif is_whole and len(words):
                    short.setdefault(row.source, set()).add(hash_whole(words))
        for name, parts in sequences.items():
            known = self._sets.get(name, _EvaluationSet(np.empty(0, np.uint64), frozenset()))
            self._sets[name] = _EvaluationSet(
                np.unique(np.concatenate([known.sequences, *parts])),
                known.short_texts | short.get(name, set()),
            )

    @property
    def names(self) -> list[str]:
        """Names of the evaluation sets, sorted."""
        return sorted(self._sets)

    def find_sets(self, content: Content) -> list[str]:
        """Names of the evaluation sets that a row shares text with, sorted."""
        found: set[str] = set()
        for text, is_whole in _list_texts(content, with_system=True):
            words = self._words.hash_words(text)
            if len(words) < NGRAM_WORDS:
                if is_whole and len(words):
                    key = hash_whole(words)
                    found.update(name for name, known in self._sets.items() if key in known.short_texts)
                continue
            sequences = hash_sequences(words, NGRAM_WORDS)
            found.update(name for name, known in self._sets.items() if _overlaps(known.sequences, sequences))
        return sorted(found)


def _list_texts(content: Content, *, with_system: bool = False) -> Iterator[tuple[str, bool]]:
    """Texts of a row; with each whether it counts by itself when it is short."""
    if content.text is not None:
        yield content.text, True
    is_first = True
    for message in content.list_messages():
        if message.role != "system" or with_system:
            yield message.content, is_first and message.role == "user"
        is_first = is_first and message.role != "user"


def _overlaps(known: Hashes, sequences: Hashes) -> bool:
    if not len(known):
        return False
    places = np.minimum(np.searchsorted(known, sequences), len(known) - 1)
    return bool(np.any(known[places] == sequences))
