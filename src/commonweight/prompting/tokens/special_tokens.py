"""Special tokens of a tokenizer, and search for them in text."""

import re
from collections.abc import Iterable, Iterator


class SpecialTokens:
    """Set of special tokens by their text. Tokens of one character do not count."""

    def __init__(self, texts: Iterable[str]) -> None:
        # A single character cannot be broken by escaping, and no model uses one as structure.
        self._tokens = frozenset(text for text in texts if len(text) > 1)
        self._lengths = sorted({len(token) for token in self._tokens}, reverse=True)
        # Candidates are found by their first characters, then checked in full.
        self._openings = _compile_starts({token[:4] for token in self._tokens})
        self._heads = {token[:i] for token in self._tokens for i in range(1, len(token))}
        self._tails = {token[i:] for token in self._tokens for i in range(1, len(token))}

    def match_length(self, text: str, start: int) -> int:
        """Length of the longest special token that begins at ``start``, or 0."""
        return next(
            (n for n in self._lengths if len(token := text[start : start + n]) == n and token in self._tokens), 0
        )

    def find_starts(self, text: str) -> Iterator[int]:
        """Positions at which a special token begins, overlapping ones too, in order."""
        return (match.start() for match in self._openings.finditer(text) if self.match_length(text, match.start()))

    def may_be_completed_after(self, text: str) -> bool:
        """Whether what follows the text could complete a special token that the text begins."""
        return self._tokens != frozenset() and any(
            text[-length:] in self._heads for length in range(1, min(self._lengths[0], len(text) + 1))
        )

    def may_be_completed_before(self, text: str) -> bool:
        """Whether the text could complete, or be the middle of, a special token that begins before it."""
        return self._tokens != frozenset() and (
            any(text[:length] in self._tails for length in range(1, min(self._lengths[0], len(text) + 1)))
            or (len(text) < self._lengths[0] and any(text in token for token in self._tokens))
        )


def _compile_starts(openings: set[str]) -> re.Pattern[str]:
    # All but the first character is a lookahead, so that overlapping matches are found, too.
    return re.compile("|".join(f"{re.escape(o[0])}(?={re.escape(o[1:])})" for o in sorted(openings)) or "(?!)")
