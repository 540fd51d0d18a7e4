"""Views of a text that an attacker might send instead of it: the same words, written or encoded otherwise.

They only make rows of an evaluation. What a guard decodes at run time is written apart from this, so that neither
is made to fit the other.
"""

import base64
import codecs
import random
import re
import zlib
from collections.abc import Callable, Mapping

ZERO_WIDTH_SPACE = "\u200b"
LOOK_ALIKES = dict(
    zip(
        "aceijopsxyhABCEHIKMOPSTXYZ",
        "\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443\u04bb"
        "\u0410\u0412\u0421\u0415\u041d\u0406\u041a\u041c\u041e\u0420\u0405\u0422\u0425\u03a5\u0396",
        strict=True,
    )
)
"""Latin letters with Cyrillic and Greek ones that look alike."""
DIGITS = str.maketrans("aeiost", "431057")


def _write_full_width(text: str) -> str:
    return "".join(
        chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else "\u3000" if char == " " else char for char in text
    )


def _write_html(text: str) -> str:
    return "".join(f"&#{ord(char)};" for char in text)


def _write_url(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _space_letters(text: str) -> str:
    # Words stay apart: three spaces where there was one.
    return "   ".join(" ".join(word) for word in text.split())


def _mix_case(text: str) -> str:
    draw = _seed(text)
    return "".join(char.upper() if draw.random() < 0.5 else char.lower() for char in text)


def _swap_letters(text: str) -> str:
    """Swap two letters within every word of four letters or more, as a typist might."""
    draw = _seed(text)

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        at = draw.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return re.sub(r"[^\W\d_]{4,}", swap, text)


def _seed(text: str) -> random.Random:
    return random.Random(zlib.crc32(text.encode()))


VIEWS: Mapping[str, Callable[[str], str]] = {
    "full-width": _write_full_width,
    "zero-width": ZERO_WIDTH_SPACE.join,
    "homoglyphs": lambda text: "".join(LOOK_ALIKES.get(char, char) for char in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "url": _write_url,
    "html": _write_html,
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "leet": lambda text: text.lower().translate(DIGITS),
    "spaced letters": _space_letters,
    "one word a line": lambda text: "\n".join(text.split()),
    "mixed case": _mix_case,
    "swapped letters": _swap_letters,
}
"""Views by name. Texts have no lone surrogates."""
