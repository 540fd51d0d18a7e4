"""Index of phrases: finds all of them in one pass over a text (Aho and Corasick 1975).

The state after a text is the longest end of it that begins a phrase, which is what a stream has to hold back.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from commonweight.charter.phrases import fold
from commonweight.charter.principle import Principle

_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\[nrtbf\"\\/]")
_SHORT_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


class PhraseMatch(NamedTuple):
    """A phrase in a text, by the principle that it belongs to."""

    principle: str
    length: int
    """Characters of the phrase after normalisation."""


class Node:
    """State of the index: what has been read of a phrase."""

    __slots__ = ("bases", "children", "depth", "matches", "shorter")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        """Characters of a phrase that have been read."""
        self.children: dict[str, Node] = {}
        self.bases: set[str] = set()
        """The children's characters without their marks."""
        self.shorter: Node | None = None
        """State of the longest end of this one's text that begins a phrase, too; None: this is the root."""
        self.matches: tuple[PhraseMatch, ...] = ()
        """Phrases that end here."""


class PhraseIndex:
    """The phrases of some principles, as states that a text leads through. Not changed after it is made."""

    def __init__(self, principles: Collection[Principle]) -> None:
        self.root = Node(0)
        self._phrases: dict[str, str] = {}
        for principle in principles:
            for phrase in principle.phrases:
                self._add(fold(phrase).strip(), principle.id)
        self._link()

    def __bool__(self) -> bool:
        return bool(self._phrases)

    @property
    def principles(self) -> tuple[str, ...]:
        """The principles with phrases here."""
        return tuple(dict.fromkeys(self._phrases.values()))

    def _add(self, phrase: str, principle: str) -> None:
        self._phrases.setdefault(phrase, principle)
        node = self.root
        for char in phrase:
            if char not in node.children:
                node.children[char] = Node(node.depth + 1)
                node.bases.add(get_base(char))
            node = node.children[char]
        node.matches = node.matches or (PhraseMatch(principle, len(phrase)),)

    def _link(self) -> None:
        queue = deque([self.root])
        while queue:
            node = queue.popleft()
            for char, child in node.children.items():
                child.shorter = self.root if node.shorter is None else self.advance(node.shorter, char)
                child.matches += child.shorter.matches
                queue.append(child)

    def advance(self, node: Node, char: str) -> Node:
        """The state after one more character, which is normalised."""
        while char not in node.children:
            if node.shorter is None:
                return node
            node = node.shorter
        return node.children[char]

    def find_principles(self, text: str) -> set[str]:
        """The principles with a phrase in a whole text."""
        views = [fold(text)]
        if (plain := unescape(text)) != text:
            views.append(fold(plain))
        return {name for phrase, name in self._phrases.items() if any(phrase in view for view in views)}

    def locate(self, text: str, principle: str) -> tuple[int, int]:
        """Locate the first phrase of a principle that is in a text: its span in characters."""
        phrases = [phrase for phrase, name in self._phrases.items() if name == principle]

        def holds(part: str) -> bool:
            views = [fold(part), *([fold(unescape(part))] if "\\" in part else [])]
            return any(phrase in view for phrase in phrases for view in views)

        end = bisect_left(range(len(text)), True, key=lambda end: holds(text[:end]))
        start = bisect_left(range(end), True, key=lambda start: not holds(text[start:end])) - 1
        return max(0, start), end


def get_base(char: str) -> str:
    """The first character of what a character is composed of: itself without its marks."""
    return unicodedata.normalize("NFKD", char)[0]


def unescape(text: str) -> str:
    """Decode what JSON escapes, wherever it stands."""
    return _ESCAPE.sub(_decode_escape, text) if "\\" in text else text


def _decode_escape(match: re.Match[str]) -> str:
    """Decode one escape, or several of four digits that make up characters together."""
    escaped = match[0]
    if escaped[1] != "u":
        return _SHORT_ESCAPES.get(escaped[1], escaped[1])
    units = b"".join(int(digits, 16).to_bytes(2, "little") for digits in escaped.split("\\u")[1:])
    return units.decode("utf-16-le", "replace")
