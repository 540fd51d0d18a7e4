"""Which language a text is in, as far as that is plain: py3langid, and common words for English.

A wrong guess is worse than none: what is short, or mixed with code, is left untold.
"""

from functools import cache
from typing import TYPE_CHECKING

from commonweight.guard.text.words import measure_known_share

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

MAX_CHARACTERS = 4000
"""That are looked at, the first and the last of a text."""
MIN_LETTERS, MIN_WIDE_LETTERS = 24, 6
"""Of alphabets, and of scripts that write words or syllables."""
MIN_CONFIDENCE = 0.5
_WRITTEN_ALIKE = {"wuu": "zh", "yue": "zh", "gan": "zh", "lzh": "zh"}
"""Languages that are written as another one is, and taken for it in short texts."""
ENGLISH_SHARE = 0.5
"""Of a text's letters in common English words, from which it is English."""


def identify_language(text: str) -> str | None:
    """Identify a text's language by its ISO 639 code; None where it is not plain."""
    half = MAX_CHARACTERS // 2
    read = text if len(text) <= MAX_CHARACTERS else f"{text[:half]} {text[-half:]}"
    letters = [letter for letter in read if letter.isalpha()]
    wide = sum(letter >= "\u2e80" for letter in letters)
    if len(letters) < MIN_LETTERS and wide < MIN_WIDE_LETTERS:
        return None
    if measure_known_share(read) >= ENGLISH_SHARE:
        return "en"
    language, confidence = _load_identifier().classify(read)
    return _WRITTEN_ALIKE.get(language, language) if confidence >= MIN_CONFIDENCE else None


@cache
def _load_identifier() -> "LanguageIdentifier":
    # Loaded with the first text that is not English: the model takes a moment and some memory.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
