"""Untrusted text may look like template text. It must never become what template text becomes.

A chat template mixes its own markup and the text of users, tools and documents into one string, in which
``<|im_start|>`` typed by a user looks the same as the template's. So text is *quoted* before it goes in: a mark
(a lone surrogate, which no text of a request can hold) breaks every special token inside the text, and stands at
either end where the text could complete one together with its neighbours. In the rendered prompt only unbroken
special tokens are special. Templates may trim, split, join and compare quoted text: all that can lose is a mark at
an edge that the template itself cut. For templates that take something out of the middle of a text, so that what
stood apart comes together, quoting is thorough: nothing in the text that could begin a special token stays whole.
"""

from collections.abc import Iterator
from typing import Any

from commonweight.prompting.marks import extract_marks
from commonweight.prompting.tokens.special_tokens import SpecialTokens

BREAK = "\udc87"

# What templates know of JSON schemas, and compare: it stays as it is. Nobody says more by these words than the
# template itself might.
_SCHEMA_WORDS = frozenset(
    {
        *("type", "function", "name", "description", "parameters", "arguments", "return"),
        *("properties", "required", "items", "enum", "const", "default", "title", "format", "nullable"),
        *("anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "additionalProperties"),
        *("string", "number", "integer", "boolean", "object", "array", "null"),
    }
)


class Escaper:
    """Quotes texts for one template and tokenizer."""

    def __init__(
        self, specials: SpecialTokens, *, guarded: SpecialTokens | None = None, is_thorough: bool = False
    ) -> None:
        self._specials = specials
        # What is broken in texts: special tokens, and other text that the template itself looks for.
        self._escaped_tokens = guarded or specials
        self._is_thorough = is_thorough

    def escape(self, text: str) -> str:
        """The text, broken where it contains a special token or could complete one. Its marks stay."""
        text, marks = extract_marks(text)
        body = text.strip()
        if not body:
            return text
        # Everything goes inside of surrounding space, so that a template's trim leaves it in place.
        start = text.index(body)
        end = start + len(body)
        find = self._escaped_tokens.find_initials if self._is_thorough else self._escaped_tokens.find_starts
        positions = {position + 1 for position in find(text)}
        if self._is_thorough or self._escaped_tokens.may_be_completed_before(body):
            positions.add(start)
        if self._escaped_tokens.may_be_completed_after(body):
            positions.add(end)
        inserted = [(position, BREAK) for position in positions]
        inserted += [(min(max(position, start), end), character) for position, character in marks]
        if not inserted:
            return text
        parts = []
        done = 0
        for position, character in sorted(inserted, key=lambda one: one[0]):
            parts += [text[done:position], character]
            done = position
        return "".join([*parts, text[done:]])

    def escape_json(self, value: Any) -> Any:  # noqa: ANN401 - any JSON
        """JSON whose texts are quoted, keys and all, but for the words of JSON schemas."""
        if isinstance(value, str):
            return value if value in _SCHEMA_WORDS else self.escape(value)
        if isinstance(value, list):
            return [self.escape_json(part) for part in value]
        if isinstance(value, dict):
            return {self.escape_json(key): self.escape_json(part) for key, part in value.items()}
        return value

    def split_special(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """A rendered prompt as ``(text, is special)`` pieces; texts stay quoted."""
        done = 0
        for start in self._specials.find_starts(rendered):
            if start >= done:
                end = start + self._specials.match_length(rendered, start)
                if start > done:
                    yield rendered[done:start], False
                yield rendered[start:end], True
                done = end
        if done < len(rendered):
            yield rendered[done:], False


def unescape(text: str) -> str:
    """Quoted text as it was."""
    return text.replace(BREAK, "")
