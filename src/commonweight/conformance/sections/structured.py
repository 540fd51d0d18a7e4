"""Structured outputs: `output_config.format` of section 5."""

import json
from typing import Literal

import pydantic

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import GREETING, Json, assistant, user
from commonweight.conformance.shapes import check_instance, join_text, list_calls
from commonweight.conformance.target import Target
from commonweight.conformance.toolbox import WEATHER

SCHEMA: Json = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "blue"]},
        "number": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["colour", "number"],
    "additionalProperties": False,
}
NESTED: Json = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1, "maxItems": 2},
        "note": {"anyOf": [{"type": "null"}, {"const": "none"}]},
    },
    "required": ["items", "note"],
    "additionalProperties": False,
    "$defs": {
        "item": {
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}, "good": {"type": "boolean"}},
            "required": ["kind", "good"],
            "additionalProperties": False,
        }
    },
}
RAW: Json = {
    "title": "Choice",
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6, "description": "Short", "title": "Name"}},
    "required": ["name"],
}
"""As LangChain sends them: titles and limits, and nothing about additional properties."""


class Choice(pydantic.BaseModel):
    """What the SDK's `parse` is asked for."""

    colour: Literal["red", "blue"]
    is_dark: bool


@check(needs="structured_outputs")
async def an_answer_in_json(target: Target) -> None:
    """With a format the answer is exactly one text block, whose JSON is valid for the schema (§5)."""
    message = await target.create_message(output_config=as_json(SCHEMA), max_tokens=64)
    check_answer(message, SCHEMA)


@check(needs="structured_outputs")
async def streamed_json(target: Target) -> None:
    """A streamed answer adds up to JSON that is valid for the schema (§5)."""
    stream = await target.stream(output_config=as_json(SCHEMA), max_tokens=64)
    check_answer(stream.message, SCHEMA)


@check(needs="structured_outputs")
async def nested_schemas(target: Target) -> None:
    """Arrays, references and unions are kept to (§5)."""
    message = await target.create_message(output_config=as_json(NESTED), max_tokens=96)
    check_answer(message, NESTED)


@check(needs="structured_outputs")
async def raw_schemas(target: Target) -> None:
    """Schemas that no SDK has prepared are accepted and kept to (§5)."""
    message = await target.create_message(output_config=as_json(RAW), max_tokens=96)
    if message["stop_reason"] == "end_turn":  # properties are free here, so that an answer may be long
        check_answer(message, RAW)


@check(needs="structured_outputs")
async def the_sdk_parses_it(target: Target) -> None:
    """The SDK's `parse` returns an instance of the class that was asked for (§5)."""
    message = await target.sdk.messages.parse(**target.request(max_tokens=64), output_format=Choice)
    assert isinstance(message.parsed_output, Choice), f"parsed_output is {message.parsed_output!r}"


@check(needs="structured_outputs")
async def the_older_parameter(target: Target) -> None:
    """The name of the beta, `output_format` at the top, means the same (§5)."""
    form = as_json(SCHEMA)["format"]
    message = await target.with_betas("structured-outputs-2025-11-13").create_message(
        output_format=form, max_tokens=64
    )
    check_answer(message, SCHEMA)


@check(needs="structured_outputs")
async def json_beside_tools(target: Target) -> None:
    """With tools the answer is a call or JSON: with `none` JSON, with `any` a call (§5)."""
    arguments: Json = {"output_config": as_json(SCHEMA), "tools": [WEATHER], "max_tokens": 64}
    check_answer(await target.create_message(**arguments, tool_choice={"type": "none"}), SCHEMA)
    forced = await target.create_message(**arguments, tool_choice={"type": "any"})
    assert list_calls(forced), f"no call, but {[block['type'] for block in forced['content']]}"
    free = await target.create_message(**arguments)
    if free["stop_reason"] == "end_turn":
        check_answer(free, SCHEMA)


@check(needs="structured_outputs")
async def json_cut_by_max_tokens(target: Target) -> None:
    """JSON that `max_tokens` cuts ends with `max_tokens` (§8)."""
    message = await target.create_message(output_config=as_json(SCHEMA), max_tokens=2)
    assert message["stop_reason"] == "max_tokens", f"stop_reason is {message['stop_reason']!r}"


@check(needs="structured_outputs")
async def a_null_format(target: Target) -> None:
    """A format of null asks for nothing (§5)."""
    await target.create_message(output_config={"format": None, "effort": "low"})


@check(needs="structured_outputs")
async def formats_that_cannot_be(target: Target) -> None:
    """Unknown formats and schemas that say nothing valid are refused by name (§5)."""
    for form in (
        {"type": "xml", "schema": SCHEMA},
        {"type": "json_schema"},
        {"type": "json_schema", "schema": "object"},
        {"type": "json_schema", "schema": {"type": "objekt"}},
        {"type": "json_schema", "schema": {"$ref": "#/$defs/missing"}},
        {"type": "json_schema", "schema": {"$ref": "https://example.com/schema.json"}},
    ):
        refusal = await target.read_refusal(output_config={"format": form})
        assert refusal.startswith("output_config.format"), f"{form} is refused for: {refusal}"


@check(needs="structured_outputs")
async def no_format_for_a_begun_answer(target: Target) -> None:
    """A format together with a begun answer is refused (§5)."""
    await target.read_refusal(output_config=as_json(SCHEMA), messages=[*GREETING, assistant('{"colour":')])


@check(needs="structured_outputs citations")
async def no_format_with_citations(target: Target) -> None:
    """A format together with citations is refused (§5)."""
    source = {"type": "text", "media_type": "text/plain", "data": "Grass is green."}
    document = {"type": "document", "source": source, "citations": {"enabled": True}}
    question: Json = {"type": "text", "text": "What is green?"}
    await target.read_refusal(output_config=as_json(SCHEMA), messages=[user([document, question])])


@check(lacks="structured_outputs")
async def no_format_where_there_is_none(target: Target) -> None:
    """A server without structured outputs refuses a format in the words that agents act on (§9.4)."""
    refusal = await target.read_refusal(output_config=as_json(SCHEMA))
    assert refusal == "output_config.format: Extra inputs are not permitted", f"refused in other words: {refusal}"


def as_json(schema: Json) -> Json:
    """The ``output_config`` that asks for it."""
    return {"format": {"type": "json_schema", "schema": schema}}


def check_answer(message: Json, schema: Json) -> None:
    """One text block of valid JSON, and an ordinary end."""
    kinds = [block["type"] for block in message["content"]]
    assert kinds == ["text"], f"the blocks are {kinds}"
    try:
        answer = json.loads(join_text(message))
    except ValueError as error:
        raise AssertionError(f"no JSON: {join_text(message)!r}") from error
    check_instance(answer, schema)
    assert message["stop_reason"] == "end_turn", f"stop_reason is {message['stop_reason']!r}"
