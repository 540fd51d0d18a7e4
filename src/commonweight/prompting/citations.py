"""Search for quotes in a document, regardless of white space."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

_WORD = re.compile(r"\S+")


class QuotableText:
    """Text of a document joined from its parts (pages or blocks) by line breaks, indexed for the search."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.text = "\n".join(parts)
        self._part_starts = list(accumulate((len(part) + 1 for part in parts), initial=0))
        # The text without white space, and the positions of its words in both.
        words = list(_WORD.finditer(self.text))
        self._bare = "".join(word[0] for word in words)
        self._bare_starts = list(accumulate((len(word[0]) for word in words), initial=0))
        self._word_starts = [word.start() for word in words]

    def find(self, quote: str) -> tuple[int, int] | None:
        """Start and exclusive end of a quote's first occurrence, if need be with other white space."""
        quote = quote.strip()
        if not quote:
            return None
        start = self.text.find(quote)
        if start >= 0:
            return start, start + len(quote)
        bare_quote = "".join(quote.split())
        start = self._bare.find(bare_quote)
        if start < 0:
            return None
        return self._source_position(start), self._source_position(start + len(bare_quote) - 1) + 1

    def find_part(self, position: int) -> int:
        """Index of the part with the character at ``position``."""
        return bisect_right(self._part_starts, position) - 1

    def _source_position(self, bare_position: int) -> int:
        word = bisect_right(self._bare_starts, bare_position) - 1
        return self._word_starts[word] + bare_position - self._bare_starts[word]
