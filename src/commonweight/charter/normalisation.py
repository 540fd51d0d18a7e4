"""Normalisation of Unicode in time that grows with the text.

``unicodedata.normalize`` sorts the marks after a character in time that grows with the square of their number, and
holds up all threads meanwhile.
"""

import re
import unicodedata
from functools import cache
from itertools import groupby
from typing import Literal

MAX_MARKS = 32
"""Marks in a row that are normalised together; Unicode's stream-safe text format has no more than 30."""
_FIRST_MARK, _END_OF_MARKS = 0x300, 0x20000
"""All characters that are sorted are in between."""


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
    marks = [code for code in range(_FIRST_MARK, _END_OF_MARKS) if unicodedata.combining(chr(code))]
    groups = groupby(enumerate(marks), key=lambda pair: pair[1] - pair[0])
    ranges = [[code for _, code in group] for _, group in groups]
    kept = "".join(f"{chr(one[0])}-{chr(one[-1])}" for one in ranges)
    # What is no mark for sure is passed over fast, by the bounds alone.
    return re.compile(f"[{chr(_FIRST_MARK)}-{chr(_END_OF_MARKS)}][{kept}]{{{MAX_MARKS - 1}}}")
