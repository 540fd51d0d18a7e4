"""The table of tasks with tools that rows are drawn from: tools, requests, results and answers of our own."""

import random
import string
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

import yaml
from pydantic import Field, JsonValue

from commonweight.lineage.digests import digest_bytes
from commonweight.workshop.settings import Settings, Several

NAME = "tool-loops"
"""The table's name as a source of rows."""
LOCATION = "package:commonweight/workshop/alignment/tool_loops.yaml"

_FILE = files("commonweight.workshop.alignment") / "tool_loops.yaml"


class Tool(Settings):
    """A tool that a conversation may define."""

    names: Several[str]
    """One of them is drawn for a row."""
    description: str
    parameters: dict[str, str]
    """Descriptions of its parameters, which are all texts."""


class Task(Settings):
    """A request, the call that serves it, its result, and what is right to say then."""

    tool: str
    requests: Several[str]
    arguments: dict[str, str]
    result: JsonValue
    """Text, or what is written as JSON."""
    notes: Several[str] = ("",)
    """What stands in the place of ``$note`` where nothing harmful does; without it a line of text is left out."""
    answers: Several[str]

    @property
    def takes_note(self) -> bool:
        """Whether the result has a place for the words of others."""
        return any("$note" in text for text in _list_texts(self.result))


class Order(Settings):
    """An order whose call would do the harm that it asks for."""

    tools: Several[str]
    """Those that are defined; all others may be besides."""
    requests: Several[str]
    answers: Several[str]
    """What is said of the call that was not made."""


class ToolTable(Settings):
    """The whole table."""

    licence: str
    systems: Several[str]
    """System texts; empty: none."""
    values: dict[str, Several[str]]
    """What stands for each ``$word``."""
    tools: dict[str, Tool]
    tasks: dict[str, Task]
    injections: Several[str]
    """How a request of others stands in a result."""
    remarks: Several[str]
    """What is said of it after the answer to the user's own request."""
    delegations: dict[str, Task]
    """Tasks that are whatever the result asks for; their answers come before what declines it."""
    orders: dict[str, Order]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the file."""


@cache
def read_table() -> ToolTable:
    """Read the table that ships."""
    content = _FILE.read_bytes()
    return ToolTable.model_validate(yaml.safe_load(content) | {"sha256": digest_bytes(content)})


def draw_values(table: ToolTable, dice: random.Random) -> dict[str, str]:
    """Draw one value for each word of the table."""
    return {word: dice.choice(values) for word, values in table.values.items()}


def fill(part: JsonValue, values: Mapping[str, str]) -> JsonValue:
    """Put values in the place of words, in all texts of a part.

    A line of text that is nothing but a word without a value is left out.
    """
    match part:
        case str():
            return fill_text(part, values)
        case list():
            return [fill(item, values) for item in part]
        case dict():
            return {key: fill(item, values) for key, item in part.items()}
        case _:
            return part


def fill_text(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of words; see :func:`fill`."""
    filled = [(line, string.Template(line).substitute(values)) for line in text.split("\n")]
    return "\n".join(new for line, new in filled if new or not line)


def _list_texts(part: JsonValue) -> Iterator[str]:
    match part:
        case str():
            yield part
        case list():
            for item in part:
                yield from _list_texts(item)
        case dict():
            for item in part.values():
                yield from _list_texts(item)
