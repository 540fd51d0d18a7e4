"""Quotes, found in a text of several parts."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

_WORD = re.compile(r"\S+")


class QuotableText:
    """The parts of a document (its pages, its blocks) as one text, each on lines of its own."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.text = "\n".join(parts)
        self._part_starts = list(accumulate((len(part) + 1 for part in parts), initial=0))
        # The text once more without white space, and where each word of it came from.
        words = list(_WORD.finditer(self.text))
        self._bare = "".join(word[0] for word in words)
        self._bare_starts = list(accumulate((len(word[0]) for word in words), initial=0))
        self._word_starts = [word.start() for word in words]

    def find(self, quote: str) -> tuple[int, int] | None:
        """Start and exclusive end of the first place that says this, if need be with other white space."""
        quote = quote.strip()
        if not quote:
            return None
        start = self.text.find(quote)
        if start >= 0:
            return start, start + len(quote)
        bare_quote = "".join(quote.split())
        place = self._bare.find(bare_quote)
        if place < 0:
            return None
        return self._source_position(place), self._source_position(place + len(bare_quote) - 1) + 1

    def part_at(self, place: int) -> int:
        """The index of the part that the character at ``place`` belongs to."""
        return bisect_right(self._part_starts, place) - 1

    def _source_position(self, bare_place: int) -> int:
        word = bisect_right(self._bare_starts, bare_place) - 1
        return self._word_starts[word] + bare_place - self._bare_starts[word]
