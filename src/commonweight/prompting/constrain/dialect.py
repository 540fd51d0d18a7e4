"""Schemas as clients write them, read into the one dialect that grammars are made of.

It is JSON Schema 2020-12 without annotations: every reference is to one of ``$defs``, ``oneOf`` is ``anyOf``. What
is malformed, or has no grammar in any case, is left out and reported.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

from commonweight.prompting.constrain.analysis import Schema, are_disjoint, measure_height
from commonweight.prompting.constrain.references import ReferenceTargets

_MAX_DEPTH = 120
"""Levels of JSON; llguidance parses 127."""

_MAX_COUNT = 2**31 - 1
"""Largest length that regular expressions can count to. No answer is longer than a larger maximum."""

_MAX_PAIRS = 10_000
"""Most pairs of options of ``oneOf`` that are compared."""

_MAX_HEIGHT = 600
"""Most levels of all definitions together. llguidance goes from one to the next on its stack, which overflows and
ends the process at about 1400."""

_MAX_NAMING_WORK = 1_000_000
"""Most work to tell the names of properties that are listed from others, in pairs of names: about a second.

Without limits, an object with 5000 names takes llguidance 18 seconds, one with 300 expressions 47."""
_PAIRS_OF_NAMES_PER_PAIR_OF_EXPRESSIONS = 1_400
_GAIN_WHERE_CLOSED = 6
"""How much less work the names of an object are that has no others."""

_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_NOTHING: tuple[object, ...] = (True, {})
"""Schemas that forbid nothing."""
_WITHOUT_GRAMMAR: dict[str, tuple[object, ...]] = {
    "not": (False,),
    "contains": (),
    "uniqueItems": (False,),
    "propertyNames": (*_NOTHING, {"type": "string"}),
    "unevaluatedProperties": _NOTHING,
    "unevaluatedItems": _NOTHING,
    **dict.fromkeys(("then", "else"), _NOTHING),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies"), ({},)),
}
"""Keywords that no grammar can hold, and the values with which they forbid nothing."""


class Unheld(NamedTuple):
    """A keyword of a schema that answers are not held to."""

    pointer: str
    """JSON pointer to it, as the fragment of a URI."""
    reason: str
    is_mistake: bool = False
    """No JSON schema has it like this."""
    is_expression: bool = False
    """It is a regular expression."""


class Constraint(NamedTuple):
    """A keyword of a plain schema, or one name of it, without which more values are allowed."""

    node: Schema
    key: str
    item: str
    """A name in ``required``, an expression in ``patternProperties``; empty for other keywords."""
    pointer: str

    @property
    def id(self) -> tuple[int, str, str]:
        """Identity within its schema."""
        return id(self.node), self.key, self.item

    @property
    def rank(self) -> int:
        """Where not all constraints can be kept together, those of a lower rank are kept first."""
        if self.key == "type" and self.node["type"] == "object":
            return 0  # else what is required of an object would be met by other values
        ranks = {"$ref": 0, "allOf": 0, "anyOf": 0, "required": 1, "type": 2, "const": 3, "enum": 3}
        return ranks.get(self.key, 4)


@dataclass
class PlainSchema:
    """A schema in the dialect of grammars."""

    root: Schema | bool = True
    definitions: dict[str, Schema] = field(default_factory=dict)
    constraints: list[Constraint] = field(default_factory=list)
    """In the order in which they are kept."""
    unheld: list[Unheld] = field(default_factory=list)
    """What was left out."""
    size: int = 0
    """Number of subschemas."""


def read_schema(schema: Schema) -> PlainSchema:
    """Read a schema of any draft, whatever mistakes it has."""
    return _Reader(schema).read()


class _MistakeError(ValueError):
    """A keyword's value is none that it may have."""


