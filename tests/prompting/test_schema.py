"""JSON schemas as grammars: what holds, what is let pass, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_writers import Answer, as_json, writer_for

from commonweight.prompting.constrain.arguments import KINDS, Argument, Values, read_arguments
from commonweight.prompting.constrain.schema import MAX_SCHEMA_CHARACTERS, BadSchemaError, make_json_grammar

Schema = dict[str, Any]

TEXT, NUMBER = {"type": "string"}, {"type": "number"}


def fits(schema: Schema, text: str) -> bool:
    """Whether a schema's grammar takes this text."""
    writer = writer_for("generic-in-text")
    return writer.guide_of(f"start: {make_json_grammar(schema)}\n").accepts(Answer(writer).text(text).tokens())


def holds(schema: Schema, value: object) -> bool:
    """Whether a schema's grammar takes this value."""
    return fits(schema, as_json(value))


def an_object(required: list[str] | None = None, /, **properties: Any) -> Schema:
    """The schema of an object with these properties alone."""
    keywords = {"type": "object", "properties": properties, "additionalProperties": False}
    return keywords | ({"required": required} if required else {})


LINKED = an_object(["value", "next"], value=NUMBER, next={"anyOf": [{"$ref": "#/$defs/link"}, {"type": "null"}]})
TREE = {"type": "array", "items": {"$ref": "#"}}
UNIT = {
    "oneOf": [an_object(["kind"], kind={"const": "a"}), an_object(["kind", "b"], kind={"const": "b"}, b=NUMBER)]
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, [None, 1, "x", [], {"a": [1]}], []),
        (
            an_object(["a"], a=TEXT, b=NUMBER),
            [{"a": "x"}, {"a": "x", "b": 1}],
            [{}, {"a": 1}, {"a": "x", "c": 1}, []],
        ),
        ({"type": "object"}, [{}, {"a": 1}], [None, [], "x"]),
        (
            {"$ref": "#/$defs/link", "$defs": {"link": LINKED}},
            [{"value": 1, "next": {"value": 2, "next": None}}],
            [{}],
        ),
        (TREE, [[], [[], [[]]]], [[1], {}]),
        ({"anyOf": [TEXT, {"type": "integer", "minimum": 3}]}, ["x", 3, 40], [2, 3.5, None]),
        (UNIT, [{"kind": "a"}, {"kind": "b", "b": 1}], [{"kind": "b"}, {"kind": "c"}]),
        ({"allOf": [an_object(a=TEXT), {"required": ["a"]}]}, [{"a": "x"}], [{}]),
        ({"enum": ["a", 1, None, {"x": [1]}]}, ["a", 1, None, {"x": [1]}], ["b", 2, {}]),
        ({"const": 'x/"\\é🙂\n'}, ['x/"\\é🙂\n'], ["x"]),
        ({"type": "string", "pattern": "^[a-z/]{2}\\d$"}, ["a/1"], ["ab", "ab12"]),
        ({"type": "string", "format": "date"}, ["2026-11-24"], ["today"]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "🙂🙂🙂"], ["a", "abcd"]),
        ({"type": "array", "items": NUMBER, "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3], ["x"]]),
        ({"type": "array", "prefixItems": [TEXT, NUMBER], "items": False}, [["x", 1]], [[1, "x"], ["x", 1, 2]]),
        ({"type": "integer", "multipleOf": 7}, [0, 49], [8]),
        ({"type": ["string", "null"]}, ["x", None], [1]),
        (an_object(a=True, b=False), [{"a": [1]}, {}], [{"b": 1}]),
        ({"type": "object", "additionalProperties": NUMBER}, [{"x": 1}], [{"x": "y"}]),
    ],
    ids=as_json,
)
def test_what_grammars_can_express_holds(schema: Schema, good: list[Any], bad: list[Any]) -> None:
    assert all(holds(schema, value) for value in good)
    assert not any(holds(schema, value) for value in bad)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (an_object(["a"], a={"not": TEXT}), [{"a": "x"}], [{}]),
        (an_object(["a"], a={"type": "string", "format": "zork"}), [{"a": "x"}], [{"a": 1}]),
        (an_object(["a"], a={"type": "string", "pattern": "^(?=a)b"}), [{"a": "x"}], [{"a": 1}, {}]),
        (
            an_object(["a"], a={"type": "string", "pattern": "(("}, pattern=NUMBER),
            [{"a": "", "pattern": 1}],
            [{"a": 1}],
        ),
        ({"if": TEXT, "then": {"minLength": 3}, "type": "string"}, ["x"], [1]),
        ({"type": "array", "items": NUMBER, "uniqueItems": True, "contains": {"const": 1}}, [[2, 2]], [["x"]]),
        ({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}}, [{"A": 1}], [[]]),
        ({"type": "object", "patternProperties": {"^x": TEXT, "y$": NUMBER}}, [{"xy": None}], [[]]),
        ({"type": "number", "minimum": -1e308, "maximum": 1.5e-300}, [5], ["x"]),
        ({"$schema": "zork", "type": "integer"}, [1], ["x"]),
        ({"type": "integer", "multipleOf": 999_983}, [1], ["x"]),
        (
            an_object(**{f"p{i}": {"type": "integer", "multipleOf": 9_000 + i} for i in range(50)}),
            [{"p1": 1}],
            [{"p1": "x"}],
        ),
        (
            an_object(["a"], a={"not": {"const": {"pattern": "(("}}, "enum": [{"pattern": "(("}]}),
            [{"a": {"pattern": "(("}}],
            [{"a": {}}],
        ),
    ],
    ids=as_json,
)
def test_what_grammars_cannot_express_is_left_out(schema: Schema, good: list[Any], bad: list[Any]) -> None:
    test_what_grammars_can_express_holds(schema, good, bad)


