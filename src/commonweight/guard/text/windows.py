"""Windows of a text: runs of whole sentences that overlap, so that no part is read only amid much else."""

import re
from itertools import pairwise
from typing import NamedTuple

WINDOW_TOKENS, STRIDE_TOKENS, MAX_SENTENCE_TOKENS = 64, 32, 48
"""As estimated by the characters; what the encoders count differs by some tens per cent."""
_SENTENCE = re.compile(
    r"[^\n.!?。！？]*(?:\n\s*|[.!?。！？]+[\"')\]」』]*(?:\s+|(?=[^\x00-\x7f])|$)|[.!?。！？]|$)"
)


class Span(NamedTuple):
    """A window of a text, in characters."""

    start: int
    end: int


def estimate_tokens(text: str) -> float:
    """Estimate the tokens of a text: four letters of most scripts each, one of those written without space."""
    if text.isascii():
        return len(text) / 4
    wide = sum(letter >= "\u2e80" for letter in text)
    return (len(text) - wide) / 4 + wide


def split_windows(text: str) -> list[Span]:
    """Split a text into windows of at most 64 tokens; each sentence of up to 48 stands whole in one of them.

    A text of one window is that window.
    """
    if estimate_tokens(text) <= WINDOW_TOKENS:
        return [Span(0, len(text))]
    parts = split_sentences(text)
    sizes = [estimate_tokens(text[start:end]) for start, end in parts]
    windows, first = [], 0
    while True:
        last, size = first, 0.0
        while last < len(parts) and (last == first or size + sizes[last] <= WINDOW_TOKENS):
            size += sizes[last]
            last += 1
        windows.append(Span(parts[first][0], parts[last - 1][1]))
        if last == len(parts):
            return windows
        step = sizes[first]
        first += 1
        while first < last and step + sizes[first] <= STRIDE_TOKENS:
            step += sizes[first]
            first += 1


def split_sentences(text: str) -> list[Span]:
    """Split a text into sentences; long ones into parts of as many tokens, at spaces where there are any."""
    ends = [match.end() for match in _SENTENCE.finditer(text) if match.end() > match.start()]
    merged = [0]
    for end in ends:
        # What is shorter than a few tokens belongs to what follows it: "e.g. this", "3.5".
        if end - merged[-1] >= 12 or end == len(text):
            merged.append(end)
    if merged[-1] != len(text):
        merged.append(len(text))
    parts = []
    for start, end in pairwise(merged):
        at = start
        while not _fits(text, at, end):
            cut = _find_cut(text, at, end)
            parts.append(Span(at, cut))
            at = cut
        if end > at:
            parts.append(Span(at, end))
    return parts


def _fits(text: str, start: int, end: int) -> bool:
    return end - start <= 4 * MAX_SENTENCE_TOKENS and estimate_tokens(text[start:end]) <= MAX_SENTENCE_TOKENS


def _find_cut(text: str, start: int, end: int) -> int:
    """Find where to cut a sentence that is too long: at the last space, if there is one in the second half."""
    limit = min(end, start + 4 * MAX_SENTENCE_TOKENS)
    while not _fits(text, start, limit):
        limit -= max(1, (limit - start) // 8)
    space = max(text.rfind(" ", start, limit), text.rfind("\n", start, limit))
    return space + 1 if space > (start + limit) // 2 else limit
