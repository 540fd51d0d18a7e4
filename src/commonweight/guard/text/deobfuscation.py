"""Deobfuscation of texts before scoring: normalisation, and the views that may be what is meant.

A view is made only where it makes sense of what makes little as it stands: common English words where there were
none (see ``words``), or readable text out of bytes. So other languages are found in escapes, base64 and hex, and
not behind shifted, swapped or spaced letters.
"""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote

from commonweight.charter.normalisation import normalise_unicode
from commonweight.guard.text.views import Rewriting, View, ViewKind, replace_parts, view_text
from commonweight.guard.text.words import WORD, correct_word, is_known, measure_known_share, split_letters

MAX_VIEWS = 16
"""Of one text, beside the text itself."""
DECODED: frozenset[ViewKind] = frozenset({"base64", "hex", "escapes", "rot13", "reversed"})
"""Views of what no reader of the text as it stands would see."""
MIN_DECODED_CHARACTERS = 12
MAX_NESTED = 3
"""Times that a part is encoded in base64 over again."""
MAX_CORRECTIONS = 500
"""Unknown words that are looked up for slips; of more, as many are drawn evenly from the whole text."""

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0]|[\U000e0000-\U000e01ef]"
)
_CLUSTER = re.compile(r"[\u1100-\u11ff]+|.[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a]*", re.DOTALL)  # fmt: skip  # noqa: E501
_LATIN = re.compile(r"[A-Za-z]+")
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТХУЗаеоѕіјрсухԁһԛԝοαρυνιΑΒΕΖΗΙΚΜΝΟΡΤΥΧıɡɑɩ",
    "ABESIJKMHOPCTXYZaeosijpcyxdhqwoapuviABEZHIKMNOPTYXigai",
)
"""Letters of other alphabets that look like Latin ones."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]{16,})*(?:\r?\n[A-Za-z0-9+/_-]{1,15})?={0,2}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:0x)?[0-9a-fA-F]{2}(?:[\s:,]{0,2}(?:0x)?[0-9a-fA-F]{2}){11,}(?![0-9A-Za-z])")
_PERCENT = re.compile(r"[^\s%]*(?:%[0-9A-Fa-f]{2}[^\s%]*){3,}")
_ENTITIES = re.compile(r"(?:[^\s&]{0,16}&#(?:x[0-9a-fA-F]{1,6}|[0-9]{1,7});){4,}")
_ESCAPES = re.compile(r"(?:[^\s\\]{0,16}(?:\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2})){4,}")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_SPACED = re.compile(r"(?<![^\W_])[^\W_](?:[ .\-_*|/~,;:!?'\"]{1,4}[^\W_](?![^\W_])){7,}")
_GAP = re.compile(r"[\W_]+")
_CODE = re.compile(r"[;={}<>()\[\]|]")
_LEET = str.maketrans("0134578@$!|+9", "oieastbasiltg")
_LEET_L = str.maketrans("0134578@$!|+9", "oleastbaslltg")
_LEET_WORD = re.compile(r"[A-Za-z0134578@$!|+9]+")
_MIN_GAIN = 12
"""Letters in common words that a text has to gain before it is taken for what was meant."""


def normalise(text: str) -> View:
    """Fold compatibility forms (NFKC) and letters that look alike, and drop invisible characters.

    The view is ``plain`` as long as that changes no Latin letter, and else ``normalised``.
    """
    view = view_text(text)
    if text.isascii():
        return view
    parts = []
    for match in _CLUSTER.finditer(text):
        if not match[0].isascii():
            folded = _INVISIBLE.sub("", normalise_unicode("NFKC", match[0]))
            if folded != match[0]:
                parts.append((match.start(), match.end(), folded))
    folded_view = replace_parts(view, "plain", parts)
    alike = []
    is_latin = len(_LATIN.findall(folded_view.text)) * 2 > len(WORD.findall(folded_view.text))
    for match in WORD.finditer(folded_view.text):
        latin = match[0].translate(_LOOKALIKES)
        if latin != match[0] and latin.isascii() and (_LATIN.search(match[0]) or (is_latin and is_known(latin))):
            alike.append((match.start(), match.end(), latin))
    found = replace_parts(folded_view, "plain", alike)
    if _LATIN.findall(found.text) == _LATIN.findall(text):
        return found
    return View("normalised", found.text, found.starts, found.ends)


def list_views(text: str) -> list[View]:
    """List the normalised text, and what its parts and its writing may stand for."""
    plain = normalise(text)
    found = [plain]
    seen = {_fold(plain.text)}
    for view in _iter_views(plain):
        # Lines of one word are read as they stand by heads on text, but not by those on states.
        if (folded := _fold(view.text)) not in seen or view.kind == "lines":
            seen.add(folded)
            found.append(view)
        if len(found) > MAX_VIEWS:
            break
    return found


def _fold(text: str) -> str:
    return " ".join(text.split())


def _iter_views(plain: View) -> Iterator[View]:
    first = [*_iter_decoded(plain), *_iter_rewritten(plain)]
    yield from first
    for view in first:  # what is disguised twice
        yield from _iter_decoded(view)
        yield from _iter_rewritten(view)


def _iter_decoded(view: View) -> Iterator[View]:
    """Iterate over what is encoded in a view: all parts of a kind make one view, however many they are."""
    for kind, pattern, decode in _DECODERS:
        parts = Rewriting(view)
        for match in pattern.finditer(view.text):
            text = _read_text(decode(match[0]))
            if text is not None:
                parts.replace(match.start(), match.end(), f"{text}\n")
        if (found := parts.build(kind)).text:
            yield found
    escaped = [
        (match.start(), match.end(), text)
        for pattern, unescape in _UNESCAPES
        for match in pattern.finditer(view.text)
        if (text := unescape(match[0])) != match[0] and text.isprintable()
    ]
    if escaped:
        yield replace_parts(view, "escapes", _drop_overlaps(escaped))


def _iter_rewritten(view: View) -> Iterator[View]:
    for rewrite in (
        _lower_case,
        _strip_accents,
        _join_spaced,
        _join_lines,
        _read_leet,
        _shift_back,
        _turn_around,
        _correct_slips,
    ):
        yield from rewrite(view)


# What is encoded


def _decode_base64(text: str) -> bytes:
    letters = re.sub(r"\s", "", text).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4))
    except (binascii.Error, ValueError):
        return b""


def _decode_hex(text: str) -> bytes:
    return bytes.fromhex(re.sub(r"0x|[\s:,]", "", text))


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)


_DECODERS: tuple[tuple[ViewKind, re.Pattern[str], Callable[[str], bytes]], ...] = (
    ("base64", _BASE64, _decode_base64),
    ("hex", _HEX, _decode_hex),
)
_UNESCAPES: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (_PERCENT, lambda text: unquote(text.replace("+", " "))),
    (_ENTITIES, html.unescape),
    (_ESCAPES, _unescape),
)


def _read_text(data: bytes) -> str | None:
    """Read bytes that are text, of words or of letters beyond ASCII."""
    try:
        text = data.decode()
        for _ in range(MAX_NESTED):
            if not _BASE64.fullmatch(text):
                break
            text = _decode_base64(text).decode()
    except UnicodeDecodeError:
        return None
    if len(text) < MIN_DECODED_CHARACTERS and text.isascii():
        return None
    if not text.translate({9: " ", 10: " ", 13: " "}).isprintable():
        return None
    letters = sum(letter.isalpha() for letter in text)
    return text if letters * 2 > len(text) and (" " in text or not text.isascii()) else None


def _drop_overlaps(parts: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    kept: list[tuple[int, int, str]] = []
    for part in sorted(parts):
        if not kept or part[0] >= kept[-1][1]:
            kept.append(part)
    return kept


# How it is written


def _lower_case(view: View) -> Iterator[View]:
    """Lower the letters of a text in capitals, or in capitals and small letters by turns."""
    words = [word for word in map(_trim, view.text.split()) if len(word) > 1 and word.isascii() and word.isalpha()]
    odd = [word for word in words if not word[1:].islower()]
    mixed = sum(not word.isupper() for word in odd)
    known = sum(map(is_known, odd))
    if len(odd) < 3 or len(odd) * 2 < len(words) or known * 2 < len(odd):
        return
    if mixed * 2 < len(odd) and (len(odd) * 10 < len(words) * 8 or _CODE.search(view.text)):
        return  # abbreviations, headings, key words of a program
    lower = "".join(small if len(small := letter.lower()) == 1 else letter for letter in view.text)
    yield View("case", lower, view.starts, view.ends)


def _trim(word: str) -> str:
    return word.strip(".,;:!?\"'()")


def _strip_accents(view: View) -> Iterator[View]:
    """Strip marks from letters, where that makes English words of them."""
    parts, gain = [], 0
    for match in re.finditer(r"[^\W\d_](?:[^\W\d_]|[\u0300-\u036f])*", view.text):
        if match[0].isascii():
            continue
        bare = "".join(one for one in normalise_unicode("NFD", match[0]) if not unicodedata.combining(one))
        if bare != match[0] and bare.isascii():
            parts.append((match.start(), match.end(), bare))
            gain += len(bare) * (is_known(bare) - (not is_known(bare)))
    if gain >= _MIN_GAIN:
        yield replace_parts(view, "accents", parts)


def _join_spaced(view: View) -> Iterator[View]:
    """Join letters that are written apart."""
    parts = []
    for match in _SPACED.finditer(view.text):
        shortest = min(map(len, _GAP.findall(match[0])))
        # Where some gaps are wider, words end there.
        pieces = re.split(rf"[\W_]{{{shortest + 1},}}", match[0])
        words = []
        for piece in pieces:
            letters = _GAP.sub("", piece).lower()
            words += [letters] if is_known(letters) else split_letters(letters)
        known, total = sum(len(word) for word in words if is_known(word)), sum(map(len, words))
        if known >= 8 and known * 10 >= total * 7 and total >= 2.5 * len(words):
            parts.append((match.start(), match.end(), " ".join(words)))
    if parts:
        yield replace_parts(view, "spaced", parts)


def _join_lines(view: View) -> Iterator[View]:
    """Join lines of one word each, where the words make sentences."""
    lines = [line for line in view.text.split("\n") if line.strip()]
    single = [line for line in lines if len(line.split()) == 1]
    common = sum(line.strip(" ,.?!").lower() in _FUNCTION_WORDS for line in single)
    if len(single) >= 5 and len(single) * 10 >= len(lines) * 8 and common * 5 >= len(single):
        parts = [(match.start(), match.end(), " ") for match in re.finditer(r"\s*\n\s*", view.text)]
        yield replace_parts(view, "lines", parts)


_FUNCTION_WORDS = frozenset(
    {
        "the", "a", "an", "to", "of", "and", "in", "is", "for", "how", "do", "does", "you", "i", "me", "my",
        "on", "with", "that", "this", "it", "what", "be", "can", "at", "by", "from", "as", "are", "or", "not",
        "if", "we", "he", "she", "they", "who", "which", "when", "where", "why", "your", "his", "her", "was",
        "will", "would", "should", "have", "has", "had",
    }
)  # fmt: skip


def _read_leet(view: View) -> Iterator[View]:
    """Read digits and signs as the letters that they look like."""
    parts, gain, words = [], 0, set()
    for match in _LEET_WORD.finditer(view.text):
        written = match[0].rstrip("!|+")
        if not written or written.isalpha():
            continue
        meant = next(
            (one for table in (_LEET, _LEET_L) if is_known(one := written.translate(table).lower())), None
        )
        has_letters = any(map(str.isalpha, written))
        if meant is None and has_letters and (spelled := written.translate(_LEET).lower()).isalpha():
            parts.append((match.start(), match.start() + len(written), spelled))
        elif meant is not None and (has_letters or len(written) <= 3):
            parts.append((match.start(), match.start() + len(written), meant))
            if has_letters and len(written) > 2:
                gain += len(written)
                words.add(meant)
    total = sum(map(len, _LEET_WORD.findall(view.text)))
    if len(words) >= 3 and gain >= _MIN_GAIN and gain * 6 >= total:
        yield replace_parts(view, "leet", parts)


def _shift_back(view: View) -> Iterator[View]:
    """Shift letters back by thirteen places."""
    run = _find_run(view.text, lambda word: codecs.encode(word, "rot13"))
    if run is not None:
        start, end = run
        yield replace_parts(view, "rot13", [(start, end, codecs.encode(view.text[start:end], "rot13"))])


def _turn_around(view: View) -> Iterator[View]:
    """Turn what is written backwards around: as a whole, and word by word."""
    run = _find_run(view.text, lambda word: word[::-1])
    if run is None:
        return
    start, end = run
    if start <= 2 and end >= len(view.text) - 2:
        start, end = 0, len(view.text)
    whole = Rewriting(view)
    whole.keep(0, start)
    whole.reverse(start, end)
    whole.keep(end, len(view.text))
    yield whole.build("reversed")
    words = [(m.start(), m.end(), m[0][::-1]) for m in WORD.finditer(view.text, start, end)]
    yield replace_parts(view, "reversed", words)


def _correct_slips(view: View) -> Iterator[View]:
    """Correct swapped, missing, doubled and wrong letters of an English text with many of them."""
    words = [match for match in WORD.finditer(view.text) if len(match[0]) > 1 and match[0].isascii()]
    # What begins with a capital may be a name.
    unknown = [one for one in words if one[0].islower() and len(one[0]) > 2 and not is_known(one[0])]
    common = sum(one[0].lower() in _FUNCTION_WORDS for one in words)
    if len(unknown) < 3 or len(unknown) * 8 < len(words) or common * 7 < len(words):
        return
    step = max(1, -(-len(unknown) // MAX_CORRECTIONS))
    parts = []
    looked_at = unknown[::step]
    for match in looked_at:
        meant = correct_word(match[0].lower())
        if meant is not None:
            parts.append((match.start(), match.end(), meant))
    if len(parts) >= 3 and len(parts) * 10 >= len(looked_at) * 6:
        yield replace_parts(view, "typos", parts)


def _find_run(text: str, change: Callable[[str], str]) -> tuple[int, int] | None:
    """Find the run of words whose change gains most letters of common words, if it gains enough."""
    words = list(WORD.finditer(text))
    best, best_run, total, first = 0.0, (0, 0), 0.0, 0
    for i, match in enumerate(words):
        word = match[0]
        meant, written = word.isascii() and is_known(change(word)), is_known(word)
        gain = float(len(word) * (meant - written)) if meant or written else -1.0
        if total <= 0:
            total, first = 0.0, i
        total += gain / 2 if len(word) < 4 else gain
        if total > best:
            best, best_run = total, (first, i)
    if best < _MIN_GAIN:
        return None
    first, last = best_run
    # Words that make sense either way belong to the run beside them.
    while first > 0 and is_known(change(words[first - 1][0])):
        first -= 1
    while last + 1 < len(words) and is_known(change(words[last + 1][0])):
        last += 1
    start, end = words[first].start(), words[last].end()
    changed = WORD.sub(lambda match: change(match[0]), text[start:end])
    return (start, end) if measure_known_share(changed) >= 0.5 else None