def nested(depth: int, within: str) -> Schema:
    """A schema of this depth."""
    schema: Schema = TEXT
    for _ in range(depth):
        schema = {"type": "array", "items": schema} if within == "items" else an_object(["a"], a=schema)
    return schema


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "strin"}, "Invalid type: strin"),
        ({"type": 5}, "type must be a string or array of strings"),
        ({"properties": []}, "properties must be an object"),
        ({"required": "a"}, "Expected array for 'required', got \"a\""),
        ({"$ref": "#/$defs/x"}, "Pointer '/$defs/x' does not exist"),
        ({"enum": []}, "Unsatisfiable schema: anyOf is empty"),
        (
            {"type": "integer", "minimum": 5, "maximum": 3},
            "Unsatisfiable schema: minimum (5) is greater than maximum (3)",
        ),
        (an_object(["a"], a=False), "Unsatisfiable schema: required property 'a' is unsatisfiable"),
        ({"allOf": [TEXT, NUMBER]}, "Unsatisfiable schema: incompatible types"),
        ({"$ref": "#"}, "Unsatisfiable schema: no value has an end"),
        (nested(100, "properties"), "the schema is nested too deeply"),
        (nested(5_000, "items"), "the schema is nested too deeply"),
        (
            {"enum": ["x" * MAX_SCHEMA_CHARACTERS]},
            f"the schema is too large: {MAX_SCHEMA_CHARACTERS + 14} characters > {MAX_SCHEMA_CHARACTERS} maximum",
        ),
        (
            {"allOf": [{"anyOf": [an_object(**{f"k{i}{j}": TEXT}) for j in range(4)]} for i in range(30)]},
            "schema too large",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_answer_can_be_held_to_is_refused(schema: Schema, problem: str) -> None:
    with pytest.raises(BadSchemaError) as caught:
        make_json_grammar(schema)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "schema",
    [
        an_object(**{f"p{i}": {"enum": [f"v{j}" for j in range(20)]} for i in range(500)}),
        {"enum": [f"value number {i}" for i in range(8_000)]},
        {"anyOf": [an_object(["t"], t={"const": f"t{i}"}, v=NUMBER) for i in range(300)]},
        {
            "$ref": "#/$defs/d0",
            "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": TEXT},
        },
        {"type": "string", "pattern": "^((((a{100}){100}){100}){100})$"},
        {"type": "array", "items": TEXT, "minItems": 10**9},
        nested(40, "properties"),
    ],
    ids=range(7),
)
def test_large_schemas_are_taken(schema: Schema) -> None:
    assert make_json_grammar(schema)


