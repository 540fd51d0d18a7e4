"""JSON schemas as grammars: what a model may be held to, and what is refused before it generates.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer

MAX_SCHEMA_CHARACTERS = 256 * 1024
"""Characters of one schema as JSON."""

Schema = dict[str, Any]

# Written the way chat templates write JSON, so that a call is the same text when it comes back in the history.
_SPACING = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}

# What grammars can hold a value to in some cases only: some expressions, some ranges.
_DETAILS = frozenset(
    {"$schema", "pattern", "patternProperties", "propertyNames", "format", "multipleOf"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)
_NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions"})
_PLAIN_VALUES = frozenset({"const", "enum", "default", "examples"})

# A state for every remainder: beyond this, the engine would take seconds to prepare, and a million takes minutes.
_MAX_REMAINDERS = 10_000


class BadSchemaError(ValueError):
    """No answer can be held to this schema; the message says why."""


def json_grammar(schema: Schema, tenant: str = "") -> str:
    """A schema as a term of a Lark grammar.

    Properties come in the schema's order. Keywords that grammars cannot express (``not``, some formats and
    expressions) are left out; the rest holds. Checking takes milliseconds the first time; nobody but the
    ``tenant`` can tell by that whether it was.

    Raises:
        BadSchemaError: it is too large, contradicts itself or is no schema.
    """
    plain = {key: value for key, value in schema.items() if key != "x-guidance"}
    try:
        return "%json " + _check_schema(json.dumps(plain, ensure_ascii=False), tenant)
    except RecursionError as error:
        raise BadSchemaError("the schema is nested too deeply") from error


@lru_cache(maxsize=512)
def _check_schema(text: str, _tenant: str) -> str:
    if len(text) > MAX_SCHEMA_CHARACTERS:
        raise BadSchemaError(f"the schema is too large: {len(text)} characters > {MAX_SCHEMA_CHARACTERS} maximum")
    schema = json.loads(text)
    if sum(_count_remainders(schema)) > _MAX_REMAINDERS:
        schema = _drop_keywords(schema, frozenset({"multipleOf"}))
    problems = []
    for is_lenient, part in ((False, schema), (True, schema), (True, _drop_keywords(schema, _DETAILS))):
        options = _SPACING | {"lenient": is_lenient}
        spelled = json.dumps({**part, "x-guidance": options}, ensure_ascii=False)
        problem = _find_problem(spelled)
        if not problem:
            return spelled
        problems.append(problem)
        if problem.startswith("Unsatisfiable"):
            break
    raise BadSchemaError(problems[0])


def _find_problem(schema: str) -> str:
    """Why no answer can be held to a schema; nothing if one can."""
    matcher = LLMatcher(_byte_tokenizer(), f"%llguidance {{}}\nstart: %json {schema}", log_level=0)
    matcher.compute_bitmask()
    message = matcher.get_error()
    if "NoExtension" in message:
        return "Unsatisfiable schema: no value has an end"
    if "recursion limit exceeded" in message:
        return "the schema is nested too deeply"
    # What follows is the grammar around it.
    reason: str = re.split(r"\n *\d+ \| |\n<state>", message.partition("JSON schema: ")[2] or message)[0]
    return reason


@cache
def _byte_tokenizer() -> LLTokenizer:
    return LLTokenizer("byte")


def _count_remainders(schema: object) -> Iterator[int]:
    """How many remainders each ``multipleOf`` makes a grammar tell apart."""
    match schema:
        case dict():
            step = schema.get("multipleOf")
            if isinstance(step, int | float):
                yield int("".join(map(str, Decimal(str(step)).normalize().as_tuple().digits)))
            for part in schema.values():
                yield from _count_remainders(part)
        case list():
            for part in schema:
                yield from _count_remainders(part)


def _drop_keywords(schema: Any, keywords: frozenset[str]) -> Any:  # noqa: ANN401 - any JSON
    """The schema without some of its keywords."""
    if isinstance(schema, list):
        return [_drop_keywords(part, keywords) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value
        if key in _PLAIN_VALUES
        else {name: _drop_keywords(part, keywords) for name, part in value.items()}
        if key in _NAMED_SCHEMAS and isinstance(value, dict)
        else _drop_keywords(value, keywords)
        for key, value in schema.items()
        if key not in keywords
    }
