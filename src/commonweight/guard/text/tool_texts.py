"""Texts within JSON that a prompt holds: inputs and results of tools, and the schemas that define them.

Names count like values: both are in the prompt. What JSON Schema itself says, its keywords and the names of types
and formats, is no text of the client's.
"""

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, NamedTuple
from urllib.parse import unquote

MAX_PATH_NAME = 64
"""Characters of a name in a path."""
_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_FORMATS = frozenset(
    {
        *("date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname"),
        *("ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "url"),
        *("json-pointer", "relative-json-pointer", "regex", "int32", "int64", "float", "double", "byte", "binary"),
        "password",
    }
)
_DIALECTS = frozenset(
    {
        *(f"https://json-schema.org/draft/{year}/schema" for year in ("2019-09", "2020-12")),
        *(
            f"http://json-schema.org/draft-{number}/schema{end}"
            for number in ("04", "06", "07")
            for end in ("", "#")
        ),
    }
)


class _Kind(Enum):
    """What a value within a schema is."""

    SCHEMA = auto()
    """A schema, or a list of schemas."""
    NAMED_SCHEMAS = auto()
    """Schemas by names that the client chose."""
    NAMES = auto()
    """Names of properties, or lists of them by other names."""
    REFERENCE = auto()
    TYPE = auto()
    FORMAT = auto()
    DIALECT = auto()
    DATA = auto()


_OWN_WORDS = {_Kind.TYPE: _TYPES, _Kind.FORMAT: _FORMATS, _Kind.DIALECT: _DIALECTS}
"""Values that are words of JSON Schema."""

_KEYWORDS = {
    **dict.fromkeys(
        (
            *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "items", "prefixItems", "additionalItems"),
            *("contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties"),
            "contentSchema",
        ),
        _Kind.SCHEMA,
    ),
    **dict.fromkeys(
        ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"),
        _Kind.NAMED_SCHEMAS,
    ),
    **dict.fromkeys(("required", "dependentRequired"), _Kind.NAMES),
    **dict.fromkeys(("$ref", "$dynamicRef", "$recursiveRef"), _Kind.REFERENCE),
    "type": _Kind.TYPE,
    "format": _Kind.FORMAT,
    "$schema": _Kind.DIALECT,
    **dict.fromkeys(
        (
            *("enum", "const", "default", "examples", "example", "title", "description"),
            *("$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$comment", "$vocabulary"),
            *("pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
            *("multipleOf", "minItems", "maxItems", "uniqueItems", "minContains", "maxContains"),
            *("minProperties", "maxProperties", "contentEncoding", "contentMediaType"),
            *("deprecated", "readOnly", "writeOnly", "nullable"),
        ),
        _Kind.DATA,
    ),
}
"""Keywords of JSON Schema, from draft 4 to 2020-12, and what their values are."""


class JsonText(NamedTuple):
    """A name or a string within JSON, with its path."""

    path: str
    text: str


def list_strings(path: str, value: Any) -> list[JsonText]:  # noqa: ANN401 - any JSON
    """List the names and strings within JSON, in their order."""
    found: list[JsonText] = []
    # Not by recursion: a client's JSON may be nested deeper than that goes.
    waiting: list[tuple[str, Any]] = [(path, value)]
    while waiting:
        at, one = waiting.pop()
        if isinstance(one, str):
            if one:
                found.append(JsonText(at, one))
        elif isinstance(one, dict):
            for key, inner in reversed(one.items()):
                inside = _join_name(at, key)
                waiting += [(inside, inner), (inside, key)]
        elif isinstance(one, list):
            waiting += [(f"{at}[{i}]", inner) for i, inner in reversed(list(enumerate(one)))]
    return found


def list_schema_texts(path: str, schema: dict[str, Any]) -> list[JsonText]:
    """List the texts of a JSON schema that are the client's, in their order.

    Names that are required, and references, say nothing new where they only name what the schema defines.
    """
    found: list[tuple[JsonText, _Kind]] = []
    names: set[str] = set()
    waiting: list[tuple[str, Any, _Kind]] = [(path, schema, _Kind.SCHEMA)]
    while waiting:
        at, value, kind = waiting.pop()
        if isinstance(value, list) and kind is not _Kind.DATA:
            waiting += [(f"{at}[{i}]", inner, kind) for i, inner in reversed(list(enumerate(value)))]
        elif isinstance(value, dict) and kind is _Kind.SCHEMA:
            waiting += reversed(list(_iter_keywords(at, value)))
        elif isinstance(value, dict) and kind in (_Kind.NAMED_SCHEMAS, _Kind.NAMES):
            inner_kind = _Kind.SCHEMA if kind is _Kind.NAMED_SCHEMAS else kind
            names.update(value if kind is _Kind.NAMED_SCHEMAS else ())
            for name, inner in reversed(value.items()):
                inside = _join_name(at, name)
                waiting += [(inside, inner, inner_kind), (inside, name, kind)]
        else:
            found += [(text, kind if text.text is value else _Kind.DATA) for text in list_strings(at, value)]
    return [text for text, kind in found if not _is_known(text.text, kind, names)]


def _iter_keywords(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, Any, _Kind]]:
    """Iterate over a schema's values, and the names that are no keywords."""
    for key, value in schema.items():
        inside = _join_name(path, key)
        if key not in _KEYWORDS:
            yield inside, key, _Kind.DATA
        yield inside, value, _KEYWORDS.get(key, _Kind.DATA)


def _join_name(path: str, name: str) -> str:
    """Join a name to a path. A long one is cut, as the path of each value below repeats it."""
    return f"{path}.{name if len(name) <= MAX_PATH_NAME else f'{name[:MAX_PATH_NAME]}…'}"


def _is_known(text: str, kind: _Kind, names: set[str]) -> bool:
    match kind:
        case _Kind.NAMES:
            return text in names
        case _Kind.REFERENCE:
            steps = [step for step in unquote(text).removeprefix("#").split("/") if step]
            return text.startswith("#") and all(
                step in names or step in _KEYWORDS or step.isdecimal() for step in steps
            )
        case _:
            return text in _OWN_WORDS.get(kind, ())