def test_json_is_spaced_as_templates_space_it() -> None:
    schema = an_object(a={"type": "array", "items": NUMBER}, b=TEXT)
    assert fits(schema, '{"a": [1, 2], "b": "x"}')
    for text in ('{"a":[1,2]}', '{ "a": [1] }', '{"a": [1,2]}', '{"a": []}\n', ' {"a": []}'):
        assert not fits(schema, text)


def test_clients_cannot_change_how_grammars_are_made() -> None:
    for options in ({"whitespace_flexible": True}, {"lenient": False, "bogus": 1}, 5):
        assert not fits(an_object(a=NUMBER) | {"x-guidance": options}, '{"a":1}')
        assert fits(an_object(a={**NUMBER, "x-guidance": options}), '{"a": 1}')


@given(
    key=st.text(st.characters(codec="utf-8"), max_size=12),
    value=st.text(st.characters(codec="utf-8"), max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_properties_may_have_any_names(key: str, value: str) -> None:
    schema = an_object([key], **{key: {"enum": [value]}})
    assert holds(schema, {key: value})
    assert not holds(schema, {key + "x": value})
    assert not holds(schema, {key: value + "x"})


# The one character that JSON allows and llguidance does not.
_LETTERS = st.characters(codec="utf-8", exclude_characters="\x7f")


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(_LETTERS), st.lists))
@settings(max_examples=100, deadline=None)
def test_any_json_is_a_value_of_the_empty_schema(value: object) -> None:
    assert holds({}, value)


# Arguments that stand by themselves


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        (True, KINDS),
        ({}, KINDS),
        (TEXT, {"string"}),
        ({"type": "integer"}, {"number"}),
        ({"type": ["integer", "null"]}, {"number", "null"}),
        ({"enum": ["a", None, 1.5, True, [], {}]}, KINDS),
        ({"const": "x"}, {"string"}),
        ({"enum": ["a", 1], "type": "string"}, {"string"}),
        ({"anyOf": [TEXT, {"type": "null"}]}, {"string", "null"}),
        ({"oneOf": [{"$ref": "#/$defs/text"}, NUMBER]}, {"string", "number"}),
        ({"allOf": [{"type": ["string", "null"]}, {"type": ["null", "array"]}]}, {"null"}),
        ({"$ref": "#/$defs/text"}, {"string"}),
        ({"$ref": "#/$defs/list"}, {"array", "null"}),
        ({"$ref": "#/$defs/odd~1~0name"}, {"boolean"}),
        ({"$ref": "#/$defs/loop"}, KINDS),
        ({"$ref": "#/nowhere/at/all"}, KINDS),
    ],
    ids=str,
)
def test_kinds_of_values_are_read_from_schemas(schema: Any, kinds: set[str]) -> None:
    definitions: dict[str, Any] = {
        "text": TEXT,
        "list": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/list"}}, {"type": "null"}]},
        "odd/~name": {"type": "boolean"},
        "loop": {"$ref": "#/$defs/loop"},
    }
    named, others = read_arguments({"properties": {"a": schema}, "$defs": definitions})
    assert named["a"].values.kinds == kinds
    assert others is None


def test_kinds_of_many_references_are_read_once() -> None:
    both = [{"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(100)]
    definitions = {f"d{i}": schema for i, schema in enumerate([*both, TEXT])}
    named, _ = read_arguments({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": definitions})
    assert named["a"].values.kinds == {"string"}


def test_arguments_come_in_the_schemas_order() -> None:
    tool = {"$ref": "#/$defs/in", "$defs": {"in": {"properties": {"b": TEXT, "a": False}, "required": ["c", "b"]}}}
    named, others = read_arguments(tool)
    assert [(name, argument.is_required) for name, argument in named.items()] == [("b", True), ("c", True)]
    assert named["c"].values.kinds == KINDS
    assert others is None
    assert read_arguments({})[1] == Argument({})
    assert read_arguments({"additionalProperties": NUMBER}) == ({}, Argument(NUMBER, Values.of([], ["number"])))
    assert read_arguments({"properties": {}})[1] is None
    assert json.dumps(read_arguments({"properties": {"a": TEXT}, "definitions": {"x": {}}})[0]["a"].schema)
