"""A text as it may be meant, with the place in the text as it was given of every character."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

ViewKind = Literal[
    "plain", "normalised", "case", "accents", "spaced", "lines", "leet", "typos", "rot13", "reversed", "escapes",
    "base64", "hex",
]  # fmt: skip
"""What was undone; ``plain`` is the text itself, but for compatibility forms and what is invisible."""
Places = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class View:
    """One reading of a text."""

    kind: ViewKind
    text: str
    starts: Places
    """By character: where what it stands for begins in the text as it was given."""
    ends: Places

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """Locate a span of the view in the text as it was given."""
        if start >= end:
            at = int(self.starts[start]) if start < len(self.starts) else 0
            return at, at
        return int(self.starts[start:end].min()), int(self.ends[start:end].max())

    def find(self, start: int, end: int) -> tuple[int, int]:
        """Find what of the view, if it keeps the order, stands for a span of the text as it was given."""
        first = int(np.searchsorted(self.starts, start))
        return first, max(first, int(np.searchsorted(self.ends, end, "right")))


def view_text(text: str) -> View:
    """View a text as it was given."""
    places = np.arange(len(text) + 1, dtype=np.int32)
    return View("plain", text, places[:-1], places[1:])


@dataclass
class Rewriting:
    """Builds a view out of parts of another one, in their order."""

    source: View
    _texts: list[str] = field(default_factory=list)
    _starts: list[Places] = field(default_factory=list)
    _ends: list[Places] = field(default_factory=list)

    def keep(self, start: int, end: int) -> None:
        """Keep a part as it is."""
        self._add(self.source.text[start:end], self.source.starts[start:end], self.source.ends[start:end])

    def replace(self, start: int, end: int, text: str) -> None:
        """Put a text in a part's place: letter by letter where it is as long, or else for the part as a whole."""
        if len(text) == end - start:
            self._add(text, self.source.starts[start:end], self.source.ends[start:end])
        else:
            first, last = self.source.locate(start, end)
            self._add(text, np.full(len(text), first, np.int32), np.full(len(text), last, np.int32))

    def reverse(self, start: int, end: int) -> None:
        """Put a part there backwards."""
        part = slice(start, end)
        self._add(self.source.text[part][::-1], self.source.starts[part][::-1], self.source.ends[part][::-1])

    def build(self, kind: ViewKind) -> View:
        """Build the view."""
        return View(kind, "".join(self._texts), _join(self._starts), _join(self._ends))

    def _add(self, text: str, starts: Places, ends: Places) -> None:
        self._texts.append(text)
        self._starts.append(starts)
        self._ends.append(ends)


def replace_parts(view: View, kind: ViewKind, parts: Sequence[tuple[int, int, str]]) -> View:
    """Replace parts of a view, which stand in order and do not overlap, and keep the rest."""
    made, at = Rewriting(view), 0
    for start, end, text in parts:
        made.keep(at, start)
        made.replace(start, end, text)
        at = end
    made.keep(at, len(view.text))
    return made.build(kind)


def _join(parts: list[Places]) -> Places:
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)
