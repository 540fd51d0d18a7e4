"""Invisible marks in texts, which carry positions through a chat template.

A mark consists of lone surrogates, which no text of a request can hold. Marks are removed before anything is
tokenized, so that one that moves changes no token.
"""

import re
from collections.abc import Iterable

from commonweight.messages.caching import CacheTtl

_CACHE: dict[CacheTtl, str] = {"5m": "\udc85", "1h": "\udc86"}
TTL_BY_MARK: dict[str, CacheTtl] = {mark: ttl for ttl, mark in _CACHE.items()}
AFTER_TEXT, AFTER_REASONING, AFTER_CALL, BEFORE_NON_ASSISTANT = "\udc88", "\udc89", "\udc8a", "\udc8b"
"""After text, reasoning and the name of a call in assistant messages; before the text of any other message.

Only marks in assistant messages are numbered: templates compare texts of user messages, so equal texts stay equal.
"""

_ZERO = 0xDCF0
# Without alternatives, which would take seven times as long.
_MARK = re.compile(
    f"[{''.join(TTL_BY_MARK)}{AFTER_TEXT}{AFTER_REASONING}{AFTER_CALL}{BEFORE_NON_ASSISTANT}]"
    f"[{chr(_ZERO)}-{chr(_ZERO + 9)}]*"
)

MarkPosition = tuple[int, str]
"""A position in a text without marks, and the mark that belongs there."""


def make_cache_mark(ttl: CacheTtl) -> str:
    """The mark of a client's ``cache_control``."""
    return _CACHE[ttl]


def make_numbered_mark(kind: str, number: int) -> str:
    """The mark of a kind for the message with an index."""
    return kind + "".join(chr(_ZERO + int(digit)) for digit in str(number))


def read_number(mark: str) -> int:
    """The message index in a numbered mark."""
    return int("".join(str(ord(digit) - _ZERO) for digit in mark[1:]))


def extract_marks(text: str) -> tuple[str, list[MarkPosition]]:
    """The text without marks, and the marks with their positions in it."""
    marks: list[MarkPosition] = []
    length = 0
    for match in _MARK.finditer(text):
        marks.append((match.start() - length, match[0]))
        length += len(match[0])
    return (_MARK.sub("", text) if marks else text), marks


def strip_marks(text: str, kinds: Iterable[str] | None = None) -> str:
    """The text without marks, or without marks of some kinds only."""
    return _MARK.sub("" if kinds is None else lambda match: "" if match[0][0] in kinds else match[0], text)