class _Reader:
    """Reader of one schema."""

    def __init__(self, source: Schema) -> None:
        self._targets = ReferenceTargets(source)
        self._source = source
        self._plain = PlainSchema()
        self._names: dict[int, str] = {}
        self._pending: deque[tuple[str, Schema, str]] = deque()
        self._pairs_left = _MAX_PAIRS
        self._naming_work_left = _MAX_NAMING_WORK
        self._one_ofs: list[tuple[list[Schema | bool], str]] = []

    def read(self) -> PlainSchema:
        plain = self._plain
        plain.root = self._read(self._source, "#", 1)
        height = 0
        while self._pending:
            name, target, pointer = self._pending.popleft()
            definition = self._read(target, pointer, 3) if height < _MAX_HEIGHT else True
            plain.definitions[name] = definition if isinstance(definition, dict) else {"anyOf": [definition]}
            if height < _MAX_HEIGHT:
                height += 1 + measure_height(plain.definitions[name])
            else:
                self._report(pointer, "the schema refers to too much")
        for options, where in self._one_ofs:
            if not self._exclude_each_other(options):
                self._report(where, "its options may overlap; they are held as those of anyOf")
        plain.constraints.sort(key=lambda constraint: constraint.rank)
        return plain

    def _exclude_each_other(self, options: list[Schema | bool]) -> bool:
        self._pairs_left -= len(options) ** 2 // 2
        return self._pairs_left >= 0 and all(
            are_disjoint(a, b, self._plain.definitions) for i, a in enumerate(options) for b in options[:i]
        )

    def _report(self, pointer: str, reason: str, *, is_mistake: bool = False) -> None:
        self._plain.unheld.append(Unheld(pointer, reason, is_mistake))

    def _read(self, schema: object, pointer: str, depth: int) -> Schema | bool:
        self._plain.size += 1
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            is_deep = depth > _MAX_DEPTH
            reason = "the schema is nested too deeply" if is_deep else "a schema must be an object or a boolean"
            self._report(pointer, reason, is_mistake=True)
            return True
        if schema.get("not") in _NOTHING:
            return False
        node: Schema = {}
        for key, value in schema.items():
            where = f"{pointer}/{_escape(key)}"
            try:
                if key in _REFERENCES:
                    self._read_reference(node, value, where)
                elif key in _READERS:
                    self._read_assertion(node, key, schema, where)
                elif key in _WITHOUT_GRAMMAR:
                    if value not in _WITHOUT_GRAMMAR[key]:
                        self._report(where, "no grammar can hold it")
                else:
                    self._read_applicator(node, key, schema, where, depth)
            except _MistakeError as mistake:
                self._report(where, str(mistake), is_mistake=True)
        self._limit_names(node, pointer)
        return node

    def _limit_names(self, node: Schema, pointer: str) -> None:
        """Hold no names in an object that has so many that a grammar would take too long to compile."""
        expressions = len(node.get("patternProperties", ()))
        names = len(node.get("properties", {}).keys() | node.get("required", ()))
        is_closed = node.get("additionalProperties") is False and not expressions
        work = names**2 // (_GAIN_WHERE_CLOSED if is_closed else 1)
        work += _PAIRS_OF_NAMES_PER_PAIR_OF_EXPRESSIONS * expressions**2 // 2
        if work <= self._naming_work_left:
            self._naming_work_left -= work
            return
        for key in ("properties", "patternProperties", "required", "additionalProperties"):
            if node.pop(key, None) is not None:
                self._report(f"{pointer}/{key}", "its object has too many names")
        self._plain.constraints = [other for other in self._plain.constraints if other.node is not node]

    def _read_reference(self, node: Schema, reference: object, where: str) -> None:
        target = self._targets.find(reference)
        if isinstance(target, bool):
            self._combine(node, "allOf", [target], where)
            return
        if not isinstance(target, dict):
            raise _MistakeError(f"{_show(reference)} refers to nothing in this schema")
        name = self._names.get(id(target))
        if name is None:
            name = self._names[id(target)] = str(len(self._names))
            self._pending.append((name, target, f"#{_escape(str(reference).partition('#')[2], safe='/~$%')}"))
        if "$ref" in node:
            self._combine(node, "allOf", [{"$ref": f"#/$defs/{name}"}], where)
        else:
            node["$ref"] = f"#/$defs/{name}"
            self._constrain(node, "$ref", where)

    def _read_assertion(self, node: Schema, key: str, schema: Schema, where: str) -> None:
        value = schema[key]
        if key.startswith("exclusive") and isinstance(value, bool):  # draft 4
            value = schema.get(key.removeprefix("exclusive").lower()) if value else None
            if value is None:
                return
        if key == "format" and not _may_be_string(schema):
            return  # int32, double
        value = _READERS[key](value)
        if key == "required":
            names = [name for name in value if isinstance(name, str)]
            node[key] = list(dict.fromkeys(names))
            for name in node[key]:
                self._constrain(node, key, where, name)
            if len(names) < len(value):
                raise _MistakeError("it must be a list of names")
        elif not key.startswith("max") or key == "maximum" or value <= _MAX_COUNT:
            node[key] = value
            self._constrain(node, key, where)

    def _read_applicator(self, node: Schema, key: str, schema: Schema, where: str, depth: int) -> None:
        value = schema[key]
        match key:
            case "items" | "prefixItems" | "allOf" if value == []:
                pass
            case "properties" | "patternProperties":
                if not isinstance(value, dict):
                    raise _MistakeError("it must be an object of schemas")
                node[key] = {
                    name: self._read(part, f"{where}/{_escape(name)}", depth + 2) for name, part in value.items()
                }
                if key == "patternProperties":
                    for name in value:
                        self._constrain(node, key, f"{where}/{_escape(name)}", name)
            case "items" if isinstance(value, list):  # drafts before 2020-12
                node["prefixItems"] = self._read_list(value, where, depth)
                if "additionalItems" in schema:
                    rest = where.removesuffix("items") + "additionalItems"
                    node["items"] = self._read(schema["additionalItems"], rest, depth + 1)
            case "items" | "additionalProperties":
                node[key] = self._read(value, where, depth + 1)
            case "prefixItems":
                node[key] = self._read_list(value, where, depth)
            case "allOf" | "anyOf":
                self._combine(node, key, self._read_list(value, where, depth), where)
            case "oneOf":
                options = self._read_list(value, where, depth)
                self._one_ofs.append((options, where))
                self._combine(node, "anyOf", options, where)

    def _read_list(self, parts: object, where: str, depth: int) -> list[Schema | bool]:
        if not isinstance(parts, list) or not parts:
            raise _MistakeError("it must be a list of schemas")
        return [self._read(part, f"{where}/{i}", depth + 2) for i, part in enumerate(parts)]

    def _combine(self, node: Schema, key: str, parts: list[Any], where: str) -> None:
        """Add ``allOf`` or ``anyOf`` to a node that may have one already."""
        if key not in node:
            node[key] = parts
            self._constrain(node, key, where)
        elif key == "allOf":
            node[key] += parts
        else:
            part: Schema = {}
            self._combine(part, key, parts, where)
            self._combine(node, "allOf", [part], where)

    def _constrain(self, node: Schema, key: str, pointer: str, item: str = "") -> None:
        self._plain.constraints.append(Constraint(node, key, item, pointer))


