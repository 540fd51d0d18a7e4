"""Answers have the properties that their schema names, and no others, unless it says so."""

from typing import Any

import pytest

from commonweight.messages.output_schema import close_objects
from commonweight.messages.request import MessageRequest

A: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
CLOSED = {**A, "additionalProperties": False}
OPEN = {**A, "additionalProperties": True}


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        (A, CLOSED),
        (CLOSED, CLOSED),
        (OPEN, OPEN),
        ({"type": "object"}, {"type": "object"}),
        (
            {"type": "object", "properties": {}},
            {"type": "object", "properties": {}, "additionalProperties": False},
        ),
        ({"type": "array", "items": A}, {"type": "array", "items": CLOSED}),
        ({"anyOf": [A, OPEN]}, {"anyOf": [CLOSED, OPEN]}),
        ({"$ref": "#/$defs/x", "$defs": {"x": A}}, {"$ref": "#/$defs/x", "$defs": {"x": CLOSED}}),
        ({"type": "object", "additionalProperties": A}, {"type": "object", "additionalProperties": CLOSED}),
        # The names of properties are no keywords.
        (
            {"properties": {"properties": A, "items": {"type": "string"}}},
            {"properties": {"properties": CLOSED, "items": {"type": "string"}}, "additionalProperties": False},
        ),
        ({"const": A}, {"const": A}),
        # The parts of one object must allow those of the others.
        ({**A, "anyOf": [{"properties": {"b": {}}}]}, {**A, "anyOf": [{"properties": {"b": {}}}]}),
        (
            {"allOf": [A, {"$ref": "#/$defs/x"}], "$defs": {"x": A}},
            {"allOf": [A, {"$ref": "#/$defs/x"}], "$defs": {"x": A}},
        ),
        ({**A, "properties": {"b": {"allOf": [A]}}}, {**CLOSED, "properties": {"b": {"allOf": [A]}}}),
    ],
)
def test_objects_are_closed(schema: dict[str, Any], closed: dict[str, Any]) -> None:
    assert close_objects(schema) == closed
    assert close_objects(closed) == closed


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_the_schema_of_a_request_is_closed(field: str) -> None:
    wanted = {"type": "json_schema", "schema": A}
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
    request = MessageRequest.model_validate(
        {**body, field: {"format": wanted} if field == "output_config" else wanted}
    )
    assert request.output_schema == CLOSED
