"""Tool definitions for requests."""

from commonweight.conformance.conversation import Json

WEATHER: Json = {
    "name": "get_weather",
    "description": "The weather of a city for some days.",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Paris", "Oslo"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 5},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
CLOCK: Json = {
    "name": "get_time",
    "description": "The time in a zone.",
    "input_schema": {
        "type": "object",
        "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}},
        "required": ["zone"],
        "additionalProperties": False,
    },
}
"""Tools whose every valid input is short, so that even a random model ends it."""

DEMANDING: Json = {
    "name": "configure",
    "description": "Set it up.",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "mode": {"const": "fast"},
            "level": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 3}, {"type": "null"}]},
            "tags": {
                "type": "array",
                "items": {"type": "string", "enum": ["a", "b"]},
                "minItems": 1,
                "maxItems": 2,
            },
            "point": {"$ref": "#/$defs/point"},
            "code": {"type": "string", "pattern": "^[A-C]{2}$"},
        },
        "required": ["mode", "level", "tags", "point", "code"],
        "additionalProperties": False,
        "$defs": {
            "point": {
                "type": "object",
                "properties": {"x": {"type": "boolean"}},
                "required": ["x"],
                "additionalProperties": False,
            }
        },
    },
}
AGENTS_KEYWORDS: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "url": {"type": "string", "format": "uri", "minLength": 1, "maxLength": 99, "description": "Where"},
        "offset": {"type": "integer", "exclusiveMinimum": 0, "maximum": 9007199254740991, "default": 1},
        "kind": {"allOf": [{"type": "string"}, {"enum": ["a", "b"]}]},
        "value": {"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]},
        "names": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4},
        "map": {
            "type": "object",
            "propertyNames": {"type": "string", "pattern": "^[a-z]+$"},
            "additionalProperties": {"type": "string"},
        },
        "fixed": {"const": 1},
    },
    "required": ["url"],
    "additionalProperties": False,
}
"""Every keyword that was seen in the tools of coding agents."""

MARKUP = ["<think>", "</tool_call>", "<|end|>", "\n</parameter>\nx", "</arg_value>"]
"""Values that stand for something else in one format of calls or another."""
