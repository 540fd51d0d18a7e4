"""JSON schemas as grammars, checked before generation.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer

from commonweight.messages.output_schema import ALLOW_OTHERS
from commonweight.prompting.constrain.analysis import Schema, find_endless, get_target
from commonweight.prompting.constrain.dialect import Constraint, PlainSchema, Unheld, read_schema

__all__ = ["BadSchemaError", "HeldSchema", "Schema", "hold_schema", "make_json_grammar"]

MAX_SCHEMA_CHARACTERS = 256 * 1024
"""Limit of one schema's JSON text."""

MAX_SUBSCHEMAS = 8_000
"""Most subschemas of one grammar, which has 65,000 symbols: a property takes three or more of them."""
_CHARACTERS_PER_SUBSCHEMA = 75
"""Long enumerations count as more than one: llguidance refuses a megabyte of them."""

# The spacing of JSON in chat templates, so that a call is the same text when it comes back in the history.
_SPACING = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}

# multipleOf needs a state for every remainder: more take llguidance seconds to compile, and a million minutes.
_MAX_REMAINDERS = 10_000

_MAX_SEARCH_SECONDS = 2.0
"""Most CPU time to find what a grammar cannot hold of one schema. What was not tried by then is left out."""

_MAX_REASON_CHARACTERS = 200

_UNSATISFIABLE = "Unsatisfiable"
_ENDLESS = f"{_UNSATISFIABLE} schema: no value has an end"


class BadSchemaError(ValueError):
    """No answer can be constrained to this schema; the message gives the reason."""


@dataclass(frozen=True)
class HeldSchema:
    """What a grammar holds of a schema."""

    schema: Schema
    """In the dialect of grammars (``dialect``), without what is not held."""
    unheld: tuple[Unheld, ...] = ()
    problem: str = ""
    """Why no value meets the schema as it was sent; empty if one does. Some do meet what is held of it."""
    size: int = 0
    """Share of a grammar: at least the number of subschemas."""


def hold_schema(schema: Schema, tenant: str = "") -> HeldSchema:
    """Make a grammar hold as much of a schema as it can: each keyword that it cannot hold is left out by itself.

    Properties come in the schema's order; one that no value meets is never written, unless it is required. The
    first look at a schema takes milliseconds and is cached by ``tenant``, so that no tenant can measure which
    schemas another one sent.

    Raises:
        BadSchemaError: the schema is too large.
    """
    try:
        text = json.dumps(schema, ensure_ascii=False)
    except RecursionError as error:
        raise BadSchemaError("the schema is nested too deeply") from error
    if len(text) > MAX_SCHEMA_CHARACTERS:
        raise BadSchemaError(f"the schema is too large: {len(text)} characters > {MAX_SCHEMA_CHARACTERS} maximum")
    hold = _hold_small if len(text) <= _MAX_SMALL_CHARACTERS else _hold_large
    return hold(text, tenant)


def make_json_grammar(schema: Schema, tenant: str = "") -> str:
    """What a grammar can hold of a schema, as a term of a Lark grammar.

    Raises:
        BadSchemaError: the schema is too large, or no value meets it.
    """
    held = hold_schema(schema, tenant)
    if held.problem:
        raise BadSchemaError(held.problem)
    return f"%json {_write(held.schema)}"


def close_input(schema: Schema) -> Schema:
    """The schema of a tool's input as an object, closed if it has properties and no keyword that allows others."""
    schema = {**schema, "type": "object"}
    properties = schema.get("properties")
    if schema.keys() & ALLOW_OTHERS or not isinstance(properties, dict):
        return schema
    # Required properties need not be described.
    required = schema.get("required")
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    undescribed = {name: True for name in names if name not in properties}
    return {**schema, "properties": properties | undescribed, "additionalProperties": False}


def _hold_text(text: str, _tenant: str) -> HeldSchema:
    return _Holder(read_schema(json.loads(text))).hold()


# What is held of a large schema takes megabytes.
_hold_small = lru_cache(maxsize=1024)(_hold_text)
_hold_large = lru_cache(maxsize=32)(_hold_text)
_MAX_SMALL_CHARACTERS = 16 * 1024


