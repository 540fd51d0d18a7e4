"""Arguments of a tool by its JSON schema, for formats that write each argument between tags."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from commonweight.prompting.constrain.schema import Schema

KINDS = frozenset({"string", "number", "boolean", "null", "object", "array"})
"""Kinds of JSON values."""


@dataclass(frozen=True)
class Argument:
    """Schema of one argument, and the kinds of JSON values that it allows."""

    schema: Schema
    """With the definitions that it refers to."""
    kinds: frozenset[str] = KINDS
    is_required: bool = False

    @property
    def choices(self) -> list[Any] | None:
        """All values, if the schema lists them (``const``, ``enum``)."""
        listed = [self.schema["const"]] if "const" in self.schema else self.schema.get("enum")
        return (
            [choice for choice in listed if get_kind(choice) in self.kinds] if isinstance(listed, list) else None
        )


ANYTHING = Argument({})


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
    return {n: argument for n, argument in named.items() if argument.kinds}, others if others.kinds else None


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


class _SchemaReader:
    """Reader of the subschemas of one schema, with references resolved."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
        self._referred: dict[str, frozenset[str]] = {}

    def argument(self, schema: object, *, is_required: bool = False) -> Argument:
        return Argument(self.resolve(schema) | self._definitions, self._kinds(schema), is_required)

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

    def _kinds(self, schema: object) -> frozenset[str]:
        if not isinstance(schema, dict):
            return frozenset() if schema is False else KINDS
        kinds = KINDS
        if isinstance(ref := schema.get("$ref"), str):
            if ref not in self._referred:
                self._referred[ref] = KINDS  # for the recursion: it may refer to itself
                self._referred[ref] = self._kinds(self._follow_ref(ref))
            kinds &= self._referred[ref]
        if types := schema.get("type"):
            named = [types] if isinstance(types, str) else types
            kinds &= {"number" if name == "integer" else name for name in named}
        choices = Argument(schema).choices
        if choices is not None:
            kinds &= {get_kind(choice) for choice in choices}
        for key in ("anyOf", "oneOf"):
            if key in schema:
                kinds &= frozenset[str]().union(*map(self._kinds, schema[key]))
        for part in schema.get("allOf", ()):
            kinds &= self._kinds(part)
        return kinds
