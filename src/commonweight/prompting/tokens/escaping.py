"""Escaping of special tokens in untrusted text before it goes into a chat template.

A chat template mixes its own markup and the text of users, tools and documents into one string, in which
``<|im_start|>`` typed by a user looks the same as the template's. So text is escaped first: a break (a lone
surrogate, which no text of a request can hold) is inserted into every special token inside the text, and at either
end where the text could complete one together with its neighbours. So templates find no special tokens in texts,
and may trim, split, join and compare them: at most a break at an edge is lost, which the template itself cut. In
the rendered prompt only unbroken special tokens are special; ``tracing`` breaks those that the template made of a
text.
"""

from collections.abc import Collection, Iterator
from typing import Any

from commonweight.prompting.marks import extract_marks
from commonweight.prompting.tokens.special_tokens import SpecialTokens

BREAK = "\udc87"

# Words of JSON schemas that templates compare. They are not escaped, since the template might write them itself.
_SCHEMA_WORDS = frozenset(
    {
        *("type", "function", "name", "description", "parameters", "arguments", "return"),
        *("properties", "required", "items", "enum", "const", "default", "title", "format", "nullable"),
        *("anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "additionalProperties"),
        *("string", "number", "integer", "boolean", "object", "array", "null"),
    }
)


class Escaper:
    """Escapes texts for one chat template and tokenizer, and splits rendered prompts at special tokens."""

    def __init__(self, special_tokens: SpecialTokens, *, guarded: SpecialTokens | None = None) -> None:
        """``guarded``: tokens to break in texts, if the template searches texts for more than the special ones."""
        self._special_tokens = special_tokens
        self._guarded = guarded or special_tokens

    def escape(self, text: str) -> str:
        """The text with breaks where it contains a special token or could complete one. Its marks stay.

        Raises:
            UnicodeEncodeError: the text holds a lone surrogate that is no mark.
        """
        text, marks = extract_marks(text)
        text.encode()
        body = text.strip()
        if not body:
            return text
        # Nothing is inserted outside of surrounding white space, where a template's trim would find it.
        start = text.index(body)
        end = start + len(body)
        positions = {position + 1 for position in self._guarded.find_starts(text)}
        if self._guarded.may_be_completed_before(body):
            positions.add(start)
        if self._guarded.may_be_completed_after(body):
            positions.add(end)
        insertions = [(position, BREAK) for position in positions]
        insertions += [(min(max(position, start), end), mark) for position, mark in marks]
        return insert(text, insertions)

    def escape_json(self, value: Any) -> Any:  # noqa: ANN401 - any JSON
        """JSON with its strings and keys escaped, except words of JSON schemas."""
        if isinstance(value, str):
            return value if value in _SCHEMA_WORDS else self.escape(value)
        if isinstance(value, list):
            return [self.escape_json(part) for part in value]
        if isinstance(value, dict):
            return {self.escape_json(key): self.escape_json(part) for key, part in value.items()}
        return value

    def split_special(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """A rendered prompt as ``(text, is_special)`` pieces; texts stay escaped."""
        done = 0
        for start in self._special_tokens.find_starts(rendered):
            if start >= done:
                end = start + self._special_tokens.match_length(rendered, start)
                if start > done:
                    yield rendered[done:start], False
                yield rendered[start:end], True
                done = end
        if done < len(rendered):
            yield rendered[done:], False


def insert(text: str, insertions: Collection[tuple[int, str]]) -> str:
    """The text with other texts inserted at positions in it."""
    if not insertions:
        return text
    parts = []
    done = 0
    for position, inserted in sorted(insertions, key=lambda insertion: insertion[0]):
        parts += [text[done:position], inserted]
        done = position
    return "".join([*parts, text[done:]])


def unescape(text: str) -> str:
    """The text without breaks."""
    return text.replace(BREAK, "")