class _Holder:
    """Search for the most of one schema that a grammar can hold."""

    def __init__(self, plain: PlainSchema) -> None:
        self._plain = plain
        self._unheld = list(plain.unheld)
        self._left_out: set[tuple[int, str, str]] = set()
        self._impossible = find_endless(plain.definitions)
        self._deadline = time.thread_time() + _MAX_SEARCH_SECONDS

    def hold(self) -> HeldSchema:
        if self._plain.size > MAX_SUBSCHEMAS:
            return HeldSchema({}, (Unheld("#", "the schema is too large", is_mistake=True),), size=0)
        self._leave_out_large_steps()
        problem = self._find_problem()
        if problem.startswith(_UNSATISFIABLE) and self._plain.definitions:
            self._impossible = find_endless(self._plain.definitions, self._list_impossible())
            problem = self._find_problem()
        if problem:
            self._keep_most()
        reasons = (problem, *(unheld.reason for unheld in self._unheld))
        schema = self._build()
        return HeldSchema(
            schema=schema if isinstance(schema, dict) else {},
            unheld=tuple(dict.fromkeys(self._unheld)),
            problem=next((reason for reason in reasons if reason.startswith(_UNSATISFIABLE)), ""),
            size=max(self._plain.size, len(json.dumps(schema)) // _CHARACTERS_PER_SUBSCHEMA),
        )

    def _leave_out_large_steps(self) -> None:
        room = _MAX_REMAINDERS
        for constraint in self._plain.constraints:
            if constraint.key == "multipleOf":
                remainders = _count_remainders(constraint.node["multipleOf"])
                if remainders <= room:
                    room -= remainders
                else:
                    self._leave_out(constraint, "it takes a grammar too many states")

    def _list_impossible(self) -> list[str]:
        """Names of the definitions that no value meets, whatever they refer to."""
        # Where a definition cannot be met, llguidance refuses also what only may refer to it.
        return [
            name
            for name, definition in self._plain.definitions.items()
            if self._compile(_drop_references(definition)).startswith(_UNSATISFIABLE)
        ]

    def _keep_most(self) -> None:
        """Leave out each constraint that cannot be kept beside those that are."""
        constraints = [constraint for constraint in self._plain.constraints if constraint.id not in self._left_out]
        self._left_out |= {constraint.id for constraint in constraints}
        if reason := self._find_problem():
            self._plain = PlainSchema(root={})
            self._unheld = [Unheld("#", reason, is_mistake=True)]
        else:
            self._keep(constraints)

    def _keep(self, constraints: Sequence[Constraint]) -> None:
        """Keep as many of these constraints as can be."""
        before = self._left_out
        self._left_out = before - {constraint.id for constraint in constraints}
        reason = self._find_problem()
        if not reason:
            return
        self._left_out = before
        if len(constraints) == 1 or self._is_late():
            for constraint in constraints:
                self._leave_out(constraint, reason)
        else:
            middle = len(constraints) // 2
            self._keep(constraints[:middle])
            self._keep(constraints[middle:])

    def _leave_out(self, constraint: Constraint, reason: str) -> None:
        self._left_out.add(constraint.id)
        is_expression = constraint.key in ("pattern", "patternProperties")
        self._unheld.append(Unheld(constraint.pointer, reason, is_expression=is_expression))

    def _find_problem(self) -> str:
        """Why the schema, without what is left out, has no grammar; empty if it has one."""
        schema = self._build()
        return self._compile(schema) if isinstance(schema, dict) else _ENDLESS

    def _is_late(self) -> bool:
        return time.thread_time() > self._deadline

    def _compile(self, schema: Schema) -> str:
        return "too much of the schema cannot be held" if self._is_late() else _find_problem(_write(schema))

    def _build(self) -> Schema | bool:
        """The schema without what is left out."""
        schema = self._build_part(self._plain.root)
        definitions = {
            name: self._build_part(part)
            for name, part in self._plain.definitions.items()
            if name not in self._impossible
        }
        return {**schema, "$defs": definitions} if isinstance(schema, dict) and definitions else schema

    def _build_part(self, node: Schema | bool) -> Schema | bool:
        if isinstance(node, bool):
            return node
        part: Schema = {}
        for key, value in node.items():
            if (id(node), key, "") in self._left_out:
                continue
            if key == "$ref" and get_target(node) in self._impossible:
                return False
            match key:
                case "properties":
                    part[key] = {name: self._build_part(schema) for name, schema in value.items()}
                case "patternProperties":
                    part[key] = {
                        name: self._build_part(schema)
                        for name, schema in value.items()
                        if (id(node), key, name) not in self._left_out
                    }
                case "required":
                    part[key] = [name for name in value if (id(node), key, name) not in self._left_out]
                case "items" | "additionalProperties":
                    part[key] = self._build_part(value)
                case "prefixItems" | "allOf" | "anyOf":
                    part[key] = [self._build_part(schema) for schema in value]
                case _:
                    part[key] = value
        if len(part.get("patternProperties", ())) < len(node.get("patternProperties", ())):
            part.pop("additionalProperties", None)  # it is about the names that no expression fits
        return part


def _write(schema: Schema) -> str:
    """A schema as llguidance takes it."""
    return json.dumps({**schema, "x-guidance": _SPACING}, ensure_ascii=False)


def _find_problem(schema: str) -> str:
    """The reason why no answer can be constrained to a schema; empty if one can."""
    matcher = LLMatcher(_make_byte_tokenizer(), f"%llguidance {{}}\nstart: %json {schema}", log_level=0)
    message = matcher.get_error()
    if "recursion limit exceeded" in message:
        return "the schema is nested too deeply"
    if message.startswith("panic"):
        return "the schema is too large"
    if of_expression := re.search(r"^error: (.*)", message, re.MULTILINE):
        return str(of_expression[1])
    # The message goes on with an excerpt of the grammar.
    reason = re.split(r"\n *(?:\d+ \||while)|\n<state>", message.partition("JSON schema: ")[2] or message)[0]
    return "".join(c if c.isprintable() else " " for c in reason[:_MAX_REASON_CHARACTERS])


@cache
def _make_byte_tokenizer() -> LLTokenizer:
    return LLTokenizer("byte")


def _count_remainders(step: float) -> int:
    """Number of remainders that a grammar must distinguish for a ``multipleOf``."""
    return int("".join(map(str, Decimal(str(step)).normalize().as_tuple().digits)))


def _drop_references(part: Any) -> Any:  # noqa: ANN401 - any JSON
    """A plain schema with every reference allowing all."""
    match part:
        case dict():
            return {key: _drop_references(value) for key, value in part.items() if key != "$ref"}
        case list():
            return [_drop_references(value) for value in part]
        case _:
            return part
