"""Positions in an answer: which block and which of its characters a token, or a character of all its text, is."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from commonweight.guard.text.segments import Location


class AnswerPiece(NamedTuple):
    """Text that a token added to a block of the answer."""

    block: int
    text: str
    tool: str | None = None
    """Name of the tool that the block calls."""


class _Stretch(NamedTuple):
    piece: AnswerPiece
    token: int
    total: int
    """Characters of all blocks before it."""
    start: int
    """Characters of its block before it."""


class AnswerPositions:
    """Records the pieces of an answer, and locates spans of tokens and of characters in its blocks."""

    def __init__(self) -> None:
        self._stretches: list[_Stretch] = []
        self._tokens: list[int] = []
        self._totals: list[int] = []
        self._lengths: dict[int, int] = {}
        self._total = 0

    def add(self, token: int, pieces: Sequence[AnswerPiece]) -> None:
        """Add the pieces of a token (from 0); tokens come in order."""
        for piece in pieces:
            if not piece.text:
                continue
            start = self._lengths.get(piece.block, 0)
            self._stretches.append(_Stretch(piece, token, self._total, start))
            self._tokens.append(token)
            self._totals.append(self._total)
            self._lengths[piece.block] = start + len(piece.text)
            self._total += len(piece.text)

    def locate_tokens(self, start: int, end: int) -> Location:
        """Locate a span of tokens: the last block that they wrote to, and what they wrote there."""
        first, last = bisect_right(self._tokens, start - 1), bisect_right(self._tokens, end - 1)
        return self._locate(first, last)

    def locate_characters(self, start: int, end: int) -> Location:
        """Locate a span of characters of all the text."""
        first, last = max(0, bisect_right(self._totals, start) - 1), bisect_right(self._totals, end - 1)
        found = self._locate(first, last)
        if found.span is None:
            return found
        ending = self._stretches[last - 1]
        moved = ending.start - ending.total
        clipped = max(found.span[0], start + moved), min(found.span[1], end + moved)
        return found._replace(span=clipped)

    def _locate(self, first: int, last: int) -> Location:
        stretches = self._stretches[first:last]
        if not stretches:
            block = self._stretches[-1].piece.block if self._stretches else 0
            return Location(f"content[{block}]")
        ending = stretches[-1]
        block = ending.piece.block
        start = min(one.start for one in stretches if one.piece.block == block)
        return Location(f"content[{block}]", (start, ending.start + len(ending.piece.text)), ending.piece.tool)
