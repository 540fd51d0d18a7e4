"""JSON schemas as grammars: what holds, what is let pass, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_writers import Answer, as_json, writer_for

from commonweight.prompting.constrain.arguments import KINDS, Argument, Values, read_arguments
from commonweight.prompting.constrain.schema import (
    MAX_SCHEMA_CHARACTERS,
    BadSchemaError,
    hold_schema,
    make_json_grammar,
)

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


def unheld(schema: Schema) -> list[str]:
    """JSON pointers to what the schema's grammar does not hold."""
    return [found.pointer for found in hold_schema(schema).unheld]


A = "#/properties/a"


@pytest.mark.parametrize(
    ("schema", "pointer", "good", "bad"),
    [
        (an_object(["a"], a={"not": TEXT}), f"{A}/not", [{"a": "x"}], [{}]),
        (an_object(["a"], a={"type": "string", "format": "zork"}), f"{A}/format", [{"a": "x"}], [{"a": 1}]),
        (an_object(["a"], a={"type": "string", "pattern": "^(?=a)b"}), f"{A}/pattern", [{"a": "x"}], [{"a": 1}]),
        (an_object(["a"], a={"type": "string", "pattern": "(?<=a)b"}), f"{A}/pattern", [{"a": "x"}], [{"a": 1}]),
        (an_object(["a"], a={"type": "string", "pattern": r"(a)\1"}), f"{A}/pattern", [{"a": "x"}], [{"a": 1}]),
        (an_object(["a"], a={"type": "string", "pattern": r"\ba\b"}), f"{A}/pattern", [{"a": "x"}], [{"a": 1}]),
        (
            an_object(["a"], a={"type": "string", "pattern": "(("}, pattern=NUMBER),
            f"{A}/pattern",
            [{"a": "", "pattern": 1}],
            [{"a": 1}, {"a": "", "pattern": "x"}],
        ),
        ({"if": TEXT, "then": {"minLength": 3}, "type": "string"}, "#/then", ["x"], [1]),
        ({"type": "array", "items": NUMBER, "uniqueItems": True}, "#/uniqueItems", [[2, 2]], [["x"]]),
        ({"type": "array", "items": NUMBER, "contains": {"const": 1}}, "#/contains", [[2]], [["x"]]),
        ({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}}, "#/propertyNames", [{"A": 1}], [[]]),
        (
            {"type": "object", "patternProperties": {"^x": TEXT, "y$": NUMBER}},
            "#/patternProperties/y$",
            [{"y": None}, {"xy": "x"}],
            [[], {"x": 1}],
        ),
        (
            {"patternProperties": {"^(?!a)": TEXT, "^b": NUMBER}, "additionalProperties": False, "type": "object"},
            "#/patternProperties/%5E%28%3F%21a%29",
            [{"c": 1}, {"b": 1}],
            [{"b": "x"}],
        ),
        ({"type": "number", "minimum": -1e308, "maximum": 1.5e-300}, "#/minimum", [-5], ["x", 1]),
        ({"type": "integer", "multipleOf": 999_983}, "#/multipleOf", [1], ["x"]),
        (
            an_object(a={"type": "integer", "multipleOf": 9_001}, b={"type": "integer", "multipleOf": 9_002}),
            "#/properties/b/multipleOf",
            [{"a": 9_001, "b": 1}],
            [{"a": 1}, {"b": "x"}],
        ),
        (
            an_object(["a"], a={"not": {"const": {"pattern": "(("}}, "enum": [{"pattern": "(("}]}),
            f"{A}/not",
            [{"a": {"pattern": "(("}}],
            [{"a": {}}],
        ),
        (
            an_object(a=NUMBER) | {"dependentRequired": {"a": ["b"]}},
            "#/dependentRequired",
            [{"a": 1}],
            [{"a": "x"}],
        ),
        (an_object(a=NUMBER, b=NUMBER) | {"minProperties": 2}, "#/minProperties", [{"a": 1}], [{"a": "x"}]),
        ({"oneOf": [{"type": "integer"}, NUMBER]}, "#/oneOf", [1, 1.5], ["x"]),
        (
            {"allOf": [{"anyOf": [TEXT, {"type": "string", "pattern": "(?!a)"}]}, {"maxLength": 2}]},
            "#/allOf/0/anyOf/1/pattern",
            ["a"],
            ["abc"],
        ),
        (
            {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string", "format": "zork", "maxLength": 1}}},
            "#/$defs/a~1b/format",
            ["a"],
            ["ab"],
        ),
    ],
    ids=as_json,
)
def test_a_keyword_that_grammars_cannot_express_is_left_out_alone(
    schema: Schema, pointer: str, good: list[Any], bad: list[Any]
) -> None:
    assert unheld(schema) == [pointer]
    test_what_grammars_can_express_holds(schema, good, bad)


