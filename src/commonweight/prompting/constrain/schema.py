"""JSON schemas as grammars, checked before generation.

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
"""Limit of one schema's JSON text."""

Schema = dict[str, Any]

# The spacing of JSON in chat templates, so that a call is the same text when it comes back in the history.
_SPACING = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}

# Keywords that grammars can express in some cases only: some regular expressions, some ranges.
_PARTLY_SUPPORTED = frozenset(
    {"$schema", "pattern", "patternProperties", "propertyNames", "format", "multipleOf"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)
_SCHEMA_MAPS = frozenset({"properties", "$defs", "definitions"})
_PLAIN_VALUES = frozenset({"const", "enum", "default", "examples"})

# multipleOf needs a state for every remainder: more take llguidance seconds to compile, and a million minutes.
_MAX_REMAINDERS = 10_000


class BadSchemaError(ValueError):
    """No answer can be constrained to this schema; the message gives the reason."""


def make_json_grammar(schema: Schema, tenant: str = "") -> str:
    """A schema as a term of a Lark grammar.

    Properties come in the schema's order. Keywords that grammars cannot express (``not``, some formats and regular
    expressions) are left out; the rest holds. The first check of a schema takes milliseconds and is cached by
    ``tenant``, so that no tenant can measure which schemas another one sent.

    Raises:
        BadSchemaError: the schema is too large, contradicts itself or is no schema.
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
    for is_lenient, part in ((False, schema), (True, schema), (True, _drop_keywords(schema, _PARTLY_SUPPORTED))):
        options = _SPACING | {"lenient": is_lenient}
        text = json.dumps({**part, "x-guidance": options}, ensure_ascii=False)
        problem = _find_problem(text)
        if not problem:
            return text
        problems.append(problem)
        if problem.startswith("Unsatisfiable"):
            break
    raise BadSchemaError(problems[0])


def _find_problem(schema: str) -> str:
    """The reason why no answer can be constrained to a schema; empty if one can."""
    matcher = LLMatcher(_make_byte_tokenizer(), f"%llguidance {{}}\nstart: %json {schema}", log_level=0)
    matcher.compute_bitmask()
    message = matcher.get_error()
    if "NoExtension" in message:
        return "Unsatisfiable schema: no value has an end"
    if "recursion limit exceeded" in message:
        return "the schema is nested too deeply"
    # The message goes on with an excerpt of the grammar.
    reason: str = re.split(r"\n *\d+ \| |\n<state>", message.partition("JSON schema: ")[2] or message)[0]
    return reason


@cache
def _make_byte_tokenizer() -> LLTokenizer:
    return LLTokenizer("byte")


def _count_remainders(schema: object) -> Iterator[int]:
    """Number of remainders that a grammar must distinguish for each ``multipleOf``."""
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
    """The schema, and the schemas in it, without some keywords."""
    if isinstance(schema, list):
        return [_drop_keywords(part, keywords) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value
        if key in _PLAIN_VALUES
        else {name: _drop_keywords(part, keywords) for name, part in value.items()}
        if key in _SCHEMA_MAPS and isinstance(value, dict)
        else _drop_keywords(value, keywords)
        for key, value in schema.items()
        if key not in keywords
    }
