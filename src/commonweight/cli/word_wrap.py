"""Wrapping of text that arrives in pieces, by the cells that it takes on a terminal."""

import re
import unicodedata
from collections.abc import Callable, Iterator

from rich.cells import cell_len, chop_cells

_PIECES = re.compile(r"\n|[^\S\n]+|\S+")
_JOINER = "\u200d"  # of emoji that are made of several


class WordWrapper:
    """Breaks lines between words, and between wide characters, which scripts without spaces are written in.

    What is between two places to break comes out once the second is seen; a word that is wider than a line is cut.
    """

    def __init__(self, get_width: Callable[[], int], column: int = 0) -> None:
        self._get_width = get_width
        self._column = column
        """Cells of the line that are taken."""
        self._is_begun = column > 0
        """Whether the line has text, which may take no cells."""
        self._space = ""
        self._word = ""

    def feed(self, text: str) -> str:
        """Take text; returns what can be shown of it."""
        return "".join(self._feed(text))

    def flush(self) -> str:
        """The rest, at the end of the text."""
        return self._end_word()

    def _feed(self, text: str) -> Iterator[str]:
        for piece in _PIECES.findall(text):
            if piece == "\n":
                yield self._end_word() + "\n"
                self._space, self._column, self._is_begun = "", 0, False
            elif piece.isspace():
                yield self._end_word()
                self._space += piece.expandtabs(4)
            else:
                yield from self._extend_word(piece)

    def _extend_word(self, piece: str) -> Iterator[str]:
        if piece.isascii() and not self._ends_wide():
            self._word += piece
            return
        for character in piece:
            if self._word and self._may_break_before(character):
                yield self._end_word()
            self._word += character

    def _may_break_before(self, character: str) -> bool:
        if self._word.endswith(_JOINER) or unicodedata.category(character) in ("Pe", "Pf", "Po", "Sk"):
            return False  # no line begins with punctuation that closes, nor with a part of an emoji
        return cell_len(character) == 2 or (cell_len(character) == 1 and self._ends_wide())

    def _ends_wide(self) -> bool:
        return bool(self._word) and cell_len(self._word[-1]) == 2

    def _end_word(self) -> str:
        """The word with the space before it, on a new line where it is too wide for this one."""
        space, word = self._space, self._word
        if not word:
            return ""
        self._space = self._word = ""
        width = max(2, self._get_width())
        if self._is_begun and self._column + cell_len(space + word) > width:
            lead, self._column = "\n", 0
        else:
            lead, self._column = space, self._column + cell_len(space)
        self._is_begun = True
        lines = chop_cells(word, width) if cell_len(word) > width else [word]
        self._column = cell_len(lines[-1]) + (self._column if len(lines) == 1 else 0)
        return lead + "\n".join(lines)
