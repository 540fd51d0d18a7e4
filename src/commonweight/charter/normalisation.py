"""Normalisation of Unicode in time that grows with the text.

``unicodedata.normalize`` sorts the marks after a character in time that grows with the square of their number, and
holds up all threads meanwhile.
"""

import re
import unicodedata
from functools import cache
from typing import Literal

MAX_MARKS = 32
"""Marks in a row that are normalised together; Unicode's stream-safe text format has no more than 30."""
_END_OF_MARKS = 0x20000
"""No character that is sorted is beyond."""


def normalise_unicode(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
    """Normalise a text. Of marks in a row, some at a time are sorted and composed."""
    if text.isascii():
        return text
    cuts = [match.end() for match in _compile_run().finditer(text)]
    return "".join(
        unicodedata.normalize(form, text[start:end])
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
    )


@cache
def _compile_run() -> re.Pattern[str]:
    """Compile an expression for as many marks in a row as are normalised together."""
    marks = "".join(char for char in map(chr, range(_END_OF_MARKS)) if unicodedata.combining(char))
    return re.compile(f"[{marks}]{{{MAX_MARKS}}}")
