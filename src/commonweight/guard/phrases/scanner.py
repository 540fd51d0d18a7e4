"""Scanner for phrases in streamed text, which tells how much of its end may begin one.

A character is normalised together with the marks that follow it. So the last one is open until the next begins,
and is held back if it may become a character of a phrase.
"""

import copy
import re
from collections import deque
from functools import lru_cache
from typing import NamedTuple

from commonweight.charter.normalisation import MAX_MARKS
from commonweight.charter.phrases import begins_unit, fold, is_ignored
from commonweight.guard.phrases.index import Node, PhraseIndex, get_base, unescape

# A high surrogate is decoded with the low one after it.
_HIGH, _LOW, _DIGIT = "[dD][89abAB]", "[dD][c-fC-F]", "[0-9a-fA-F]"
_WHOLE_ESCAPE = re.compile(
    rf"\\u(?!{_HIGH}){_DIGIT}{{4}}|\\u{_HIGH}{_DIGIT}{{2}}\\u{_LOW}{_DIGIT}{{2}}|\\[nrtbf\"\\/]"
)
_BEGUN_ESCAPE = re.compile(
    rf"\\(?:u(?:{_DIGIT}{{0,3}}|{_HIGH}{_DIGIT}{{2}}(?:\\(?:u(?:[dD]|{_LOW}{_DIGIT}?)?)?)?)?)?"
)
MAX_ESCAPE_CHARACTERS = 12
"""Of an escape, which may be a pair of surrogates."""
_LONE_SURROGATE = re.compile(r"\\u[0-9a-fA-F]{4}")
_fold_unit = lru_cache(maxsize=8192)(fold)


class FoundPhrase(NamedTuple):
    """A phrase in a stream, with its span in the characters that were fed."""

    principle: str
    start: int
    end: int


class _Unit(NamedTuple):
    """A character with its marks, as it was fed and normalised."""

    end: int
    """Characters fed up to its end."""
    length: int
    """Normalised characters."""


class _Reading:
    """One reading of a stream: its characters as they are, or with escapes decoded."""

    def __init__(self, index: PhraseIndex) -> None:
        self._index = index
        self._node = index.root
        self._units: deque[_Unit] = deque()
        """What the state consists of, and the unit before it."""
        self._length = 0
        """Normalised characters of these units."""
        self._start = 0
        """Where the first of them begins."""
        self._end = 0
        """Where the last of them ends."""
        self._open = ""
        self._open_end = 0
        self._after_space = False
        self.found: list[FoundPhrase] = []

    def copy(self) -> "_Reading":
        """Copy the state, for another reading of what follows."""
        other = copy.copy(self)
        other._units, other.found = self._units.copy(), []
        return other

    @property
    def held_from(self) -> int:
        """Where the end of the text begins that may begin a phrase, in characters fed."""
        if not self._open:
            return self._open_end if self._node.depth == 0 else self._find_start(self._node.depth)
        folded = self._fold_open()
        if not folded:
            # Not seen, or white space after white space: the state is what it was.
            return self._find_start(self._node.depth) if self._node.depth else self._open_end
        # Only the last character can still get marks.
        last = max((i for i, char in enumerate(folded) if begins_unit(char)), default=0)
        before = []  # normalised characters to hold back before the open one
        node: Node | None = self._node
        for i, char in enumerate(folded[:last], 1):
            assert node is not None
            node = self._index.advance(node, char)
            before += [match.length - i for match in node.matches]
        base = get_base(folded[last])
        while node is not None and base not in node.bases:
            node = node.shorter
        if node is not None:
            before.append(node.depth - last)
        if not before:
            return self._open_end
        return self._find_start(max(before)) if max(before) > 0 else self._end

    def add(self, text: str, characters: int) -> None:
        """Add a text that was made of so many characters fed: one character, or a decoded escape."""
        for char in text:
            if is_ignored(char):
                continue
            if self._open and (begins_unit(char) or len(self._open) >= MAX_MARKS):
                self.close()
            self._open += char
        self._open_end += characters
        if not self._open:
            self._start = self._end = self._open_end  # nothing that is seen has come yet

    def close(self) -> None:
        """Normalise the open character: no mark follows."""
        folded = self._fold_open()
        if folded:
            self._units.append(_Unit(self._open_end, len(folded)))
            self._length += len(folded)
        elif self._units:
            # White space after white space. It is one unit with that, however much there is.
            self._units[-1] = self._units[-1]._replace(end=self._open_end)
        else:
            self._start = self._open_end
        for i, char in enumerate(folded):
            self._node = self._index.advance(self._node, char)
            self._after_space = char == " "
            for match in self._node.matches:
                start = self._find_start(match.length + len(folded) - 1 - i)
                self.found.append(FoundPhrase(match.principle, start, self._open_end))
        self._end, self._open = self._open_end, ""
        while self._units and self._length - self._units[0].length >= self._node.depth:
            self._start = self._units[0].end
            self._length -= self._units.popleft().length

    def _fold_open(self) -> str:
        folded = _fold_unit(self._open)
        return folded.removeprefix(" ") if self._after_space else folded

    def _find_start(self, length: int) -> int:
        """Where the unit begins that holds the normalised character so far before the end of the units."""
        for i in range(len(self._units) - 1, -1, -1):
            length -= self._units[i].length
            if length <= 0:
                return self._units[i - 1].end if i else self._start
        return self._start


