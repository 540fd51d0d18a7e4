"""Screening of whole texts for phrases: of what comes in, and of complete tool calls."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from commonweight.charter.principle import Place
from commonweight.guard.phrases.index import PhraseIndex, list_folded_views
from commonweight.guard.phrases.json_strings import read_strings
from commonweight.guard.phrases.location import locate_phrase


class PlacedPhrase(NamedTuple):
    """A phrase in a text, by the principle that it belongs to, and its span in characters of the text."""

    principle: str
    span: tuple[int, int]
    text: int = 0
    """Index of the text, of those that were looked through: the one where the phrase ends."""


class PhraseScreening:
    """Finds phrases where they must not stand.

    ``indexes``: by place, of the principles that refuse and of those that are recorded.
    """

    def __init__(self, indexes: Mapping[Place, tuple[PhraseIndex, PhraseIndex]]) -> None:
        self._indexes = indexes

    def get_indexes(self, place: Place) -> tuple[PhraseIndex, PhraseIndex]:
        """Get the indexes of a place: of the principles that refuse, and of those that are recorded."""
        return self._indexes[place]

    def applies_to(self, *places: Place) -> bool:
        """Whether there are phrases that must not stand in one of these places."""
        return any(index for place in places for index in self._indexes[place])

    def list_principles(self, place: Place) -> tuple[str, ...]:
        """List the principles whose phrases must not stand in a place."""
        return tuple(name for index in self._indexes[place] for name in index.principles)

    def find_in_groups(self, groups: Sequence[Sequence[str]], place: Place) -> Iterator[PlacedPhrase]:
        """Find the phrases in groups of texts, such as messages, and those that are spread over several groups.

        The texts are numbered through all groups.
        """
        seen: set[str] = set()
        number = 0
        for group in groups:
            for phrase in self.find(group, place):
                seen.add(phrase.principle)
                yield phrase._replace(text=phrase.text + number)
            number += len(group)
        if len(groups) > 1:
            texts = [text for group in groups for text in group]
            yield from self._find_joined(texts, place, (" ",), seen)

    def find(self, texts: Sequence[str], place: Place) -> Iterator[PlacedPhrase]:
        """Find the phrases in texts that follow each other, and those that are spread over several."""
        seen: set[str] = set()
        for number, text in enumerate(texts):
            for name, span in self._find_new(text, place, seen):
                yield PlacedPhrase(name, span, number)
        if len(texts) > 1:
            yield from self._find_joined(texts, place, ("", " "), seen)

    def _find_joined(
        self, texts: Sequence[str], place: Place, separators: tuple[str, ...], seen: set[str]
    ) -> Iterator[PlacedPhrase]:
        for separator in separators:
            for name, span in self._find_new(separator.join(texts), place, seen):
                yield _place(name, span, texts, separator)

    def _find_new(self, text: str, place: Place, seen: set[str]) -> Iterator[tuple[str, tuple[int, int]]]:
        """Find the principles that were not seen yet, with the spans of their phrases. The text is folded once."""
        indexes = [index for index in self._indexes[place] if index]
        views = list_folded_views(text) if indexes else []
        for index in indexes:
            for name in sorted(index.find_principles(views) - seen):
                seen.add(name)
                yield name, locate_phrase(index, text, name)

    def find_in_call(self, tool: str, written: str) -> Iterator[PlacedPhrase]:
        """Find the phrases in a tool call: in its JSON, and over several of its keys and values."""
        yield from self.find([written], "tool_input")
        keys_and_values, values = read_strings(written)
        for reading in (tool, " ".join(keys_and_values), " ".join(values)):
            for name, *_ in self.find([reading], "tool_input"):
                yield PlacedPhrase(name, (0, len(written)))


def _place(principle: str, span: tuple[int, int], texts: Sequence[str], separator: str) -> PlacedPhrase:
    """Place a phrase that is spread over joined texts in the one where it ends."""
    starts = [0, *accumulate(len(text) + len(separator) for text in texts)]
    number = bisect_right(starts, span[1] - 1) - 1
    begin = starts[number]
    return PlacedPhrase(principle, (max(0, span[0] - begin), span[1] - begin), number)
