"""Phrases: words of a charter that must not leave or enter, compared after normalisation.

Normalisation drops characters that are not seen, folds compatibility forms (NFKC) and case, and makes one space of
white space. A phrase is found inside words, too.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from commonweight.charter.normalisation import normalise_unicode

MAX_PHRASE_CHARACTERS = 120
"""Normalised."""
MAX_PRINCIPLE_PHRASES = 200
MAX_CHARTER_PHRASES = 500

# Beside control and format characters: letters and marks that Unicode says to ignore by default, and the iota
# below Greek letters, the only mark that becomes a letter by folding case.
_IGNORED = frozenset("\u0345\u034f\u115f\u1160\u17b4\u17b5\u2065\u3164\uffa0")
_IGNORED_RANGES = (("\u180b", "\u180f"), ("\ufe00", "\ufe0f"), ("\ufff0", "\ufff8"), ("\U000e0000", "\U000e0fff"))
_JAMO = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")


def fold(text: str) -> str:
    """Normalise a text; white space at its ends is one space, too."""
    if text.isascii():
        return _join_space(text.translate(_SEEN).lower())
    seen = normalise_unicode("NFD", text).translate(_SEEN)
    folded = normalise_unicode("NFKC", seen.casefold()).casefold()
    return _join_space(normalise_unicode("NFKC", folded).translate(_SEEN))


def _join_space(text: str) -> str:
    joined = " ".join(text.split())
    if not joined:
        return " " if text else ""
    return f"{' ' * text[0].isspace()}{joined}{' ' * text[-1].isspace()}"


@lru_cache(maxsize=4096)
def is_ignored(char: str) -> bool:
    """Whether a character is not seen, and dropped. White space is not."""
    return (
        char in _IGNORED
        or any(first <= char <= last for first, last in _IGNORED_RANGES)
        or (unicodedata.category(char) in ("Cc", "Cf") and not char.isspace())
    )


@lru_cache(maxsize=4096)
def begins_unit(char: str) -> bool:
    """Whether what comes before a character is normalised without it: it is no mark, and joins to nothing."""
    first = unicodedata.normalize("NFKD", char)[0]
    return unicodedata.category(first)[0] != "M" and _JAMO.match(first) is None


class _SeenCharacters(dict[int, int | None]):
    """Table for ``str.translate`` that drops what is not seen, filled as characters come up."""

    def __missing__(self, code: int) -> int | None:
        self[code] = kept = None if is_ignored(chr(code)) else code
        return kept


_SEEN = _SeenCharacters()


def _check_phrase(text: str) -> str:
    folded = fold(text).strip()
    if not folded:
        raise PydanticCustomError("phrase", "it is empty, or has only characters that are not compared")
    if len(folded) > MAX_PHRASE_CHARACTERS:
        raise PydanticCustomError("phrase", f"a phrase has at most {MAX_PHRASE_CHARACTERS} characters")
    if not begins_unit(folded[0]):
        raise PydanticCustomError("phrase", "it begins with a mark that joins to the character before it")
    return text


Phrase = Annotated[str, AfterValidator(_check_phrase)]