class PhraseScanner:
    """Scans the text of blocks that follow each other, as it is and with JSON's escapes decoded.

    Where one block ends and the next begins, both are read as if nothing or a space stood between them.
    """

    def __init__(self, index: PhraseIndex) -> None:
        self._plain = [_Reading(index)]
        self._decoded: list[_Reading] = []
        """The same with escapes decoded; none before the first backslash, as they would be the same."""
        self._escape = ""
        self._fed = 0

    @property
    def held_back(self) -> int:
        """Characters at the end of the text that may begin a phrase."""
        starts = [one.held_from for one in (*self._plain, *self._decoded)]
        return self._fed - min(*starts, self._fed - len(self._escape))

    def feed(self, text: str) -> list[FoundPhrase]:
        """Add text; returns the phrases that are complete, by their ends."""
        for char in text:
            if char == "\\" and not self._decoded:
                self._decoded = [one.copy() for one in self._plain]
            for reading in self._plain:
                reading.add(char, 1)
            if self._decoded:
                self._feed_decoded(char)
        self._fed += len(text)
        return self._take_found()

    def begin_block(self) -> list[FoundPhrase]:
        """Begin the next block, whose text follows."""
        self._end_escapes()
        for readings in (self._plain, self._decoded):
            if len(readings) == 1:
                readings.append(readings[0].copy())
            for reading in readings[1:]:
                reading.add(" ", 0)
        return self._take_found()

    def finish(self) -> list[FoundPhrase]:
        """End the text."""
        self._end_escapes()
        for reading in (*self._plain, *self._decoded):
            reading.close()
        return self._take_found()

    def _feed_decoded(self, char: str) -> None:
        escape = self._escape + char
        if _BEGUN_ESCAPE.fullmatch(escape):
            self._escape = escape
        elif _WHOLE_ESCAPE.fullmatch(escape):
            self._escape = ""
            self._add_decoded(unescape(escape), len(escape))
        elif self._escape:
            self._end_escape()
            self._feed_decoded(char)
        else:
            self._add_decoded(char, 1)

    def _add_decoded(self, text: str, characters: int) -> None:
        for reading in self._decoded:
            reading.add(text, characters)

    def _end_escape(self) -> None:
        """Take the beginning of an escape that is none for what it is; the rest may begin another."""
        escape, self._escape = self._escape, ""
        head = 6 if _LONE_SURROGATE.match(escape) else 1
        self._add_decoded(unescape(escape[:head]), head)
        for char in escape[head:]:
            self._feed_decoded(char)

    def _end_escapes(self) -> None:
        while self._escape:
            self._end_escape()

    def _take_found(self) -> list[FoundPhrase]:
        found = {phrase for one in (*self._plain, *self._decoded) for phrase in one.found}
        for one in (*self._plain, *self._decoded):
            one.found.clear()
        return sorted(found, key=lambda phrase: (phrase.end, phrase.start))
