"""Arguments of a tool by its JSON schema, for formats that write each argument between tags."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from commonweight.prompting.constrain.schema import Schema

KINDS = frozenset({"string", "number", "boolean", "null", "object", "array"})
"""Kinds of JSON values."""


def get_kind(value: object) -> str:
    """The kind of a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
        case dict():
            return "object"
        case _:
            return "array"


@dataclass(frozen=True)
class Values:
    """The values that a schema allows: single ones, and all of some kinds as far as the rest of it goes."""

    listed: Mapping[str, Any]
    """By their JSON: true, false and null, and what ``const`` and ``enum`` list."""
    open_kinds: frozenset[str]

    @classmethod
    def of(cls, values: Iterable[Any], open_kinds: Iterable[str] = ()) -> "Values":
        """These values, and all of some kinds."""
        return cls({json.dumps(value, ensure_ascii=False): value for value in values}, frozenset(open_kinds))

    @property
    def kinds(self) -> frozenset[str]:
        """All kinds of these values."""
        return self.open_kinds | {get_kind(value) for value in self.listed.values()}

    def write(self, ending: str) -> dict[str, str]:
        """The listed values by their texts, with their JSON. Strings are written raw, the rest as JSON.

        Of two values with one text (``"1"`` and 1), the string counts. A text that begins like another one with
        ``ending``, the markup after a value, is left out: nothing would show which of them is meant.
        """
        by_kind: tuple[dict[str, str], dict[str, str]] = {}, {}
        for text, value in self.listed.items():
            is_string = isinstance(value, str)
            by_kind[is_string][value if is_string else text] = text
        texts = by_kind[False] | by_kind[True]

        def is_unclear(text: str) -> bool:
            position = (text + ending).find(ending)
            while position < len(text):
                if text[:position] in texts:
                    return True
                position = (text + ending).find(ending, position + 1)
            return False

        return {text: value for text, value in texts.items() if not is_unclear(text)}

    def __or__(self, other: "Values") -> "Values":
        open_kinds = self.open_kinds | other.open_kinds
        listed = {**self.listed, **other.listed}
        return Values(
            {text: value for text, value in listed.items() if get_kind(value) not in open_kinds}, open_kinds
        )

    def __and__(self, other: "Values") -> "Values":
        listed = {**self.listed, **other.listed}
        return Values(
            {text: value for text, value in listed.items() if self._has(text, value) and other._has(text, value)},
            self.open_kinds & other.open_kinds,
        )

    def _has(self, text: str, value: object) -> bool:
        return text in self.listed or get_kind(value) in self.open_kinds


_NOTHING = Values({}, frozenset())
_BY_KIND = {kind: Values({}, frozenset({kind})) for kind in KINDS} | {
    "null": Values.of([None]),
    "boolean": Values.of([True, False]),
    "integer": Values({}, frozenset({"number"})),
}
ALL_VALUES = reduce(Values.__or__, _BY_KIND.values())


@dataclass(frozen=True)
class Argument:
    """Schema of one argument, and the values that it allows."""

    schema: Schema = field(default_factory=dict)
    """With the definitions that it refers to."""
    values: Values = ALL_VALUES
    is_required: bool = False

    def make_schema_of_open_kinds(self) -> Schema:
        """The schema without the values that it lists."""
        definitions = {key: self.schema[key] for key in _DEFINITIONS if key in self.schema}
        return {"allOf": [self.schema, {"type": sorted(self.values.open_kinds)}], **definitions}


_DEFINITIONS = ("$defs", "definitions")


def read_arguments(tool: Schema) -> tuple[Mapping[str, Argument], Argument | None]:
    """The arguments of a tool by name, in the schema's order; and the argument for other names, if allowed.

    A schema with properties and without ``additionalProperties`` allows no others. ``tool``: a schema that passed
    ``make_json_grammar``, so that it is well formed.
    """
    reader = _SchemaReader(tool)
    tool = reader.resolve(tool)
    properties: dict[str, Any] = tool.get("properties", {})
    required = frozenset(tool.get("required", ()))
    # Required properties need not be described.
    undescribed: dict[str, Any] = dict.fromkeys(sorted(required - properties.keys()), True)
    named = {
        name: reader.argument(schema, is_required=name in required)
        for name, schema in (properties | undescribed).items()
    }
    others = reader.argument(tool.get("additionalProperties", "properties" not in tool))
    allowed = {name: argument for name, argument in named.items() if argument.values.kinds}
    return allowed, others if others.values.kinds else None


class _SchemaReader:
    """Reader of the subschemas of one schema, with references resolved."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._definitions = {key: root[key] for key in _DEFINITIONS if key in root}
        self._referred: dict[str, Values] = {}

    def argument(self, schema: object, *, is_required: bool = False) -> Argument:
        return Argument(self.resolve(schema) | self._definitions, self._values(schema), is_required)

    def resolve(self, schema: object) -> Schema:
        """A schema's own keywords and those of the schema that it refers to."""
        seen: set[str] = set()
        while isinstance(schema, dict) and isinstance(ref := schema.get("$ref"), str) and ref not in seen:
            seen.add(ref)
            target = self._follow_ref(ref)
            if isinstance(target, dict):
                own = {key: value for key, value in schema.items() if key != "$ref"}
                schema = target | own
        return schema if isinstance(schema, dict) else {}

    def _follow_ref(self, ref: str) -> object:
        """The value at a JSON pointer like ``#/a/b``; None if there is none."""
        target: object = self._root
        for step in ref.removeprefix("#").split("/")[1:]:
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        return target

    def _values(self, schema: object) -> Values:
        if not isinstance(schema, dict):
            return _NOTHING if schema is False else ALL_VALUES
        values = ALL_VALUES
        if isinstance(ref := schema.get("$ref"), str):
            if ref not in self._referred:
                self._referred[ref] = ALL_VALUES  # for the recursion: it may refer to itself
                self._referred[ref] = self._values(self._follow_ref(ref))
            values &= self._referred[ref]
        if types := schema.get("type"):
            named = [types] if isinstance(types, str) else types
            values &= reduce(Values.__or__, (_BY_KIND[name] for name in named), _NOTHING)
        if "const" in schema:
            values &= Values.of([schema["const"]])
        if isinstance(choices := schema.get("enum"), list):
            values &= Values.of(choices)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                values &= reduce(Values.__or__, map(self._values, schema[key]), _NOTHING)
        for part in schema.get("allOf", ()):
            values &= self._values(part)
        return values
