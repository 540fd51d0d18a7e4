"""Incremental parsers of a tool call's input, which give it as parts of one JSON object."""

import json
import re
from collections.abc import Callable, Iterator
from typing import NoReturn

from commonweight.prompting.constrain.arguments import Argument, get_kind, read_arguments
from commonweight.prompting.constrain.schema import Schema
from commonweight.prompting.formats import ArgumentMarkup
from commonweight.prompting.parse.buffer import TextBuffer


class JsonInputParser:
    """Scanner for the end of a JSON object, array or string, which is passed on as it is."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_string = self._is_escaped = False
        self.is_complete = False

    def read(self, buffer: TextBuffer) -> Iterator[str]:
        """Consume the JSON in the buffer up to its end."""
        if part := buffer.take(self._length(buffer.text)):
            yield part

    def _length(self, text: str) -> int:
        for i, c in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_string:
                self._is_escaped = c == "\\"
                self._is_string = c != '"'
            elif c == '"':
                self._is_string = True
            elif c in "{[":
                self._depth += 1
            elif c in "}]":
                self._depth -= 1
            self.is_complete = c in '"}]' and not self._is_string and self._depth <= 0
            if self.is_complete:
                return i + 1
        return len(text)


class ArgumentInputParser:
    """Parser for arguments between tags. Values of string arguments become JSON strings."""

    def __init__(self, syntax: ArgumentMarkup, end: str, tool: Schema) -> None:
        self._syntax = syntax
        self._end = end
        self._named, self._others = read_arguments(tool)
        self._kinds: frozenset[str] = frozenset()
        """Kinds of the value, if it is none of those listed."""
        self._listed: dict[str, str] = {}
        """Listed values by their texts, each with its JSON."""
        self._json = JsonInputParser()
        self._has_arguments = False
        self._state: Callable[[TextBuffer], Iterator[str]] = self._parse_key
        self.is_complete = False

    def read(self, buffer: TextBuffer) -> Iterator[str]:
        """Consume arguments in the buffer up to the end of the call."""
        while not self.is_complete:
            before = self._state, len(buffer.text)
            yield from self._state(buffer)
            if (self._state, len(buffer.text)) == before:
                return

    def _parse_key(self, buffer: TextBuffer) -> Iterator[str]:
        syntax, text = self._syntax, buffer.text
        if text.startswith(syntax.before_key):
            rest = text.removeprefix(syntax.before_key)
            # A key of the schema may contain the markup that ends keys.
            key = next((key for key in self._named if rest.startswith(key + syntax.before_value)), None)
            if key is None and not any((k + syntax.before_value).startswith(rest) for k in self._named):
                key = rest[:end] if (end := rest.find(syntax.before_value)) >= 0 else None
            if key is not None:
                buffer.take(len(syntax.before_key))
                name = json.dumps(buffer.take(len(key)), ensure_ascii=False)
                buffer.take(len(syntax.before_value))
                yield f"{', ' if self._has_arguments else '{'}{name}: "
                self._has_arguments = True
                values = (self._named.get(key) or self._others or Argument()).values
                self._kinds, self._listed = values.open_kinds, values.write(syntax.after_value)
                self._state = self._parse_value
        elif text.startswith(self._end):
            yield "}" if self._has_arguments else "{}"
            self.is_complete = True

    def _parse_value(self, buffer: TextBuffer) -> Iterator[str]:
        ending, kinds = self._syntax.after_value, self._kinds
        value = next((text for text in self._listed if buffer.text.startswith(text + ending)), None)
        if value is not None:
            buffer.take(len(value + ending))
            yield self._listed[value]
            self._state = self._parse_key
        elif any((text + ending).startswith(buffer.text) for text in self._listed):
            return
        elif "string" not in kinds:
            if buffer.text:
                self._json = JsonInputParser()
                self._state = self._parse_structure if buffer.text[0] in '{["' else self._parse_scalar
        else:
            text, is_complete_value = buffer.peek_before(ending)
            if is_complete_value:
                text, _ = buffer.take_until(ending)
                yield text if _is_json(text, kinds) else json.dumps(text, ensure_ascii=False)
                self._state = self._parse_key
            elif not _may_be_json(text, kinds):
                yield '"'
                self._state = self._parse_string

    def _parse_string(self, buffer: TextBuffer) -> Iterator[str]:
        text, marker = buffer.take_until(self._syntax.after_value)
        if text:
            yield json.dumps(text, ensure_ascii=False)[1:-1]
        if marker is not None:
            yield '"'
            self._state = self._parse_key

    def _parse_scalar(self, buffer: TextBuffer) -> Iterator[str]:
        text, marker = buffer.take_until(self._syntax.after_value)
        if text:
            yield text
        if marker is not None:
            self._state = self._parse_key

    def _parse_structure(self, buffer: TextBuffer) -> Iterator[str]:
        yield from self._json.read(buffer)
        if self._json.is_complete:
            self._state = self._parse_structure_end

    def _parse_structure_end(self, buffer: TextBuffer) -> Iterator[str]:
        _, marker = buffer.take_until(self._syntax.after_value)
        if marker is not None:
            self._state = self._parse_key
        yield from ()


def _is_json(text: str, kinds: frozenset[str]) -> bool:
    """Whether the text of a value is JSON of one of the kinds, and not a string."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return get_kind(value) in kinds - {"string"}


def _may_be_json(text: str, kinds: frozenset[str]) -> bool:
    """Whether the incomplete text of a value may become such JSON."""
    openings = "{" * ("object" in kinds) + "[" * ("array" in kinds)
    return (openings != "" and text[:1] in openings) or (
        "number" in kinds and re.fullmatch(r"(-?([0-9][0-9.eE+-]*)?)?", text) is not None
    )


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the infinities are not JSON
