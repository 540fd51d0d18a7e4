"""Tools whose schemas have mistakes, or say what no grammar can hold: offered, forced, strict."""

import logging
from typing import Any

import pytest
from families import CALLING, STARTER, Family
from hostile import conversation, parsed, schema, tool, user
from llguidance import LLMatcher
from model_writers import grammar_tokenizer

from commonweight.messages.errors import InvalidRequestError
from commonweight.prompting import Prompt

UNMEETABLE = {
    "enum of another type": schema({"a": {"type": "string", "enum": [1, 2]}}, required=["a"]),
    "self-reference": schema({"a": {"$ref": "#/properties/a"}}, required=["a"]),
    "mutual references": schema(
        {"a": {"$ref": "#/$defs/x"}},
        required=["a"],
        **{"$defs": {c: schema({d: {"$ref": f"#/$defs/{d}"}}, required=[d]) for c, d in ("xy", "yx")}},
    ),
    "no values": schema({"a": {"enum": []}}, required=["a"]),
    "bounds": schema({"a": {"type": "integer", "minimum": 2, "maximum": 1}}, required=["a"]),
    "closed": schema({"q": {}}, required=["q", "missing"], additionalProperties=False),
}
SLOPPY = {
    "undescribed": schema({"q": {"type": "string"}}, required=["q", "missing"]),
    "remote": schema({"a": {"$ref": "https://example.com/schema.json"}}, required=["a"]),
    "fractional": schema({"a": {"type": "string", "minLength": 1.0}}),
    "no type": schema({"a": {"type": "any"}, "b": {"type": "String"}, "c": {"type": None}}),
    "no schema": schema({"a": None, "b": "string", "c": True, "d": []}, required="a"),
    "null": {"type": "object", "properties": None, "required": None, "additionalProperties": None, "title": None},
    "list": {"type": "object", "properties": [], "required": [1]},
    "null within": schema({"a": {"type": "array", "items": None, "description": None, "enum": None}}),
    "look-ahead": schema({"a": {"type": "string", "pattern": "^(?!foo)[a-z]+$"}}, required=["a"]),
    "not": schema({"a": {"not": {"type": "string"}}}, dependentRequired={"a": ["b"]}),
    "optional self-reference": schema({"a": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": {"$ref": "#/$defs/A"}}}),
    "many names": schema({f"p{i}": {"type": "string"} for i in range(6_000)}),
}


def ask(family: Family, *tools: dict[str, Any], **fields: object) -> Prompt:
    return family.renderer.render(parsed(conversation(user("go"), tools=list(tools), **fields)))


def force(name: str) -> dict[str, Any]:
    return {"tool_choice": {"type": "tool", "name": name}}


@pytest.mark.parametrize("family", CALLING, ids=str)
@pytest.mark.parametrize("name", [*SLOPPY, *UNMEETABLE])
def test_a_tool_that_is_only_offered_never_makes_a_request_fail(family: Family, name: str) -> None:
    sloppy = tool(name="sloppy", input_schema=(SLOPPY | UNMEETABLE)[name])
    for fields in ({}, {"tool_choice": {"type": "any"}}, {"tool_choice": {"type": "none"}}):
        grammar = ask(family, sloppy, tool(), **fields).grammar
        if grammar is not None:
            assert not LLMatcher(grammar_tokenizer(family.tokenizer), grammar).get_error()


@pytest.mark.parametrize("name", SLOPPY)
def test_a_forced_tool_is_held_as_far_as_its_schema_can_be(name: str) -> None:
    assert ask(STARTER, tool(name="sloppy", input_schema=SLOPPY[name]), **force("sloppy")).grammar


@pytest.mark.parametrize("name", UNMEETABLE)
def test_a_forced_tool_that_no_input_meets_is_refused_by_name(name: str) -> None:
    tools = [tool(), tool(name="never", input_schema=UNMEETABLE[name])]
    for offered, fields in ((tools, force("never")), (tools[1:], {"tool_choice": {"type": "any"}})):
        with pytest.raises(InvalidRequestError) as caught:
            ask(STARTER, *offered, **fields)
        place = len(offered) - 1
        assert caught.value.message.startswith(
            f"tools.{place}.custom.input_schema: tool 'never' must be called: Unsatisfiable schema: "
        )


def test_strict_tools_are_held_whole_or_refused() -> None:
    strict = tool(name="exact", strict=True, input_schema=SLOPPY["look-ahead"])
    with pytest.raises(InvalidRequestError) as caught:
        ask(STARTER, tool(), strict)
    assert caught.value.message == (
        "tools.1.custom.input_schema: strict tool 'exact': #/properties/a/pattern: "
        "look-around, including look-ahead and look-behind, is not supported"
    )
    assert ask(STARTER, tool(strict=True)).grammar
    assert ask(STARTER, tool(), {**strict, "defer_loading": True}).grammar


def test_what_is_not_held_is_named() -> None:
    sloppy = tool(name="sloppy", input_schema=SLOPPY["look-ahead"])
    output = schema({"a": {"type": "array", "uniqueItems": True}})
    fields = {"output_config": {"format": {"type": "json_schema", "schema": output}}}
    assert ask(STARTER, tool(), sloppy, **fields).unheld == (
        "sloppy#/properties/a/pattern",
        "output_config.format.schema#/properties/a/uniqueItems",
    )
    assert ask(STARTER, tool()).unheld == ()
    assert ask(STARTER, sloppy, tool_choice={"type": "none"}).unheld == ()


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (
            SLOPPY["look-ahead"],
            "#/properties/a/pattern: look-around, including look-ahead and look-behind, is not",
        ),
        ({"patternProperties": {"^(?!a)": {}}}, "#/patternProperties/%5E%28%3F%21a%29: look-around"),
        ({"type": "objekt"}, '#/type: "objekt" is no type'),
        ({"$ref": "#/$defs/x"}, '#/$ref: "#/$defs/x" refers to nothing in this schema'),
        (UNMEETABLE["self-reference"], "Unsatisfiable schema: required property 'a' is unsatisfiable"),
    ],
)
def test_an_output_is_held_to_its_patterns_or_refused(output: dict[str, Any], problem: str) -> None:
    fields = {"output_config": {"format": {"type": "json_schema", "schema": output}}}
    with pytest.raises(InvalidRequestError) as caught:
        ask(STARTER, **fields)
    assert caught.value.message.startswith(f"output_config.format.schema: {problem}")