@pytest.mark.parametrize(
    ("sloppy", "pointer", "good", "bad"),
    [
        ({"type": "strin"}, "/type", "x", None),
        ({"type": 5}, "/type", "x", None),
        ({"type": None}, "/type", "x", None),
        ({"type": "any", "maxLength": 1}, "/type", "x", "xx"),
        ({"type": ["string", "any"]}, "/type", 1, None),
        ({"type": "object", "properties": None}, "/properties", {"x": 1}, 1),
        ({"type": "object", "properties": []}, "/properties", {"x": 1}, 1),
        ({"type": "object", "properties": {"x": None}}, "/properties/x", {"x": 1}, 1),
        ({"type": "object", "properties": {"x": "string"}}, "/properties/x", {"x": 1}, 1),
        ({"type": "object", "required": "x"}, "/required", {}, 1),
        ({"type": "object", "required": None}, "/required", {}, 1),
        ({"type": "object", "required": ["x", 1]}, "/required", {"x": 1}, {}),
        ({"type": "string", "required": True}, "/required", "x", 1),
        ({"type": "object", "additionalProperties": None}, "/additionalProperties", {"x": 1}, 1),
        ({"type": "array", "items": "string"}, "/items", [1], 1),
        ({"type": "array", "maxItems": -1}, "/maxItems", [1], 1),
        ({"type": "array", "maxItems": "3"}, "/maxItems", [1], 1),
        ({"type": "string", "minLength": 1.5}, "/minLength", "x", 1),
        ({"type": "number", "minimum": "1"}, "/minimum", 0, "x"),
        ({"type": "number", "multipleOf": 0}, "/multipleOf", 1, "x"),
        ({"type": "string", "pattern": 5}, "/pattern", "x", 1),
        ({"enum": "a"}, "/enum", "b", None),
        ({"anyOf": []}, "/anyOf", "b", None),
        ({"allOf": {}}, "/allOf", "b", None),
        ({"$ref": 5}, "/$ref", "b", None),
        ({"$ref": "#/$defs/x"}, "/$ref", "b", None),
        ({"$ref": "https://example.com/x.json", "maxLength": 1}, "/$ref", "b", "bb"),
        ({"type": "string", "minLength": 2**40}, "/minLength", "b", 1),
        ({"items": {"type": "strin"}, "type": "array"}, "/items/type", [1], 1),
    ],
    ids=as_json,
)
def test_a_mistake_is_left_out_alone(sloppy: Schema, pointer: str, good: object, bad: object) -> None:
    schema = an_object(["a", "n"], a=sloppy, n={"type": "integer", "minimum": 1, "maximum": 5})
    assert unheld(schema) == [A + pointer]
    assert holds(schema, {"a": good, "n": 5})
    assert not holds(schema, {"a": good, "n": 6})
    assert bad is None or not holds(schema, {"a": bad, "n": 5})


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "minLength": 1.0, "maxLength": 2.0}, ["a", "ab"], ["", "abc"]),
        ({"type": "array", "minItems": 1.0, "maxItems": 2.0}, [[1]], [[], [1, 2, 3]]),
        ({"type": "object", "minProperties": 1.0}, [{"a": 1}], [{}]),
        ({"type": "string", "maxLength": 10**30}, ["a"], [1]),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, [2], [1]),
        ({"type": "integer", "maximum": 1, "exclusiveMaximum": False}, [1], [2]),
        ({"type": "array", "items": [TEXT, NUMBER], "additionalItems": False}, [["a", 1]], [[1], ["a", 1, 1]]),
        ({"type": "array", "items": []}, [[1]], [1]),
        ({"$schema": "zork", "type": "integer"}, [1], ["x"]),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "id": "x", "type": "integer"}, [1], ["x"]),
        ({"type": "integer", "format": "int32", "nullable": True}, [1], ["x", None]),
        (an_object(a={"not": {}}), [{}], [{"a": 1}]),
        ({"$ref": "#x", "$defs": {"x": {"$anchor": "x", "type": "string"}}}, ["a"], [1]),
        ({"$ref": "other.json", "$defs": {"x": {"$id": "other.json", "type": "string"}}}, ["a"], [1]),
        ({"$id": "http://a/b", "$ref": "http://a/b#/$defs/x", "$defs": {"x": TEXT}}, ["a"], [1]),
        (an_object(a=TEXT, b={"$ref": "#/properties/a"}), [{"b": "x"}], [{"b": 1}]),
        (an_object(a={"anyOf": [TEXT]}, b={"$ref": "#/properties/a/anyOf/0"}), [{"b": "x"}], [{"b": 1}]),
        ({"$ref": "#/$defs/a%20b", "$defs": {"a b": TEXT}}, ["a"], [1]),
        ({"anyOf": [TEXT, NUMBER], "oneOf": [{"const": "a"}, {"const": 1}]}, ["a", 1], ["b", 2]),
        (
            {
                "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
                "$defs": {"a": UNIT["oneOf"][0], "b": UNIT["oneOf"][1]},
            },
            [{"kind": "a"}, {"kind": "b", "b": 1}],
            [{"kind": "b"}],
        ),
        (
            {"type": "object", "propertyNames": {"type": "string"}, "uniqueItems": False, "dependencies": {}},
            [{"a": 1}],
            [1],
        ),
        (
            {
                "anyOf": [{"$ref": "#/$defs/bad"}, {"type": "null"}],
                "$defs": {"bad": {"type": "string", "enum": [1]}},
            },
            [None],
            [1, "1"],
        ),
    ],
    ids=as_json,
)
def test_other_drafts_and_ways_of_writing_are_held_whole(schema: Schema, good: list[Any], bad: list[Any]) -> None:
    assert unheld(schema) == []
    test_what_grammars_can_express_holds(schema, good, bad)


