"""Cache marks inside texts: where a client's ``cache_control`` stands, carried through a template.

A mark is a lone surrogate, which no text of a request can hold. It is taken out again before anything is
tokenised, so that a mark that moves changes no token.
"""

from typing import Literal

Ttl = Literal["5m", "1h"]

_CHARACTERS: dict[Ttl, str] = {"5m": "\udc85", "1h": "\udc86"}
MARKS: dict[str, Ttl] = {character: ttl for ttl, character in _CHARACTERS.items()}


def mark(ttl: Ttl) -> str:
    """What stands in a text for a mark."""
    return _CHARACTERS[ttl]


def take_out(text: str) -> tuple[str, list[tuple[int, Ttl]]]:
    """The text without marks, and where in it they stood."""
    if not any(character in text for character in MARKS):
        return text, []
    found: list[tuple[int, Ttl]] = []
    kept: list[str] = []
    length = done = 0
    for i, character in enumerate(text):
        if character in MARKS:
            kept.append(text[done:i])
            length += i - done
            done = i + 1
            found.append((length, MARKS[character]))
    return "".join([*kept, text[done:]]), found


def put_back(text: str, marks: list[tuple[int, Ttl]]) -> str:
    """The text with its marks again."""
    for place, ttl in reversed(marks):
        text = text[:place] + mark(ttl) + text[place:]
    return text