def test_what_is_not_held_is_logged_once_for_each_schema(caplog: pytest.LogCaptureFixture) -> None:
    properties = {f"a{i}\n": {"type": "string", "pattern": f"^(?!{i})\\1$"} for i in range(12)}
    sloppy = tool(name="logged", input_schema=schema(properties))
    with caplog.at_level(logging.WARNING, "commonweight"):
        for _ in range(3):
            ask(STARTER, sloppy)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        "tool 'logged': answers are not held to #/properties/a0%0A/pattern: look-around"
    )
    assert caplog.messages[0].endswith("; 4 more")


@pytest.mark.parametrize(
    ("properties", "count"),
    [
        ({f"p{j}": {"type": "string"} for j in range(900)}, 8),
        ({f"p{j}": {"enum": [f"value {j} {k}" for k in range(200)]} for j in range(50)}, 3),
    ],
    ids=["properties", "values"],
)
def test_tools_beyond_the_size_of_a_grammar_are_offered_unheld(properties: dict[str, Any], count: int) -> None:
    tools = [tool(name=f"t{i}", input_schema=schema(properties)) for i in range(12)]
    asked = ask(STARTER, *tools)
    assert asked.unheld == tuple(f"t{i}#" for i in range(count, 12))
    assert asked.grammar is not None
    assert not LLMatcher(grammar_tokenizer(STARTER.tokenizer), asked.grammar).get_error()