def _escape(name: str, safe: str = "~$") -> str:
    """A name as a step of a JSON pointer in a URI."""
    if "/" not in safe:
        name = name.replace("~", "~0").replace("/", "~1")
    return quote(name, safe=safe, errors="replace")


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _may_be_string(schema: Schema) -> bool:
    types = schema.get("type", "string")
    return not isinstance(types, str | list) or "string" in types


def _read_type(value: object) -> object:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name in _TYPES for name in names):
        raise _MistakeError(f"{_show(value)} is no type")
    return value


def _read_list_of_values(value: object) -> object:
    if not isinstance(value, list):
        raise _MistakeError("it must be a list")
    return value


def _read_text(value: object) -> object:
    if not isinstance(value, str):
        raise _MistakeError("it must be a string")
    return value


def _read_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _MistakeError("it must be a number")
    return value


def _read_step(value: object) -> float:
    step = _read_number(value)
    if step <= 0:
        raise _MistakeError("it must be above 0")
    return step


def _read_count(value: object) -> int:
    count = _read_number(value)
    if count < 0 or count % 1 != 0:
        raise _MistakeError("it must be a whole number")
    return int(count)


_READERS: dict[str, Callable[[object], Any]] = {
    "type": _read_type,
    "const": lambda value: value,
    "enum": _read_list_of_values,
    "required": _read_list_of_values,
    "pattern": _read_text,
    "format": _read_text,
    "multipleOf": _read_step,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _read_number),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _read_count),
    **dict.fromkeys(("minProperties", "maxProperties"), _read_count),
}
"""Readers of the keywords that hold no schemas."""
