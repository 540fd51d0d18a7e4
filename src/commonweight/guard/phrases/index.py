"""Index of phrases: finds all of them in one pass over a text (Aho and Corasick 1975).

The state after a text is the longest end of it that begins a phrase, which is what a stream has to hold back.
"""

import re
import unicodedata
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

    def find_principles(self, views: Collection[str]) -> set[str]:
        """Find the principles with a phrase in a text, from its views (``list_folded_views``)."""
        return {name for phrase, name in self._phrases.items() if any(phrase in view for view in views)}

    def find_span(self, folded: str, principle: str) -> tuple[int, int] | None:
        """Find the phrase of a principle that ends first in a folded text: its span in the folded characters."""
        phrases = [phrase for phrase, name in self._phrases.items() if name == principle]
        spans = [(at, at + len(phrase)) for phrase in phrases if (at := folded.find(phrase)) >= 0]
        return min(spans, key=lambda span: (span[1], -span[0]), default=None)


def list_folded_views(text: str) -> list[str]:
    """List the folded text, and the same with JSON's escapes decoded where it has any."""
    plain = unescape(text)
    return [fold(text)] if plain == text else [fold(text), fold(plain)]


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
