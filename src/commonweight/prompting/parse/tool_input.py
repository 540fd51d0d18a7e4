"""The input of a call, read as one JSON object, in parts."""

import json
import re
from collections.abc import Callable, Iterator
from typing import NoReturn

from commonweight.prompting.arguments import ANYTHING, Argument, arguments_of, kind_of
from commonweight.prompting.formats import Arguments
from commonweight.prompting.schema import Schema
from commonweight.prompting.unread import Unread


class JsonInput:
    """An object, an array or a string that stands there as JSON."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_string = self._is_escaped = False
        self.is_complete = False

    def read(self, unread: Unread) -> Iterator[str]:
        """What is there of it."""
        if part := unread.take(self._length(unread.text)):
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


class ArgumentsInput:
    """Arguments, each between tags. Those that the schema calls text become JSON strings."""

    def __init__(self, around: Arguments, end: str, tool: Schema) -> None:
        self._around = around
        self._end = end
        self._named, self._others = arguments_of(tool)
        self._argument = ANYTHING
        self._json = JsonInput()
        self._has_arguments = False
        self._state: Callable[[Unread], Iterator[str]] = self._key
        self.is_complete = False

    def read(self, unread: Unread) -> Iterator[str]:
        """What is there of it, up to the text that ends it."""
        while not self.is_complete:
            before = self._state, len(unread.text)
            yield from self._state(unread)
            if (self._state, len(unread.text)) == before:
                return

    def _key(self, unread: Unread) -> Iterator[str]:
        around, text = self._around, unread.text
        if text.startswith(around.before_key):
            rest = text.removeprefix(around.before_key)
            # The key may hold what stands after keys.
            key = next((key for key in self._named if rest.startswith(key + around.before_value)), None)
            if key is None and not any((k + around.before_value).startswith(rest) for k in self._named):
                key = rest[:place] if (place := rest.find(around.before_value)) >= 0 else None
            if key is not None:
                unread.take(len(around.before_key))
                name = json.dumps(unread.take(len(key)), ensure_ascii=False)
                unread.take(len(around.before_value))
                yield f"{', ' if self._has_arguments else '{'}{name}: "
                self._has_arguments = True
                self._argument = self._named.get(key) or self._others or ANYTHING
                self._state = self._value
        elif text.startswith(self._end):
            yield "}" if self._has_arguments else "{}"
            self.is_complete = True

    def _value(self, unread: Unread) -> Iterator[str]:
        kinds = self._argument.kinds
        if "string" not in kinds:
            if unread.text:
                self._json = JsonInput()
                self._state = self._structure if unread.text[0] in '{["' else self._scalar
            return
        text, is_whole = unread.before(self._around.after_value)
        if is_whole:
            text, _ = unread.until(self._around.after_value)
            yield text if _is_json(text, self._argument) else json.dumps(text, ensure_ascii=False)
            self._state = self._key
        elif not _may_be_json(text, self._argument):
            yield '"'
            self._state = self._text

    def _text(self, unread: Unread) -> Iterator[str]:
        text, marker = unread.until(self._around.after_value)
        if text:
            yield json.dumps(text, ensure_ascii=False)[1:-1]
        if marker is not None:
            yield '"'
            self._state = self._key

    def _scalar(self, unread: Unread) -> Iterator[str]:
        text, marker = unread.until(self._around.after_value)
        if text:
            yield text
        if marker is not None:
            self._state = self._key

    def _structure(self, unread: Unread) -> Iterator[str]:
        yield from self._json.read(unread)
        if self._json.is_complete:
            self._state = self._after_structure

    def _after_structure(self, unread: Unread) -> Iterator[str]:
        _, marker = unread.until(self._around.after_value)
        if marker is not None:
            self._state = self._key
        yield from ()


def _is_json(text: str, argument: Argument) -> bool:
    """Whether a value that may be text is meant as something else."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return kind_of(value) in argument.kinds - {"string"} and text not in (argument.choices or ())


def _may_be_json(text: str, argument: Argument) -> bool:
    """Whether a value that is not whole yet may turn out to be meant so."""
    kinds = argument.kinds
    words = ["null"] * ("null" in kinds) + ["true", "false"] * ("boolean" in kinds)
    openings = "{" * ("object" in kinds) + "[" * ("array" in kinds)
    return (
        any(word.startswith(text) for word in words)
        or (openings != "" and text[:1] in openings)
        or ("number" in kinds and re.fullmatch(r"(-?([0-9][0-9.eE+-]*)?)?", text) is not None)
    )


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the infinities are no JSON
