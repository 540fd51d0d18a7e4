"""How a family of models writes what is not plain text: its reasoning, and calls of tools.

A format is data: the pieces of template text around a call. The grammar that holds a model to it, the parser that
reads it, and the prompt text for models whose template does not explain it are all made from the same pieces.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

# Lone surrogates, which are in no text.
CALL_ID = "\udc81" * 9
"""In a format's text: an id that the model makes up, nine letters or digits."""
NUMBER = "\udc82"
"""In a format's text: a number that the model counts up."""


@dataclass(frozen=True)
class Tags:
    """What stands around something."""

    opening: str
    closing: str


@dataclass(frozen=True)
class Arguments:
    """Around each argument of a call, where they are not one JSON object. Texts stand there as they are."""

    before_key: str
    before_value: str
    after_value: str


@dataclass(frozen=True)
class Format:
    """One family's way of writing::

    opening  before_name NAME before_input INPUT after_input  between  before_name ...  closing
    """

    name: str
    trigger: str
    """What a call begins with and text never holds."""
    before_name: str
    before_input: str
    after_input: str
    rendered_before_name: str = ""
    """What the family's template writes before the name, where that differs from what the model writes."""
    opening: str = ""
    between: str = ""
    closing: str = ""
    arguments: Arguments | None = None
    """None: the input is one JSON object."""
    thinking: Tags | None = None
    """Around reasoning, where that is part of the format."""
    text_openings: tuple[str, ...] = ()
    """What must stand before text, if anything must: before the last text, and before one that calls follow."""
    after_text: str = ""
    """What stands after text that calls follow."""
    glue: str = ""
    """Between one stretch of an answer and the next."""
    is_whole_answer: bool = False
    """A call is JSON, recognised only at the very beginning, and is all there is."""
    takes_one_call: bool = False
    """The template takes one call a message."""


_Part = TypeVar("_Part", bound=Format | Tags | Arguments)


def iter_texts(part: Format | Tags | Arguments) -> Iterator[str]:
    """All its texts."""
    for value in _values(part).values():
        match value:
            case str():
                yield value
            case tuple():
                yield from value
            case Tags() | Arguments():
                yield from iter_texts(value)


def map_texts(part: _Part, spell: Callable[[str], str]) -> _Part:
    """The same with its texts written in another way."""

    def written(value: Any) -> Any:  # noqa: ANN401 - all kinds of fields
        match value:
            case str():
                return spell(value)
            case tuple():
                return tuple(map(spell, value))
            case Tags() | Arguments():
                return map_texts(value, spell)
            case _:
                return value

    return replace(part, **{name: written(value) for name, value in _values(part).items()})


def _values(part: Format | Tags | Arguments) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part) if field.name != "name"}
