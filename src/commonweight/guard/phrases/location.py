"""Location of a phrase in a whole text, in characters of the text as it was given.

A text is folded in pieces, so that a phrase's place is known by the piece; only there is it read by characters.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, pairwise

from commonweight.charter.phrases import begins_unit, fold, is_ignored
from commonweight.guard.phrases.index import PhraseIndex, get_base, unescape
from commonweight.guard.phrases.scanner import MAX_ESCAPE_CHARACTERS, PhraseScanner

PIECE_CHARACTERS = 1024
"""At least."""


def locate_phrase(index: PhraseIndex, text: str, principle: str) -> tuple[int, int]:
    """Locate the first phrase of a principle that is in a text: its span in characters."""
    cuts = [0, *_find_cuts(text), len(text)]
    pieces = [text[start:end] for start, end in pairwise(cuts)]
    found: list[tuple[int, int]] = []
    for reading in (pieces, [unescape(piece) for piece in pieces] if "\\" in text else []):
        folded = [fold(piece) for piece in reading]
        span = index.find_span("".join(folded), principle)
        if span is None:
            continue
        starts = [0, *accumulate(len(piece) for piece in folded)]
        begin = cuts[bisect_right(starts, span[0]) - 1]
        end = cuts[bisect_right(starts, span[1] - 1)]
        scanner = PhraseScanner(index)
        exact = [*scanner.feed(text[begin:end]), *scanner.finish()]
        spans = [(begin + one.start, begin + one.end) for one in exact if one.principle == principle]
        found += spans or [(begin, end)]
    return min(found, key=lambda span: (span[1], -span[0]), default=(0, len(text)))


def _find_cuts(text: str) -> Iterator[int]:
    """Find where a text may be cut, so that its pieces are folded as the whole is."""
    at = PIECE_CHARACTERS
    while at < len(text):
        if _may_cut(text, at):
            yield at
            at += PIECE_CHARACTERS
        else:
            at += 1


def _may_cut(text: str, at: int) -> bool:
    char = text[at]
    return (
        begins_unit(char)
        and not is_ignored(char)
        and not char.isspace()
        and not get_base(char).isspace()
        and "\\" not in text[max(0, at - MAX_ESCAPE_CHARACTERS) : at + 1]
    )
