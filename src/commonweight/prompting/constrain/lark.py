"""Terms of grammars in llguidance's dialect of Lark: strings, regular expressions, special tokens.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
import re
from collections.abc import Mapping

from commonweight.prompting.formats import CALL_ID, NUMBER
from commonweight.prompting.tokens.special_tokens import SpecialTokens

_PLACEHOLDERS = {CALL_ID: "/[a-zA-Z0-9]{9}/", NUMBER: "/[0-9]{1,9}/"}


def quote_string(text: str) -> str:
    """A term for exactly this text."""
    # Strings are those of JSON, except that DEL must be escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def make_regex_containing(text: str) -> str:
    """A regular expression for every text that contains this one."""
    escaped = "".join(f"\\{c}" if c in r"\/.*+?()[]{}|^$&~" else c for c in text)
    return f"/(.|\\n)*{escaped}(.|\\n)*/"


class MarkupWriter:
    """Writer of a format's markup as terms for one tokenizer: special tokens by id, the rest as strings."""

    def __init__(self, special_tokens: Mapping[str, int]) -> None:
        self._ids = special_tokens
        self._special_tokens = SpecialTokens(special_tokens)

    def begins_with_token(self, text: str) -> bool:
        """Whether the text begins with a special token."""
        return self._special_tokens.match_length(text, 0) > 0

    def has_token(self, text: str) -> bool:
        """Whether the text of a special token stands in the text."""
        return next(self._special_tokens.find_starts(text), None) is not None

    def split(self, text: str) -> tuple[str, str]:
        """The markup before its first special token as text, and the rest as terms."""
        start = next(self._special_tokens.find_starts(text), len(text))
        return text[:start], self.write(text[start:])

    def write(self, text: str) -> str:
        """Markup as a sequence of terms; empty for empty markup."""
        terms: list[str] = []
        done = 0
        for start in self._special_tokens.find_starts(text):
            if start >= done:
                terms += _strings(text[done:start])
                done = start + self._special_tokens.match_length(text, start)
                terms.append(f"<[{self._ids[text[start:done]]}]>")
        return " ".join(terms + _strings(text[done:]))


def _strings(text: str) -> list[str]:
    parts = re.split(f"({CALL_ID}|{NUMBER})", text)
    return [_PLACEHOLDERS.get(part) or quote_string(part) for part in parts if part]
