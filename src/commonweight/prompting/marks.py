"""Marks inside texts: places that are carried through a template, to be found again in what it writes.

A mark is made of lone surrogates, which no text of a request can hold. Marks are taken out again before anything
is tokenised, so that one that moves changes no token.
"""

import re
from collections.abc import Iterable

from commonweight.messages.content import CacheTtl

_CACHE: dict[CacheTtl, str] = {"5m": "\udc85", "1h": "\udc86"}
TTL_BY_MARK: dict[str, CacheTtl] = {character: ttl for ttl, character in _CACHE.items()}
SAID, THOUGHT, CALLED, REPLY = "\udc88", "\udc89", "\udc8a", "\udc8b"
"""After a text of the assistant, its reasoning, and the name of a call; before what anybody else says.

Messages that are equal stay so: templates compare what the user says.
"""

_ZERO = 0xDCF0
_MARK = re.compile(f"[{''.join(TTL_BY_MARK)}{REPLY}]|[{SAID}{THOUGHT}{CALLED}][{chr(_ZERO)}-{chr(_ZERO + 9)}]*")

MarkPosition = tuple[int, str]
"""A place in a text, and the mark that stood there."""


def make_cache_mark(ttl: CacheTtl) -> str:
    """A client's ``cache_control``, as it stands in a text."""
    return _CACHE[ttl]


def make_numbered_mark(kind: str, number: int) -> str:
    """A mark of the assistant's message with this number."""
    return kind + "".join(chr(_ZERO + int(digit)) for digit in str(number))


def read_number(mark: str) -> int:
    """The number of a numbered mark."""
    return int("".join(str(ord(digit) - _ZERO) for digit in mark[1:]))


def extract_marks(text: str) -> tuple[str, list[MarkPosition]]:
    """The text without marks, and where in it each of them stood."""
    found: list[MarkPosition] = []
    length = 0
    for match in _MARK.finditer(text):
        found.append((match.start() - length, match[0]))
        length += len(match[0])
    return (_MARK.sub("", text) if found else text), found


def strip_marks(text: str, kinds: Iterable[str] | None = None) -> str:
    """The text without marks, or only without those of the kinds."""
    return _MARK.sub("" if kinds is None else lambda match: "" if match[0][0] in kinds else match[0], text)
