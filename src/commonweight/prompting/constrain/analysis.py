"""What can be said of plain schemas without a grammar: which have values that end, and which share no value."""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
Definitions = Mapping[str, Schema]

_KINDS = frozenset({"null", "boolean", "integer", "fraction", "string", "array", "object"})
_KINDS_BY_TYPE = {"number": frozenset({"integer", "fraction"})}
_MAX_DEPTH = 4
"""Levels of objects that are compared."""
_MAX_FACTS = 64
"""Most schemas that are taken together: references may form a chain of thousands."""


def find_endless(definitions: Definitions, impossible: Collection[str] = ()) -> set[str]:
    """Names of definitions that no value of finite length meets.

    ``impossible``: names of definitions that are known to have no value.
    """
    users: dict[str, set[str]] = {name: set() for name in definitions}
    for name, definition in definitions.items():
        for target in _list_targets(definition):
            users[target].add(name)
    ended: set[str] = set()
    pending = [name for name in definitions if name not in impossible]
    while pending:
        name = pending.pop()
        if name not in ended and _has_end(definitions[name], _KINDS, definitions, ended):
            ended.add(name)
            pending += users[name] - ended - set(impossible)
    return set(definitions) - ended


def get_target(schema: Schema) -> str | None:
    """Name of the definition that a schema refers to."""
    ref = schema.get("$ref")
    return ref.removeprefix("#/$defs/") if isinstance(ref, str) else None


def list_parts(schema: Schema) -> Iterator[Schema]:
    """The schemas directly within a schema."""
    parts: list[object] = []
    for key in ("properties", "patternProperties"):
        parts += schema.get(key, {}).values()
    for key in ("prefixItems", "allOf", "anyOf"):
        parts += schema.get(key, [])
    parts += [schema.get("items"), schema.get("additionalProperties")]
    return (part for part in parts if isinstance(part, dict))


def measure_height(schema: Schema) -> int:
    """Number of levels of schemas within each other."""
    return 1 + max(map(measure_height, list_parts(schema)), default=0)


def _list_targets(schema: Schema) -> Iterator[str]:
    """Names of the definitions that a schema, or a part of it, refers to."""
    target = get_target(schema)
    if target is not None:
        yield target
    for part in list_parts(schema):
        yield from _list_targets(part)


def _has_end(
    schema: Schema | bool, kinds: frozenset[str], definitions: Definitions, ended: Collection[str]
) -> bool:
    """Whether a schema has a value of finite length, of one of these kinds."""
    if isinstance(schema, bool):
        return schema

    def has_end(part: Schema | bool) -> bool:
        return _has_end(part, _KINDS, definitions, ended)

    kinds &= _find_kinds(list(_find_facts(schema, definitions)))
    target = get_target(schema)
    if target is not None and target not in ended:
        return False
    for key, choose in (("allOf", all), ("anyOf", any)):
        if key in schema and not choose(_has_end(part, kinds, definitions, ended) for part in schema[key]):
            return False
    if "const" in schema or "enum" in schema or kinds - {"object", "array"}:
        return True
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    if "object" in kinds and all(has_end(properties.get(name, others)) for name in schema.get("required", ())):
        return True
    first, rest = schema.get("prefixItems", []), schema.get("items", True)
    count = schema.get("minItems", 0)
    return "array" in kinds and all(map(has_end, first[:count])) and (count <= len(first) or has_end(rest))


def are_disjoint(a: Schema | bool, b: Schema | bool, definitions: Definitions, depth: int = _MAX_DEPTH) -> bool:
    """Whether two schemas surely share no value."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is False or b is False
    if not depth:
        return False
    of_a, of_b = list(_find_facts(a, definitions)), list(_find_facts(b, definitions))
    kinds = _find_kinds(of_a) & _find_kinds(of_b)
    values = [set(map(_canonize, fact["enum"])) for fact in (*of_a, *of_b) if "enum" in fact]
    values += [{_canonize(fact["const"])} for fact in (*of_a, *of_b) if "const" in fact]
    if not kinds or (values and not set.intersection(*values)):
        return True
    required = {name for fact in (*of_a, *of_b) for name in fact.get("required", ())}
    return kinds == {"object"} and any(
        are_disjoint(x["properties"][name], y["properties"][name], definitions, depth - 1)
        for name in required
        for x in of_a
        for y in of_b
        if name in x.get("properties", {}) and name in y.get("properties", {})
    )


def _find_facts(schema: Schema, definitions: Definitions) -> Iterator[Schema]:
    """The schemas that a value must all meet: this one, those it refers to, and those in ``allOf``."""
    pending, seen = [schema], set[int]()
    while pending and len(seen) < _MAX_FACTS:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        target = get_target(part)
        if target is not None:
            pending.append(definitions[target])
        pending += [other for other in part.get("allOf", ()) if isinstance(other, dict)]


def _find_kinds(facts: list[Schema]) -> frozenset[str]:
    """Kinds of the values that meet all of these."""
    kinds = _KINDS
    for fact in facts:
        if "type" in fact:
            types = fact["type"] if isinstance(fact["type"], list) else [fact["type"]]
            kinds &= frozenset[str]().union(*(_KINDS_BY_TYPE.get(name, {name}) for name in types))
    return kinds


def _canonize(value: object) -> str:
    """One text for equal JSON values."""
    return json.dumps(value, sort_keys=True) if not isinstance(value, float) or value % 1 else str(int(value))
