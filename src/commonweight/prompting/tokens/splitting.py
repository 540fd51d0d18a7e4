"""Splitting of long texts before tokenization, because llama.cpp's time and stack do not suffice for some of them.

Its time is quadratic in the number of user-defined tokens of a text (20 s for 400 kB of ``<br>x``), so a text is
split in front of such tokens. That is exact: llama.cpp, too, splits a text there before anything else.

It is quadratic, too, in the number of characters that SentencePiece has no token for and encodes as bytes (14 s
for 400 kB of line ends, where there is none for them). No token crosses such characters, so this is exact, too.

Pre-tokenizers that are regular expressions take a stack frame for each character of a match, and past some 26,000
the process dies. So runs of thousands of characters without a space, or of white space alone, are split. llama.cpp
tokenizes runs between 4,096 and 26,000 characters whole, so a token there may differ.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise

PIECE_CHARACTERS = 4096
"""Shorter texts are not split, and pieces have about this length."""
MAX_USER_DEFINED_TOKENS = 8192
"""Most user-defined tokens in a text that cannot be split: llama.cpp takes half a second for them."""

# Ends of words for every pre-tokenizer, or nearly every one, in text without spaces.
_SEAM = re.compile(r"(?<=\w)(?=[,;:!?，。、；：！？])")  # noqa: RUF001
_SPACE = re.compile(r"[ \t\n\v\f\r]")


class DenseTextError(ValueError):
    """A text holds too many user-defined tokens: llama.cpp would take minutes."""


class TextSplitter:
    """Splits texts for one tokenizer into pieces that llama.cpp tokenizes in bounded time and stack."""

    def __init__(
        self, user_defined: Iterable[str], *, strips: bool, has_regex: bool, letters: Iterable[str] | None = None
    ) -> None:
        """``user_defined``: texts of the user-defined tokens.

        ``strips``: some of them strip the white space beside them, so that no split is exact. ``has_regex``: the
        pre-tokenizer is a regular expression. ``letters``: all characters of all tokens, for SentencePiece.
        """
        self._tokens = frozenset(filter(None, user_defined))
        self._token_texts = tuple(self._tokens)
        self._lengths = sorted({len(token) for token in self._tokens}, reverse=True)
        heads = sorted({token[:4] for token in self._tokens}, key=len)
        # All but the first character is a lookahead, so that overlapping matches are found, too.
        self._heads = re.compile("|".join(f"{re.escape(h[0])}(?={re.escape(h[1:])})" for h in heads) or "(?!)")
        self._strips = strips
        self._has_regex = has_regex
        self._unknown = letters and re.compile(f"[^{re.escape(''.join(letters))}]")
        self._find_cached = lru_cache(1024)(self._find)

    def split(self, text: str) -> list[str]:
        """The text in pieces, to be tokenized one by one.

        Raises:
            DenseTextError: too many user-defined tokens without an exact split between them.
        """
        if len(text) <= PIECE_CHARACTERS:
            return [text]
        pieces = list(self._split_at_tokens(text))
        if self._unknown:
            return [part for piece in pieces for part in self._split_at_unknown(piece, self._unknown)]
        return [part for piece in pieces for part in _split_unbroken(piece)] if self._has_regex else pieces

    def _split_at_tokens(self, text: str) -> Iterator[str]:
        done = count = 0
        for start, end in self._clusters(text):
            for position, is_sure in self._matches(text[start:end]):
                count += 1
                if start + position - done >= PIECE_CHARACTERS and is_sure and not self._strips:
                    yield text[done : start + position]
                    done = start + position
                    count = 0
                if count > MAX_USER_DEFINED_TOKENS:
                    raise DenseTextError(
                        f"a text holds more than {MAX_USER_DEFINED_TOKENS} tags or runs of spaces close together"
                    )
        yield text[done:]

    def _split_at_unknown(self, text: str, unknown: re.Pattern[str]) -> Iterator[str]:
        done = 0
        for match in unknown.finditer(text):
            position = match.start()
            # In some vocabularies, text after a user-defined token gets a space in front.
            if position - done >= PIECE_CHARACTERS and not text.endswith(self._token_texts, done, position):
                yield text[done:position]
                done = position
        yield text[done:]

    def _clusters(self, text: str) -> Iterator[tuple[int, int]]:
        """Spans of user-defined tokens, with overlapping tokens in one span."""
        start = end = -1
        for match in self._heads.finditer(text):
            position = match.start()
            length = next((n for n in self._lengths if text[position : position + n] in self._tokens), 0)
            if not length:
                continue
            if position >= end:
                if end > 0:
                    yield start, end
                start = position
            end = max(end, position + length)
        if end > 0:
            yield start, end

    def _matches(self, cluster: str) -> list[tuple[int, bool]]:
        """Positions at which llama.cpp finds tokens in a cluster, in order, and whether each is certain."""
        return [(0, True)] if cluster in self._tokens else self._find_cached(cluster)

    def _find(self, cluster: str) -> list[tuple[int, bool]]:
        # The longest tokens first, each from left to right in the text that longer ones left over.
        present = sorted((token for token in self._tokens if token in cluster), key=len, reverse=True)
        free = [(0, len(cluster))]
        positions: list[tuple[int, bool]] = []
        is_sure = True
        for length, tokens in groupby(present, len):
            matches = sorted(position for token in tokens for position in _find_occurrences(token, cluster, free))
            # llama.cpp's order of tokens of one length is unknown, so overlaps of them are uncertain.
            is_sure &= all(b - a >= length for a, b in pairwise(matches))
            positions += ((position, is_sure) for position in matches)
            free = list(_subtract(free, matches, length)) if is_sure else free
        return sorted(positions)


def _find_occurrences(token: str, text: str, free: Iterable[tuple[int, int]]) -> Iterator[int]:
    for start, end in free:
        position = text.find(token, start, end)
        while position >= 0:
            yield position
            position = text.find(token, position + len(token), end)


def _subtract(free: Iterable[tuple[int, int]], matches: Sequence[int], length: int) -> Iterator[tuple[int, int]]:
    """The free spans without the matches of one length in them."""
    positions = iter([*matches, -1])
    position = next(positions)
    for start, end in free:
        done = start
        while start <= position < end:
            yield done, position
            done = position + length
            position = next(positions)
        yield done, end


def _split_unbroken(text: str) -> Iterator[str]:
    """The text, split in every window of ``PIECE_CHARACTERS`` that has no space, or is white space alone."""
    done = 0
    for start in range(0, len(text), PIECE_CHARACTERS):
        end = start + PIECE_CHARACTERS
        if end <= len(text) and (not _SPACE.search(text, start, end) or text[start:end].isspace()):
            seam = _SEAM.search(text, max(start, 1), end)
            position = seam.start() if seam else start
            if position > done:
                yield text[done:position]
                done = position
    yield text[done:]
