"""Views and windows of texts as bundles of the format ``guard/1`` were calibrated with; see ``deobfuscation``."""

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple

from commonweight.charter.normalisation import normalise_unicode

MAX_DECODED_VIEWS = 4
"""Decoded views of one text, beside the text itself."""
WINDOW_CHARACTERS, STRIDE_CHARACTERS = 600, 450
"""Characters."""
MAX_WINDOWS = 8
"""Of one view. They are spread over the whole of a text that has more, its ends always among them."""

MAX_DECODED_CHARACTERS = 20_000
"""Of a text that is looked into for what is encoded: its beginning and its end. What is plain is read whole."""

_INVISIBLE = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]|[\U000e0000-\U000e007f]"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[\s:]?){12,}")
_LEET = str.maketrans("013457@$!", "oleastasi")
_COMMON = re.compile(r"\b(?:the|a|an|to|of|and|in|is|for|how|do|you|i|me|my|on|with|that|this|it|what|be|can)\b")
_MIN_COMMON_WORDS = 3
"""Common words that a decoded text has to gain before it is taken for what was meant."""


class Window(NamedTuple):
    """A span of the original text, with its normalised content."""

    start: int
    end: int
    text: str


def normalise(text: str) -> str:
    """Fold compatibility forms (NFKC) and drop invisible characters."""
    return _INVISIBLE.sub("", normalise_unicode("NFKC", text))


def list_views(text: str) -> list[str]:
    """List the normalised text and the decoded content of its encoded parts."""
    plain = normalise(text)
    found = [plain]
    half = MAX_DECODED_CHARACTERS // 2
    for view in _decode_candidates(
        plain if len(plain) <= MAX_DECODED_CHARACTERS else f"{plain[:half]}\n{plain[-half:]}"
    ):
        if view not in found:
            found.append(view)
        if len(found) > MAX_DECODED_VIEWS:
            break
    return found


def split_windows(text: str) -> list[Window]:
    """Split a view into windows that overlap by a quarter; a short text is one."""
    if len(text) <= WINDOW_CHARACTERS:
        return [Window(0, len(text), text)]
    starts = [*range(0, len(text) - WINDOW_CHARACTERS, STRIDE_CHARACTERS), len(text) - WINDOW_CHARACTERS]
    if len(starts) > MAX_WINDOWS:
        step = (len(starts) - 1) / (MAX_WINDOWS - 1)
        starts = [starts[round(i * step)] for i in range(MAX_WINDOWS)]
    return [Window(start, start + WINDOW_CHARACTERS, text[start : start + WINDOW_CHARACTERS]) for start in starts]


def _decode_candidates(text: str) -> Iterator[str]:
    for match in _BASE64.finditer(text):
        letters = match[0].replace("-", "+").replace("_", "/").rstrip("=")
        yield from _iter_readable(_decode_base64(letters))
    for match in _HEX.finditer(text):
        yield from _iter_readable(bytes.fromhex(re.sub(r"[\s:]", "", match[0])))
    lower = text.lower()
    words = len(_COMMON.findall(lower))
    for candidate in (codecs.encode(lower, "rot13"), lower[::-1], lower.translate(_LEET)):
        if len(_COMMON.findall(candidate)) >= words + _MIN_COMMON_WORDS:
            yield candidate


def _decode_base64(letters: str) -> bytes:
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4))
    except (binascii.Error, ValueError):
        return b""


def _iter_readable(data: bytes) -> Iterator[str]:
    """Decode bytes that are readable text; otherwise yield nothing."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if len(text) >= 12 and text.replace("\n", " ").isprintable() and " " in text:
        yield normalise(text)