FIELDS = [
    ({"type": "integer", "minimum": 1, "maximum": 5}, 3, 9),
    ({"type": "string", "pattern": "^[0-9]{3}$"}, "123", "12"),
    ({"type": "string", "format": "date"}, "2026-11-24", "now"),
    ({"type": "string", "enum": ["a", "b"]}, "b", "c"),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 1}, [True], []),
    (an_object(["x"], x={"const": 1}), {"x": 1}, {}),
    ({"anyOf": [{"type": "number", "multipleOf": 0.5}, {"type": "null"}]}, None, 0.3),
    ({"$ref": "#/$defs/short"}, "ab", "abc"),
]
UNHOLDABLE = {
    "pattern": "^(?!foo)[a-z]+$",
    "format": "zork",
    "not": {"const": "zork"},
    "uniqueItems": True,
    "type": "any",
    "minimum": "1",
    "multipleOf": 999_983,
    "$ref": "#/nowhere",
    "minLength": -1,
    "dependentRequired": {"a": ["b"]},
}


@st.composite
def objects_with_one_unholdable_keyword(
    draw: st.DrawFn,
) -> tuple[Schema, str, dict[str, Any], list[dict[str, Any]]]:
    """A schema, the keyword's place, a value that meets the rest, and values that do not."""
    fields = draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=6))
    properties = {f"p{i}": field for i, (field, _, _) in enumerate(fields)}
    good = {f"p{i}": value for i, (_, value, _) in enumerate(fields)}
    all_bad = [good | {f"p{i}": value} for i, (_, _, value) in enumerate(fields)]
    keyword = draw(st.sampled_from(sorted(UNHOLDABLE)))
    odd: Schema = {keyword: UNHOLDABLE[keyword]}
    place, value = draw(st.sampled_from([("", "x"), ("/items", ["x"]), ("/properties/y", {"y": "x"})]))
    if place == "/items":
        odd = {"type": "array", "items": odd}
    elif place:
        odd = an_object(["y"], y=odd)
    at = draw(st.integers(0, len(fields)))
    names = list(properties)
    ordered = {name: properties[name] for name in names[:at]} | {"odd": odd}
    ordered |= {name: properties[name] for name in names[at:]}
    schema = an_object(list(ordered), **ordered) | {"$defs": {"short": {"type": "string", "maxLength": 2}}}

    def arrange(values: dict[str, Any]) -> dict[str, Any]:
        return {name: values.get(name, value) for name in ordered}

    return schema, f"#/properties/odd{place}/{keyword}", arrange(good), [arrange(bad) for bad in all_bad]


@given(objects_with_one_unholdable_keyword())
@settings(max_examples=60, deadline=None)
def test_everything_else_holds_beside_one_unholdable_keyword(
    case: tuple[Schema, str, dict[str, Any], list[dict[str, Any]]],
) -> None:
    schema, pointer, good, all_bad = case
    assert unheld(schema) == [pointer]
    assert holds(schema, good)
    assert not any(holds(schema, bad) for bad in all_bad)


