"""Text as terms of a grammar in llguidance's dialect of Lark.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
import re
from collections.abc import Mapping

from commonweight.prompting.formats import CALL_ID, NUMBER
from commonweight.prompting.tokens.special_tokens import SpecialTokens

_MADE_UP = {CALL_ID: "/[a-zA-Z0-9]{9}/", NUMBER: "/[0-9]{1,9}/"}


def quote_string(text: str) -> str:
    """The text itself."""
    # Strings are JSON's, but that DEL may not stand in them.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def regex_containing(text: str) -> str:
    """A regular expression for all that contains this text."""
    escaped = "".join(f"\\{c}" if c in r"\/.*+?()[]{}|^$&~" else c for c in text)
    return f"/(.|\\n)*{escaped}(.|\\n)*/"


class MarkupWriter:
    """Writes a family's markup for one tokenizer: special tokens by id, the rest as strings."""

    def __init__(self, special_tokens: Mapping[str, int]) -> None:
        self._ids = special_tokens
        self._specials = SpecialTokens(special_tokens)

    def begins_with_token(self, text: str) -> bool:
        """Whether this begins with a special token, as no text does."""
        return self._specials.match_length(text, 0) > 0

    def split(self, text: str) -> tuple[str, str]:
        """What stands before the first special token in a format's text, and the rest as terms."""
        start = next(self._specials.find_starts(text), len(text))
        return text[:start], self.write(text[start:])

    def write(self, text: str) -> str:
        """A format's text as terms, one after the other; nothing for no text."""
        terms: list[str] = []
        done = 0
        for start in self._specials.find_starts(text):
            if start >= done:
                terms += _strings(text[done:start])
                done = start + self._specials.match_length(text, start)
                terms.append(f"<[{self._ids[text[start:done]]}]>")
        return " ".join(terms + _strings(text[done:]))


def _strings(text: str) -> list[str]:
    parts = re.split(f"({CALL_ID}|{NUMBER})", text)
    return [_MADE_UP.get(part) or quote_string(part) for part in parts if part]
