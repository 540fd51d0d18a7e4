"""Clients see which keywords of their schemas an answer was not held to."""

import json
from typing import Any

import httpx
import pytest
from test_messages_route import ask, events

from conftest import Server

HEADER = "x-schema-unheld"
PARTLY = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1, "maximum": 5},
        "a": {"type": "string", "pattern": "^(?!foo)[a-z]+$", "maxLength": 6},
        "p": {"type": "string", "pattern": "^[0-9]{3}$"},
    },
    "required": ["n", "a", "p"],
}


def forced(schema: dict[str, Any], **fields: Any) -> dict[str, Any]:
    choice = {"type": "tool", "name": "f"}
    return {"tools": [{"name": "f", "input_schema": schema}], "tool_choice": choice, "max_tokens": 200, **fields}


def check_input(found: dict[str, Any]) -> None:
    assert 1 <= found["n"] <= 5
    assert len(found["a"]) <= 6
    assert found["p"].isdecimal()
    assert len(found["p"]) == 3


def test_one_keyword_that_is_not_held_is_named_and_the_others_hold(server: Server) -> None:
    answered = ask(server, **forced(PARTLY))
    assert answered.headers[HEADER] == "f#/properties/a/pattern"
    check_input(answered.json()["content"][0]["input"])
    streamed = ask(server, **forced(PARTLY, stream=True))
    assert streamed.headers[HEADER] == "f#/properties/a/pattern"
    parts = [event["delta"] for event in events(streamed) if event["type"] == "content_block_delta"]
    check_input(json.loads("".join(part["partial_json"] for part in parts)))


def test_the_header_is_bounded_and_plain(server: Server) -> None:
    names = ["\n" * 300, "é\x00, x", *(f"p{i}" for i in range(40))]
    schema = {"type": "object", "properties": {name: {"type": "any"} for name in names}}
    header = ask(server, **forced(schema, max_tokens=1)).headers[HEADER]
    assert header.isascii()
    assert header.isprintable()
    assert len(header) < 2_500
    listed = header.split(", ")
    assert listed[1] == "f#/properties/%C3%A9%00%2C%20x/type"
    assert listed[-1] == "26 more"


def test_there_is_no_header_where_everything_is_held(server: Server) -> None:
    assert HEADER not in ask(server, max_tokens=1).headers
    assert HEADER not in ask(server, **forced({"type": "object", "properties": {}}, max_tokens=1)).headers


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"type": "string", "enum": [1]}}, "required": ["a"]},
    ],
)
def test_a_forced_tool_that_nothing_meets_is_refused_before_a_stream_begins(
    server: Server, schema: dict[str, Any]
) -> None:
    refused = ask(server, **forced(schema, stream=True))
    assert refused.status_code == 400
    assert "tool 'f' must be called" in refused.json()["error"]["message"]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **forced(schema)}
    del body["tool_choice"], body["max_tokens"]
    counted = httpx.post(f"{server.url}/v1/messages/count_tokens", json=body, headers={"x-api-key": server.key})
    assert counted.status_code == 200


def test_an_optional_property_that_refers_to_itself_is_never_written(server: Server) -> None:
    schema = {
        "$defs": {"A": {"$ref": "#/$defs/A"}},
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}},
    }
    assert ask(server, **forced(schema)).json()["content"][0]["input"] == {}