def nested(depth: int, within: str, schema: Schema = TEXT) -> Schema:
    """A schema of this depth."""
    for _ in range(depth):
        schema = {"type": "array", "items": schema} if within == "items" else an_object(["a"], a=schema)
    return schema


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"enum": []}, "Unsatisfiable schema: anyOf is empty"),
        (
            {"type": "integer", "minimum": 5, "maximum": 3},
            "Unsatisfiable schema: minimum (5) is greater than maximum (3)",
        ),
        (an_object(["a"], a=False), "Unsatisfiable schema: required property 'a' is unsatisfiable"),
        ({"allOf": [TEXT, NUMBER]}, "Unsatisfiable schema: incompatible types"),
        ({"$ref": "#"}, "Unsatisfiable schema: no value has an end"),
        (
            an_object(["a"], a={"$ref": "#/properties/a"}),
            "Unsatisfiable schema: required property 'a' is unsatisfiable",
        ),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {c: an_object([d], **{d: {"$ref": f"#/$defs/{d}"}}) for c, d in ("ab", "ba")},
            },
            "Unsatisfiable schema: no value has an end",
        ),
        (
            {"type": "array", "minItems": 1, "items": {"$ref": "#"}},
            "Unsatisfiable schema: required item is unsatisfiable",
        ),
        ({"type": "string", "enum": [1]}, "Unsatisfiable schema: incompatible types"),
        (
            {"type": "string", "pattern": "^a{5}$", "maxLength": 3},
            "Unsatisfiable schema: Regex is empty:  (And (SearchRegex /^a{5}$/) (Regex /(?s:.{0,3})/))",
        ),
        (nested(5_000, "items"), "the schema is nested too deeply"),
        (
            {"enum": ["x" * MAX_SCHEMA_CHARACTERS]},
            f"the schema is too large: {MAX_SCHEMA_CHARACTERS + 14} characters > {MAX_SCHEMA_CHARACTERS} maximum",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_value_meets_is_refused(schema: Schema, problem: str) -> None:
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


@pytest.mark.parametrize(
    ("schema", "pointers"),
    [
        (an_object(["a"], a={"type": "string", "enum": [1, 2]}), [f"{A}/enum"]),
        (an_object(["a"], a={"type": "string", "minLength": 5, "maxLength": 3}), [f"{A}/maxLength"]),
        (an_object(["a", "b"], a=False, b=TEXT), ["#/required"]),
        (an_object(["a", "b"], b=TEXT), ["#/required"]),
        (an_object(["a", "b"], a={"$ref": "#/properties/a"}, b=TEXT), ["#/required"]),
        (an_object(["a"], a=an_object(["x"], x={"enum": []})), [f"{A}/properties/x/enum"]),
    ],
    ids=as_json,
)
def test_of_what_no_value_meets_all_is_held_that_can_be(schema: Schema, pointers: list[str]) -> None:
    n = {"type": "integer", "minimum": 1, "maximum": 5}
    held = hold_schema(
        {**schema, "properties": {**schema["properties"], "n": n}, "required": [*schema["required"], "n"]}
    )
    assert held.problem.startswith("Unsatisfiable")
    assert [found.pointer for found in held.unheld] == pointers
    assert held.schema["properties"]["n"] == n
    assert "n" in held.schema["required"]
    assert make_json_grammar(held.schema)


def test_a_schema_that_no_grammar_can_hold_is_left_out_as_far_as_need_be() -> None:
    many = hold_schema(an_object(**{f"{i}": {} for i in range(20_000)}))
    assert (many.schema, many.unheld[0].pointer) == ({}, "#")
    wide = [{"anyOf": [an_object(**{f"k{i}{j}": TEXT}) for j in range(4)]} for i in range(30)]
    assert set(unheld(an_object(["n"], n=NUMBER) | {"allOf": wide})) == {"#/allOf"}


def test_what_is_nested_too_deeply_is_left_out() -> None:
    assert unheld(nested(100, "properties")) == ["#" + 60 * "/properties/a"]


@pytest.mark.parametrize(
    "schema",
    [
        an_object(**{f"p{i}": {"type": "string", "pattern": f"^(?!{i})[a-z]+$"} for i in range(1_000)}),
        an_object(**{f"p{i}": {"type": "string", "minLength": 2, "maxLength": 1} for i in range(1_000)}),
        {"$defs": {f"d{i}": an_object(["a"], a={"$ref": f"#/$defs/d{i + 1}"}) for i in range(2_000)}}
        | {"$ref": "#/$defs/d0"},
        {"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(5_000)}},
        {"$ref": "#/$defs/d0"}
        | {"$defs": {f"d{i}": nested(20, "properties", {"$ref": f"#/$defs/d{i + 1}"}) for i in range(110)}},
        {"oneOf": [{"$ref": f"#/$defs/d{i}"} for i in range(500)], "$defs": {f"d{i}": TEXT for i in range(500)}},
        {"anyOf": [{"oneOf": [{"type": "object", "a": j} for j in range(100)]} for i in range(80)]},
        {"type": "object", "properties": {f"p{i}": True for i in range(5_000)}},
        {"type": "object", "required": [f"p{i}" for i in range(10_000)]},
        {"type": "object", "patternProperties": {f"^p{i}$": TEXT for i in range(300)}},
        {"anyOf": [{"patternProperties": {f"^p{i}{j}$": TEXT for i in range(20)}} for j in range(100)]},
    ],
    ids=range(11),
)
def test_schemas_full_of_mistakes_are_read_in_bounded_time(schema: Schema) -> None:
    held = hold_schema(schema)
    assert held.schema is not None


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
