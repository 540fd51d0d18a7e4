"""Definition of tool-call formats: the markup of a model family around tool calls, reasoning and text.

A format is data: the pieces of markup around the parts of a call. The grammar, the output parser, and the prompt's
explanation for models whose template has none are all made from the same pieces.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

# Placeholders in markup: lone surrogates, which are in no text.
CALL_ID = "\udc81" * 9
"""An id that the model generates, nine letters or digits."""
NUMBER = "\udc82"
"""The number of a call in the conversation, which the model generates."""


@dataclass(frozen=True)
class Tags:
    """Opening and closing tag."""

    opening: str
    closing: str


@dataclass(frozen=True)
class ArgumentMarkup:
    """Markup of the arguments of a call, in formats without a JSON object for them. Strings are written raw."""

    before_key: str
    before_value: str
    after_value: str


@dataclass(frozen=True)
class ToolCallFormat:
    """Markup of one model family::

    opening  before_name NAME before_input INPUT after_input  between  before_name ...  closing
    """

    name: str
    trigger: str
    """The beginning of a call, which never occurs in text."""
    before_name: str
    before_input: str
    after_input: str
    rendered_before_name: str = ""
    """The chat template's markup before the name, where it differs from the model's."""
    opening: str = ""
    between: str = ""
    closing: str = ""
    arguments: ArgumentMarkup | None = None
    """None: the input is one JSON object."""
    thinking: Tags | None = None
    """Tags of reasoning, if they are part of the format."""
    text_openings: tuple[str, ...] = ()
    """Markup required before text: before the final text, and before text that calls follow."""
    after_text: str = ""
    """Markup after text that calls follow."""
    glue: str = ""
    """Markup between reasoning, text and calls."""
    is_whole_answer: bool = False
    """A call is JSON, recognized only as the whole answer."""
    takes_one_call: bool = False
    """The template takes one call per message."""


_Part = TypeVar("_Part", bound=ToolCallFormat | Tags | ArgumentMarkup)


def iter_texts(part: ToolCallFormat | Tags | ArgumentMarkup) -> Iterator[str]:
    """All pieces of markup in a format, its tags or its argument markup."""
    for value in _values(part).values():
        match value:
            case str():
                yield value
            case tuple():
                yield from value
            case Tags() | ArgumentMarkup():
                yield from iter_texts(value)


def map_texts(part: _Part, convert: Callable[[str], str]) -> _Part:
    """A copy with ``convert`` applied to all pieces of markup."""

    def converted(value: Any) -> Any:  # noqa: ANN401 - all kinds of fields
        match value:
            case str():
                return convert(value)
            case tuple():
                return tuple(map(convert, value))
            case Tags() | ArgumentMarkup():
                return map_texts(value, convert)
            case _:
                return value

    return replace(part, **{name: converted(value) for name, value in _values(part).items()})


def _values(part: ToolCallFormat | Tags | ArgumentMarkup) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part) if field.name != "name"}
